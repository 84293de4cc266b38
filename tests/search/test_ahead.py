"""Proposing while trials still run: workers stay busy, and the storage tells how it came about."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import SearchError, Trial
from fbnetv3.search.executors.base import Evaluate, Finished, InProcess
from fbnetv3.search.executors.local import LocalWorkers
from tests.search import problem
from tests.search.executors.ray_clusters import ray_workers

AHEAD = {"batch_size": 4, "iterations": 6, "ahead": 8, "finalists": 3}


class Shuffled:
    """An executor that finishes trials in random order.

    Args:
        seed: Seed of the order.
        stop: Number of results after which :meth:`wait` raises Killed; None for never.

    Attributes:
        in_flight: Number of unfinished trials, and the stage of one, at each result.
    """

    def __init__(self, seed: int, stop: int | None = None) -> None:
        self._random, self._stop = random.Random(seed), stop
        self._trials: list[Trial] = []
        self.in_flight: list[tuple[int, str]] = []

    def start(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate

    def submit(self, trial: Trial) -> None:
        self._trials.append(trial)

    def wait(self) -> list[Finished]:
        if self._stop == len(self.in_flight):
            raise Killed
        self.in_flight.append((len(self._trials), self._trials[0].stage))
        trial = self._trials.pop(self._random.randrange(len(self._trials)))
        return [Finished(trial, self._evaluate(trial))]

    def close(self) -> None:
        return


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def test_so_many_are_in_flight_until_stage_one_ends() -> None:
    executor = Shuffled(0)
    result = problem.search(**AHEAD, executor=executor).run(problem.evaluate)
    assert len(result.trials) == 6 * 4 + 3
    assert len({t.id for t in result.trials}) == len(result.trials)
    coarse = [count for count, stage in executor.in_flight if stage == "coarse"]
    assert min(coarse[: 6 * 4 - 12]) > 8  # until nothing is left to propose
    assert all(t.predicted is not None for t in result.trials if t.batch >= 4)


def test_without_it_nothing_is_proposed_before_all_are_done() -> None:
    executor = Shuffled(0)
    problem.search(**{**AHEAD, "ahead": 0}, executor=executor).run(problem.evaluate)
    assert [count for count, _ in executor.in_flight] == [4, 3, 2, 1] * 6 + [3, 2, 1]


@pytest.mark.parametrize("early_stop", [None, 0.9])
def test_the_storage_alone_gives_the_same_search_again(
    tmp_path: Path, early_stop: float | None
) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    changes: dict[str, Any] = {**AHEAD, "storage": url, "early_stop_threshold": early_stop}
    first = problem.search(**changes, executor=Shuffled(3)).run(problem.evaluate)
    # as after a kill behind the last result: what is known when does not come from this process
    again = problem.search(**changes).run(lambda trial: pytest.fail("trained again"))
    assert problem.summary(again) == problem.summary(first)


@pytest.mark.slow
def test_killed_anywhere_no_trial_is_lost_or_done_twice(tmp_path: Path) -> None:
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
def test_executors_take_more_while_they_run(kind: str, tmp_path: Path) -> None:
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


def test_by_hand_trials_of_several_batches_are_told_in_any_order() -> None:
    search = problem.search(**AHEAD)
    while trials := search.ask():
        last = trials[-1]
        search.tell([last], [problem.evaluate(last)])
        with pytest.raises(SearchError, match="not one that waits"):
            search.tell([last], [1.0])
    assert len(search.result().trials) == 6 * 4 + 3


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(SearchError, match="ahead=-1"):
        problem.search(ahead=-1)
