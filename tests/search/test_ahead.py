"""Searches that propose trials ahead: workers stay busy, and the storage records the order."""

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

pytestmark = pytest.mark.usefixtures("short_training")

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
    """Stands for SIGKILL: no code catches it."""


def test_more_trials_than_ahead_run_until_stage_one_ends() -> None:
    executor = Shuffled(0)
    result = problem.search(**AHEAD, executor=executor).run(problem.evaluate)
    assert len(result.trials) == 6 * 4 + 3
    assert len({t.id for t in result.trials}) == len(result.trials)
    coarse = [count for count, stage in executor.in_flight if stage == "coarse"]
    assert min(coarse[: 6 * 4 - 12]) > 8  # until all batches are proposed
    assert all(t.predicted is not None for t in result.trials if t.batch >= 4)


def test_without_trials_ahead_a_batch_ends_before_the_next_is_proposed() -> None:
    executor = Shuffled(0)
    problem.search(**{**AHEAD, "ahead": 0}, executor=executor).run(problem.evaluate)
    assert [count for count, _ in executor.in_flight] == [4, 3, 2, 1] * 6 + [3, 2, 1]


@pytest.mark.parametrize("early_stop", [None, 0.9])
def test_the_storage_alone_gives_the_same_search(tmp_path: Path, early_stop: float | None) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    changes: dict[str, Any] = {**AHEAD, "storage": url, "early_stop_threshold": early_stop}
    first = problem.search(**changes, executor=Shuffled(3)).run(problem.evaluate)
    # as after a kill behind the last result: this process has not seen in which order trials ended
    again = problem.search(**changes).run(lambda trial: pytest.fail("evaluated again"))
    assert problem.summary(again) == problem.summary(first)


@pytest.mark.slow
def test_a_search_killed_again_and_again_loses_and_repeats_no_trial(tmp_path: Path) -> None:
    changes: dict[str, Any] = {**AHEAD, "storage": f"sqlite:///{tmp_path / 'search.db'}"}
    evaluated: list[str] = []

    def evaluate(trial: Trial) -> float:
        evaluated.append(trial.id)
        return problem.evaluate(trial)

    stops = (1, 4, 6, 6, 7)  # after 1, 5, 11, 17 and 24 results in all
    for seed, stop in enumerate(stops):
        with pytest.raises(Killed):
            problem.search(**changes, executor=Shuffled(seed, stop)).run(evaluate)
    assert len(evaluated) == sum(stops)
    result = problem.search(**changes, executor=Shuffled(9)).run(evaluate)
    assert len(evaluated) == len(set(evaluated)) == len(result.trials) == 6 * 4 + 3
    again = problem.search(**changes).run(lambda trial: pytest.fail("evaluated again"))
    assert problem.summary(again) == problem.summary(result)


@pytest.mark.parametrize("kind", ["in process", "local", "ray"])
def test_executors_take_trials_of_several_batches(kind: str, tmp_path: Path) -> None:
    executors = {
        "in process": InProcess,
        "local": lambda: LocalWorkers(2),
        "ray": lambda: ray_workers(2),
    }
    changes: dict[str, Any] = {**AHEAD, "storage": f"sqlite:///{tmp_path / 'search.db'}"}
    result = problem.search(**changes, executor=executors[kind]()).run(problem.evaluate)
    assert len({t.id for t in result.trials}) == 6 * 4 + 3
    assert all(t.state == "complete" for t in result.trials)
    again = problem.search(**changes).run(lambda trial: pytest.fail("evaluated again"))
    assert problem.summary(again) == problem.summary(result)


def test_ask_and_tell_takes_trials_of_several_batches_in_any_order() -> None:
    search = problem.search(**AHEAD)
    while trials := search.ask():
        last = trials[-1]
        search.tell([last], [problem.evaluate(last)])
        with pytest.raises(SearchError, match="is not waiting for a result"):
            search.tell([last], [1.0])
    assert len(search.result().trials) == 6 * 4 + 3


def test_a_negative_number_of_trials_ahead_is_refused() -> None:
    with pytest.raises(SearchError, match="ahead=-1"):
        problem.search(ahead=-1)
