"""Searches whose first batch is divided: the predictor chooses its further parts."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import SearchError, SearchSettings, Trial
from fbnetv3.search.schedule import Schedule
from fbnetv3.search.storage.batch_log import BatchLog
from tests.search import problem
from tests.search.test_chance import Evaluator

pytestmark = pytest.mark.usefixtures("short_training")

DIVIDED: dict[str, Any] = {"batch_size": 16, "iterations": 2, "finalists": 3, "first_parts": 2}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, (16, 16, 16)),
        ({"batch_size": 8}, (8,)),
        ({"batch_size": 31}, (31,)),
        ({"batch_size": 33}, (17, 16)),
        ({"batch_size": 100}, (34, 33, 33)),
        ({"predictor": "paper"}, (48,)),
        ({"predictor": "random"}, (48,)),
        ({"ahead": 1}, (48,)),
        ({"rungs": (3, 9)}, (48,)),
        ({"objectives": ("score", "-macs")}, (48,)),
        ({"first_parts": 1}, (48,)),
        ({"first_parts": 5}, (10, 10, 10, 9, 9)),
        ({"first_parts": 2, "predictor": "paper"}, (24, 24)),
    ],
)
def test_a_first_batch_of_32_or_more_is_divided(changes: dict[str, Any], parts: tuple) -> None:
    settings = SearchSettings(**changes)
    assert settings.sizes_of_first_parts() == parts
    assert settings.sizes_of_first_parts(settings.batch_size) == (settings.batch_size,)


@pytest.mark.parametrize("parts", [0, 49, 1.5])
def test_parts_that_no_batch_has_are_refused(parts: Any) -> None:
    with pytest.raises(SearchError, match=f"first_parts={parts}"):
        SearchSettings(first_parts=parts)


def test_the_parts_are_batches_and_the_total_is_unchanged() -> None:
    schedule = Schedule(SearchSettings(**DIVIDED))
    assert [schedule.size_of(i) for i in range(schedule.count)] == [8, 8, 16, 3]
    assert [schedule.stage_of(i) for i in range(schedule.count)] == ["coarse"] * 3 + ["fine"]
    assert schedule.size() == 2 * 16 + 3


def test_the_predictor_chooses_the_second_part() -> None:
    search = problem.search(**DIVIDED)
    sizes = []
    while trials := search.ask():
        sizes.append(len(trials))
        assert all((t.predicted is None) == (len(sizes) == 1) for t in trials)
        search.tell(trials, [problem.quality(t.config) for t in trials])
    assert sizes == [8, 8, 16, 3]


def test_candidates_stop_early_only_after_the_whole_first_batch() -> None:
    result = problem.search(**DIVIDED).run(problem.evaluate)
    assert result.early_stop is not None
    assert {t.max_epochs for t in result.trials[:16]} == {None}
    assert {t.max_epochs for t in result.trials[16:]} == {result.early_stop.epoch} != {None}


def test_chance_is_judged_by_the_whole_first_batch() -> None:
    evaluate = Evaluator([10.0], chance_score=12.0)
    with pytest.raises(SearchError, match=r"above chance \(12\).*best of 16"):
        problem.search(**DIVIDED).run(evaluate)
    assert evaluate.count == 16


class _Killed(BaseException):
    """Stands for SIGKILL: no code catches it."""


@pytest.mark.slow
def test_a_killed_search_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    expected = problem.summary(problem.search(**DIVIDED).run(problem.evaluate))
    url, count = f"sqlite:///{tmp_path / 's.db'}", 0

    def evaluate(trial: Trial) -> float:
        nonlocal count
        count += 1
        if count in (3, 12, 19):  # in both parts of the first batch, and in the second batch
            raise _Killed
        return problem.evaluate(trial)

    for _ in range(3):
        with pytest.raises(_Killed):
            problem.search(storage=url, **DIVIDED).run(evaluate)
    assert problem.summary(problem.search(storage=url, **DIVIDED).run(evaluate)) == expected


def test_more_iterations_continue_a_divided_search(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    problem.search(storage=url, **{**DIVIDED, "iterations": 1}).run(problem.evaluate)
    done = problem.search(storage=url, **{**DIVIDED, "iterations": 1})
    (untried,) = done.space.configs(done.plan.pool.levels[-1:])
    with pytest.raises(SearchError, match="the last batch has been proposed"):
        done.enqueue(untried, "late")
    done.close()
    result = problem.search(storage=url, **DIVIDED).run(problem.evaluate)
    assert [t.batch for t in result.trials] == [0] * 8 + [1] * 8 + [2] * 3 + [3] * 16 + [4] * 3
    with pytest.raises(SearchError, match="iterations=1 is fewer than the storage has"):
        problem.search(storage=url, **{**DIVIDED, "iterations": 1}).ask()


@pytest.mark.parametrize("finished", [5, 20, 40])
def test_a_search_of_an_earlier_version_goes_on_with_whole_batches(
    tmp_path: Path, finished: int
) -> None:
    path = tmp_path / "s.db"
    url = f"sqlite:///{path}"
    divided = {"batch_size": 32, "iterations": 2, "finalists": 3}
    whole = {**divided, "first_parts": 1}
    expected = problem.summary(problem.search(**whole).run(problem.evaluate))
    search = problem.search(storage=url, **whole)
    for trial in (t for _ in range(2) for t in search.ask()):
        if trial.number < finished:
            search.tell([trial], [problem.evaluate(trial)])
    search.close()
    with sqlite3.connect(path) as database:  # as version 0.1.0 has written it
        database.execute("DELETE FROM study_user_attributes WHERE key LIKE 'note.size_of_batch_%'")
        database.execute(
            "UPDATE study_user_attributes SET value_json = json_remove(value_json, '$.first_parts')"
            " WHERE key = 'settings'"
        )
    database.close()
    again = problem.search(storage=url, **divided)
    assert again.size == 2 * 32 + 3
    assert problem.summary(again.run(problem.evaluate)) == expected


def test_a_log_restores_a_divided_search(tmp_path: Path) -> None:
    search = problem.search(**DIVIDED)
    for _ in range(2):
        trials = search.ask()
        search.tell(trials, [problem.evaluate(t) for t in trials])
    log = BatchLog(tmp_path / "log")
    search.ask()
    log.write(search.trials, search.settings, search.order)
    again = problem.search(storage=f"sqlite:///{tmp_path / 's.db'}", **DIVIDED)
    again.restore(log.read())
    expected = problem.search(**DIVIDED).run(problem.evaluate)
    assert problem.summary(again.run(problem.evaluate)) == problem.summary(expected)
