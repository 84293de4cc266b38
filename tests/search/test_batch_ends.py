"""Batches are filled while candidates are left, and their ends are recorded, not guessed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import Constraint, FloatRange, IntRange, JointNAS, SearchSpace, models
from tests.search import problem

pytestmark = pytest.mark.usefixtures("short_training")

GRID = SearchSpace([IntRange("a", 0, 5), IntRange("b", 0, 4)])  # 30 candidates
PLANE = SearchSpace([FloatRange("x", 0.0, 1.0), FloatRange("y", 0.0, 1.0)])


def _score(trial: Any) -> float:
    values = list(trial.config.values())
    return -((values[0] - 0.3) ** 2) - (values[1] - 0.7) ** 2


def _macs(configs: list[dict[str, Any]]) -> dict[str, list[float]]:
    return {"macs": [float(c["a"]) for c in configs]}


@pytest.mark.parametrize("predictor", ["default", "paper", "random"])
@pytest.mark.parametrize(
    ("space", "sizes", "free"),
    [
        # space, (pool size, batch size, batches, finalists), number of feasible candidates
        (GRID, (100, 7, 2, 8), 30),
        (GRID, (100, 7, 4, 8), 30),  # two of eight finalists are left
        (GRID, (100, 10, 3, 8), 30),  # none is left
        (GRID, (12, 10, 2, 9), 30),  # the pool is used up, the space is not
        (GRID, (100, 2, 1, 5), 30),  # too few scores for a predictor
        (PLANE, (64, 6, 1, 50), 10**9),  # more finalists than an evolution keeps
        (PLANE, (16, 12, 2, 4), 10**9),
    ],
)
def test_batches_are_filled_while_candidates_are_left(
    predictor: str, space: SearchSpace, sizes: tuple[int, int, int, int], free: int
) -> None:
    pool, batch, iterations, finalists = sizes
    search = JointNAS(
        space,
        pool_size=pool,
        batch_size=batch,
        iterations=iterations,
        finalists=finalists,
        predictor=predictor,
        evolution=problem.evolution_settings(),
    )
    result = search.run(_score)
    counts = [sum(t.batch == i for t in result.trials) for i in range(iterations + 1)]
    expected, left = [], free
    for size in [batch] * iterations + [finalists]:
        expected.append(min(size, left))
        left -= expected[-1]
    assert counts == expected
    assert len({t.id for t in result.trials}) == len(result.trials)


def test_shares_of_budgets_are_filled_within_the_budgets() -> None:
    search = JointNAS(
        GRID,
        statistics=_macs,
        constraints=[Constraint("macs", upper=4.0)],
        budgets=[Constraint("macs", upper=0.0), Constraint("macs", upper=2.0)],
        pool_size=100,
        batch_size=5,
        iterations=2,
        finalists=20,
    )
    result = search.run(_score)
    fine = [t.statistics["macs"] for t in result.trials if t.stage == "fine"]
    tried = [t.statistics["macs"] for t in result.trials if t.stage == "coarse"]
    # each of the values 0, 1 and 2 has five candidates; those within a budget are all used up
    assert len(fine) == 15 - sum(value <= 2.0 for value in tried)
    assert max(fine) <= 2.0


SEARCHES: dict[str, tuple[SearchSpace, dict[str, Any]]] = {
    "whole batches": (PLANE, {"batch_size": 5, "iterations": 2, "finalists": 3}),
    "few finalists": (GRID, {"batch_size": 7, "iterations": 4, "finalists": 8}),
    "no finalist is left": (GRID, {"batch_size": 10, "iterations": 3, "finalists": 8}),
    "empty batches": (GRID, {"batch_size": 16, "iterations": 4, "finalists": 0}),
    "no finalists": (PLANE, {"batch_size": 6, "iterations": 1, "finalists": 0}),
    "ahead": (GRID, {"batch_size": 4, "iterations": 9, "finalists": 8, "ahead": 5}),
}


def _open(name: str, path: Path) -> JointNAS:
    space, changes = SEARCHES[name]
    arguments = {"pool_size": 64, "evolution": problem.evolution_settings(), **changes}
    return JointNAS(space, storage=f"sqlite:///{path}", **arguments)


def _outcome(search: JointNAS) -> tuple[Any, ...]:
    result = search.result()
    cards = [(c.trials, repr(c.kendall), repr(c.rmse), c.batch) for c in result.report_cards]
    return problem.summary(result), cards, search.evolve(top_k=3), result.best.id


@pytest.mark.parametrize("name", list(SEARCHES))
def test_a_reopened_search_is_the_one_that_finished(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    first = _open(name, path)
    first.run(_score)
    expected = _outcome(first)
    assert _outcome(_open(name, path)) == expected  # as reports open it
    again = _open(name, path)
    again.run(lambda trial: pytest.fail("evaluated again"))
    assert _outcome(again) == expected


@pytest.mark.parametrize("name", ["whole batches", "few finalists"])
def test_storages_without_records_still_open(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    first = _open(name, path)
    first.run(_score)
    expected = _outcome(first)
    with sqlite3.connect(path) as database:  # as version 0.1.0 has written it
        database.execute("DELETE FROM study_user_attributes WHERE key LIKE 'note.size_of_batch_%'")
        (text,) = database.execute(
            "SELECT value_json FROM study_user_attributes WHERE key = 'note.report_cards'"
        ).fetchone()
        cards = [{k: v for k, v in c.items() if k != "batches"} for c in json.loads(text)]
        database.execute(
            "UPDATE study_user_attributes SET value_json = ? WHERE key = 'note.report_cards'",
            [json.dumps(cards)],
        )
    database.close()
    again = _open(name, path)
    again.run(lambda trial: pytest.fail("evaluated again"))
    assert _outcome(again) == expected
    assert _outcome(_open(name, path)) == expected


def test_report_cards_of_earlier_rounds_are_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, name = tmp_path / "s.db", "whole batches"
    first = _open(name, path).run(_score)
    fits: list[int] = []
    fit_function = models.fit_function

    def counting(name: str) -> Any:
        fits.append(1)
        return fit_function(name)

    monkeypatch.setattr(models, "fit_function", counting)
    again = _open(name, path).run(_score)
    assert len(fits) == 1  # the predictor of the result
    assert [str(card) for card in again.report_cards] == [str(card) for card in first.report_cards]
    assert again.report_cards[-1].held_out == first.report_cards[-1].held_out
