"""Candidates that are predicted to run out of memory or time are proposed last."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fbnetv3.search import FloatRange, JointNAS, SearchSpace
from fbnetv3.search.acquisition.avoidance import FailureModel, failing_last, safe_part
from fbnetv3.search.space.constraints import Constraint, Costs
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from tests.search import problem

LIMIT = 400.0
MEMORY = "OutOfMemoryError: CUDA out of memory (a.py:3); this was the second attempt"


def _space() -> FeasibleSpace:
    space = problem.space()
    return FeasibleSpace(
        Costs(space, problem.statistics), (Constraint("macs", upper=problem.UPPER),)
    )


def _model(count: int) -> FailureModel:
    feasible = _space()
    pool = feasible.sample(count, 1)
    return FailureModel(Encoding(feasible.space), pool, pool.statistics["macs"] > LIMIT)


def test_a_limit_on_a_cost_is_learned_from_few_trials() -> None:
    model, pool = _model(24), _space().sample(2000, 2)
    fails = pool.statistics["macs"] > LIMIT
    assert (model.fails(pool) == fails).mean() > 0.93
    np.testing.assert_array_equal(model.fails(pool), _model(24).fails(pool))  # no chance in it


def test_a_space_without_statistics_is_learned_from_its_variables() -> None:
    feasible = FeasibleSpace(Costs(SearchSpace([FloatRange("x", 0.0, 1.0)]), None))
    x = np.arange(0, 1000, 50)
    levels = feasible.space.levels([{"x": float(v) / 1000} for v in x])
    model = FailureModel(Encoding(feasible.space), feasible.with_statistics(levels), x > 500)
    new = feasible.space.levels([{"x": 0.2}, {"x": 0.8}])
    assert model.fails(feasible.with_statistics(new)).tolist() == [False, True]


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9, 1e200])
def test_statistics_of_any_magnitude(unit: float) -> None:
    feasible = _space()
    pool = feasible.sample(64, 1)
    fails = pool.statistics["macs"] > LIMIT
    scaled = type(pool)(pool.levels, {"cost": pool.statistics["macs"] * unit})
    model = FailureModel(Encoding(feasible.space), scaled, fails)
    assert (model.fails(scaled) == fails).mean() > 0.9


def test_the_safe_part_of_a_space_has_no_candidate_that_is_predicted_to_fail() -> None:
    part, model = _space(), _model(64)
    safe, levels = safe_part(part, model), part.sample(500, 3).levels
    pool = part.with_statistics(levels)
    np.testing.assert_array_equal(
        safe.are_feasible(levels), part.are_feasible(levels) & ~model.fails(pool)
    )
    assert not model.fails(safe.select(pool)).any()
    assert safe_part(part, None) is part


def test_failing_candidates_are_ordered_behind_all_others() -> None:
    scores, fails = np.array([3.0, 9.0, 1.0, 7.0]), np.array([False, True, False, True])
    order = np.argsort(-failing_last(scores, fails), kind="stable")
    assert order.tolist() == [0, 2, 1, 3]
    assert failing_last(scores, fails & False) is scores


def _failures(reason: str, **changes: Any) -> tuple[list[int], JointNAS]:
    """Runs a search with a limit on memory; returns the failures in each batch, and the search."""
    search, failures = problem.search(batch_size=16, early_stop_threshold=None, **changes), []
    while trials := search.ask():
        fails = [t.statistics["macs"] > LIMIT for t in trials]
        search.tell(
            trials,
            [None if f else problem.quality(t.config) for f, t in zip(fails, trials, strict=True)],
            [reason if f else None for f in fails],
        )
        failures.append(sum(fails))
    return failures, search


@pytest.mark.parametrize("predictor", ["default", "paper"])
def test_a_search_avoids_candidates_that_would_run_out_of_memory(predictor: str) -> None:
    avoided, search = _failures(MEMORY, predictor=predictor)
    others, unaware = _failures("ValueError: x", predictor=predictor)
    assert avoided[0] == others[0] >= 5  # nothing is known yet
    assert sum(avoided[1:]) <= 2 < sum(others[1:])
    assert unaware.result().failures is None
    text = str(search.result().failures)
    assert text.startswith(f"learned from {sum(avoided)} failures for lack of memory or time and")


def test_few_failures_change_no_proposal() -> None:
    def ids(reason: str) -> list[str]:
        search = problem.search(early_stop_threshold=None)
        while trials := search.ask():
            fails = [t.number in (1, 4, 6, 9) for t in trials]
            scores = [
                None if f else problem.quality(t.config) for f, t in zip(fails, trials, strict=True)
            ]
            search.tell(trials, scores, [reason if f else None for f in fails])
        return [trial.id for trial in search.trials]

    assert ids(MEMORY) == ids("ValueError: x")


def test_where_all_others_are_tried_the_failing_candidates_are_proposed() -> None:
    space = SearchSpace([FloatRange("x", 0.0, 1.0, step=1 / 31)])
    search = JointNAS(space, batch_size=16, iterations=2, finalists=0, pool_size=32, seed=0)
    while trials := search.ask():
        fails = [t.config["x"] > 0.6 for t in trials]
        scores = [None if f else t.config["x"] for f, t in zip(fails, trials, strict=True)]
        search.tell(trials, scores, [MEMORY if f else None for f in fails])
    assert len(search.trials) == 32


def test_a_search_whose_whole_pool_is_predicted_to_fail_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FailureModel, "fails", lambda self, pool: np.ones(len(pool), dtype=bool))
    failures, _ = _failures(MEMORY)
    assert len(failures) == 3
    assert failures[0] >= 5


def test_a_stored_batch_that_an_earlier_version_proposed_is_continued() -> None:
    """Earlier versions did not predict failures: a batch that they began must be the same."""
    search = problem.search(batch_size=16, early_stop_threshold=None)
    trials = search.ask()
    fails = [t.statistics["macs"] > LIMIT for t in trials]
    scores = [None if f else problem.quality(t.config) for f, t in zip(fails, trials, strict=True)]
    search.tell(trials, scores, [MEMORY if f else None for f in fails])
    planner, batches = search._planner, search._batches
    history = batches.history()
    old = planner.propose(history, 16, "coarse", avoid_failures=False)
    new = planner.propose(history, 16, "coarse")
    assert {t.id for t in old} != {t.id for t in new}
    last = next(t for t in old if t.id not in {n.id for n in new})
    last.finish(1.0)
    batches._store.add(last)
    batches.all.clear()
    assert {t.id for t in search.ask()} == {t.id for t in old} - {last.id}
