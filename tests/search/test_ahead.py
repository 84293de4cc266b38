"""Batches that are proposed while trials still run, and their replay from the storage."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import SearchError, Trial
from fbnetv3.search.executors.base import Evaluate, Finished, InProcess, More
from fbnetv3.search.executors.local import LocalWorkers
from tests.search import problem
from tests.search.executors.ray_clusters import ray_workers

AHEAD = {"batch_size": 4, "iterations": 6, "ahead": 8, "finalists": 3}


class Shuffled:
    """Finishes any of the trials that run, drawn at random; notes how many there were.

    Args:
        seed: of the order.
        stop: raises Killed after so many results.
    """

    def __init__(self, seed: int, stop: int | None = None) -> None:
        self._random, self._stop = random.Random(seed), stop
        self.in_flight: list[tuple[int, str]] = []

    def run(
        self,
        evaluate: Evaluate,
        trials: Sequence[Trial],
        finished: Finished,
        more: More | None = None,
    ) -> None:
        todo = list(trials)
        while todo:
            self.in_flight.append((len(todo), todo[0].stage))
            trial = todo.pop(self._random.randrange(len(todo)))
            finished(trial, evaluate(trial), None)
            if self._stop is not None:
                self._stop -= 1
                if not self._stop:
                    raise Killed
            todo.extend(more() if more else ())

    def close(self) -> None:
        return


class Killed(BaseException):
    """Simulates SIGKILL: no handler catches it."""


def test_trials_are_in_flight_until_stage_1_ends() -> None:
    executor = Shuffled(0)
    result = problem.search(**AHEAD, executor=executor).run(problem.evaluate)
    assert len(result.trials) == 6 * 4 + 3
    assert len({t.id for t in result.trials}) == len(result.trials)
    coarse = [count for count, stage in executor.in_flight if stage == "coarse"]
    assert min(coarse[: 6 * 4 - 12]) > 8  # until nothing is left to propose
    assert all(t.predicted is not None for t in result.trials if t.batch >= 4)


def test_without_ahead_a_batch_waits_for_all_results() -> None:
    executor = Shuffled(0)
    problem.search(**{**AHEAD, "ahead": 0}, executor=executor).run(problem.evaluate)
    assert [count for count, _ in executor.in_flight] == [4, 3, 2, 1] * 6 + [3, 2, 1]


@pytest.mark.parametrize("early_stop", [None, 0.9])
def test_the_storage_alone_reproduces_the_search(tmp_path: Path, early_stop: float | None) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    changes: dict[str, Any] = {**AHEAD, "storage": url, "early_stop_threshold": early_stop}
    first = problem.search(**changes, executor=Shuffled(3)).run(problem.evaluate)
    # as after a kill: which trials were running at each proposal is known from the storage alone
    again = problem.search(**changes).run(lambda trial: pytest.fail("trained again"))
    assert problem.summary(again) == problem.summary(first)


@pytest.mark.slow
def test_a_kill_at_any_time_loses_and_repeats_no_trial(tmp_path: Path) -> None:
    for stop in (1, 5, 11, 17, 24):
        changes = {**AHEAD, "storage": f"sqlite:///{tmp_path / f'{stop}.db'}"}
        evaluated: list[str] = []

        def evaluate(trial: Trial, log: list[str] = evaluated) -> float:
            log.append(trial.id)
            return problem.evaluate(trial)

        with pytest.raises(Killed):
            problem.search(**changes, executor=Shuffled(1, stop)).run(evaluate)
        before = list(evaluated)
        result = problem.search(**changes, executor=Shuffled(2)).run(evaluate)
        assert len(before) == stop
        assert len(evaluated) == len(set(evaluated)) == len(result.trials) == 6 * 4 + 3
        again = problem.search(**changes).run(lambda trial: pytest.fail("trained again"))
        assert problem.summary(again) == problem.summary(result)


@pytest.mark.parametrize("kind", ["alone", "local", "ray"])
def test_executors_take_new_trials_while_others_run(kind: str, tmp_path: Path) -> None:
    executors = {
        "alone": InProcess,
        "local": lambda: LocalWorkers(2),
        "ray": lambda: ray_workers(2),
    }
    changes: dict[str, Any] = {**AHEAD, "storage": f"sqlite:///{tmp_path / 'search.db'}"}
    result = problem.search(**changes, executor=executors[kind]()).run(problem.evaluate)
    assert len({t.id for t in result.trials}) == 6 * 4 + 3
    assert all(t.state == "complete" for t in result.trials)
    again = problem.search(**changes).run(lambda trial: pytest.fail("trained again"))
    assert problem.summary(again) == problem.summary(result)


def test_ask_and_tell_take_results_of_several_batches_in_any_order() -> None:
    search = problem.search(**AHEAD)
    while trials := search.ask():
        last = trials[-1]
        search.tell([last], [problem.evaluate(last)])
        with pytest.raises(SearchError, match="not one that waits"):
            search.tell([last], [1.0])
    assert len(search.result().trials) == 6 * 4 + 3
