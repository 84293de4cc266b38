"""A storage refuses a search with other scores, and names what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import (
    Choice,
    Constraint,
    FloatRange,
    IntRange,
    JointNAS,
    SearchError,
    SearchSettings,
    SearchSpace,
    When,
)
from fbnetv3.search.storage.batch_log import BatchLog

pytestmark = pytest.mark.usefixtures("short_training")

X, C = FloatRange("x", 0.001, 1.0), Choice("c", ("a", "b"))
Y = IntRange("y", 1, 1000)


def _search(url: str | None = None, space: tuple = (X, C, Y), **changes: Any) -> JointNAS:
    settings: dict[str, Any] = {
        "pool_size": 64,
        "batch_size": 2,
        "iterations": 1,
        "finalists": 0,
        "statistics": lambda configs: {"m": [c["x"] for c in configs]},
        "constraints": [Constraint("m", upper=0.9)],
        "evaluator_config": {"epochs": 5, "data": {"name": "digits"}},
    }
    return JointNAS(SearchSpace(space), storage=url, **{**settings, **changes})


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "log": ({"space": (FloatRange("x", 0.001, 1.0, log=True), C, Y)}, "variables.x"),
    "log of an int": ({"space": (X, C, IntRange("y", 1, 1000, log=True))}, "variables.y"),
    "order": ({"space": (C, X, Y)}, "order"),
    "order of choices": ({"space": (X, Choice("c", ("b", "a")), Y)}, "variables.c"),
    "part": (
        {"space": (X, Choice("c", ("a", "b"), part="architecture"), Y)},
        "variables.c",
    ),
    "7th digit of a range": ({"space": (FloatRange("x", 0.001, 1.00000001), C, Y)}, "variables.x"),
    "condition": (
        {"space": (X, C, IntRange("y", 1, 1000, active_if=When("c", "==", "a")))},
        "variables.y",
    ),
    "type of a condition": (
        {"space": (X, Choice("c", (1, True)), Y)},
        "variables.c",
    ),
    "7th digit of a bound": ({"constraints": [Constraint("m", upper=0.90000001)]}, "constraints"),
    "budget": ({"budgets": [Constraint("m", upper=0.5)]}, "budgets"),
    "statistics": (
        {"statistics": lambda configs: {"m": [c["x"] for c in configs], "n": [1.0] * len(configs)}},
        "statistics",
    ),
    "epochs": ({"evaluator_config": {"epochs": 6, "data": {"name": "digits"}}}, "evaluator.epochs"),
    "data": (
        {"evaluator_config": {"epochs": 5, "data": {"name": "other"}}},
        "evaluator.data.name was 'digits', is 'other'",
    ),
    "one more key": (
        {"evaluator_config": {"epochs": 5, "data": {"name": "digits"}, "amp": True}},
        "evaluator.amp was not set, is True",
    ),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_other_scores_are_refused_with_what_differs(name: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    first = _search(url)
    first.run(lambda trial: trial.config["x"])
    changes, text = CHANGES[name]
    with pytest.raises(SearchError, match="other settings") as error:
        _search(url, **changes)
    assert text in str(error.value)
    assert "\n" not in str(error.value)
    assert _search(url).result().best.score == first.result().best.score


@pytest.mark.parametrize(
    "changes",
    [
        {"space": (FloatRange("x", 0.001, 1), Choice("c", ["a", "b"]), IntRange("y", 1, 1000))},
        {"constraints": (Constraint("m", upper=0.9),), "seed": 0},
        {"evaluator_config": {"data": {"name": "digits"}, "epochs": 5}},
        {"evaluator_config": None},
    ],
)
def test_the_same_search_in_other_words_is_accepted(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    _search(url).run(lambda trial: trial.config["x"])
    assert len(_search(url, **changes).result().trials) == 2


def test_a_storage_of_an_earlier_version_is_checked_by_what_it_keeps(tmp_path: Path) -> None:
    import sqlite3

    url = f"sqlite:///{tmp_path / 'search.db'}"
    _search(url).run(lambda trial: trial.config["x"])
    with sqlite3.connect(tmp_path / "search.db") as database:
        database.execute("DELETE FROM study_user_attributes WHERE key = 'identity'")
    changed, _ = CHANGES["epochs"]
    assert len(_search(url, **changed).result().trials) == 2
    with pytest.raises(SearchError, match=r"finalists was 0, is 1"):
        _search(url, finalists=1)


def test_a_log_keeps_the_identity_too(tmp_path: Path) -> None:
    search = _search()
    search.run(lambda trial: trial.config["x"])
    log = BatchLog(tmp_path)
    log.write(search.trials, search.settings, search.order, identity=search.identity)
    restored = _search()
    restored.restore(log.read())
    assert restored.run(lambda trial: 0.0).best.score == search.result().best.score
    for changes, text in CHANGES.values():
        with pytest.raises(SearchError, match="belongs to a search with other settings") as error:
            _search(**changes).restore(log.read())
        assert text.split(" ")[0] in str(error.value)


def test_long_variables_are_kept_short_and_told_apart() -> None:
    names = [f"value {i}" for i in range(5000)]
    spaces = [SearchSpace([Choice("c", n)]) for n in (names, [*names[:-1], "other"])]
    first, second = (SearchSettings().identify(space) for space in spaces)
    assert len(str(first)) < 2000
    assert first != second


@pytest.mark.parametrize("config", [{"f": print}, {"x": float("nan")}, [1], {"x": {1, 2}}])
def test_an_identity_that_cannot_be_kept_is_refused(config: Any) -> None:
    with pytest.raises(SearchError, match="evaluator_config"):
        _search(evaluator_config=config)
