"""Faults of memory and of devices: workers are replaced, and their trials evaluated once more."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fbnetv3.search import InProcess, LocalWorkers, Trial
from fbnetv3.search.executors.base import Executor, Finished
from fbnetv3.search.executors.device_faults import DATA, DEVICE, MEMORY
from tests.search.executors.running import evaluate_all, make_trials
from tests.search.executors.shared import WITHOUT_WORKERS, WORKERS

_EXECUTORS: dict[str, Callable[[], Executor]] = {
    **WITHOUT_WORKERS,
    **{kind: functools.partial(make, 1) for kind, make in WORKERS.items()},
}


# Errors are known by the names of their types; test_device_faults.py has those of torch, whose
# import would take most of the time of the many workers that are replaced here.
class OutOfMemoryError(RuntimeError):
    """Stands for that of torch."""


class AcceleratorError(RuntimeError):
    """Stands for that of torch."""


_MEMORY_ERROR = OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
_DEVICE_ERROR = AcceleratorError("CUDA error: device-side assert triggered")


@pytest.fixture(params=list(_EXECUTORS))
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    executor = _EXECUTORS[request.param]()
    yield executor
    executor.close()


class Faulty:
    """An evaluation whose first attempts at some trials fail; it notes each attempt.

    Args:
        folder: Folder of the notes.
        errors: Error and number of attempts that fail with it, by number of the trial.
    """

    def __init__(self, folder: Path, errors: dict[int, tuple[Exception, int]]) -> None:
        self._folder, self._errors = folder, errors

    def __call__(self, trial: Trial) -> float:
        with (self._folder / str(trial.number)).open("a") as file:
            file.write(f"{os.getpid()}\n")
        error, failing = self._errors.get(trial.number, (ValueError(), 0))
        if len(self.pids(trial.number)) <= failing:
            raise error
        return 1.0

    def pids(self, number: int) -> list[int]:
        """Returns the process of each attempt at a trial."""
        return [int(pid) for pid in (self._folder / str(number)).read_text().split()]


def _by_number(results: list[Finished]) -> dict[int, Finished]:
    assert len({r.trial.number for r in results}) == len(results)
    return {result.trial.number: result for result in results}


def test_a_fault_is_retried_once_and_fails_with_its_reason(
    executor: Executor, tmp_path: Path
) -> None:
    errors: dict[int, tuple[Exception, int]] = {
        0: (_MEMORY_ERROR, 1),
        1: (_DEVICE_ERROR, 9),
        2: (FileNotFoundError(2, "No such file", "/data/a.jpg"), 9),
        3: (RuntimeError("shapes do not fit"), 9),
    }
    evaluate = Faulty(tmp_path, errors)
    results = _by_number(evaluate_all(executor, evaluate, make_trials(5)))
    assert results[0].score == results[4].score == 1.0
    assert [results[number].fault for number in (1, 2, 3)] == [DEVICE, DATA, None]
    assert str(results[1].reason).startswith("AcceleratorError: CUDA error: device-side assert")
    attempts = [len(evaluate.pids(number)) for number in range(5)]
    if isinstance(executor, InProcess):  # this process cannot be replaced
        assert attempts == [2, 1, 1, 1, 1]
        return
    assert attempts == [2, 2, 1, 1, 1]
    assert str(results[1].reason).endswith("; this was the second attempt")
    assert all(len(set(evaluate.pids(number))) == 2 for number in (0, 1))
    assert evaluate.pids(2) == evaluate.pids(3) == evaluate.pids(4)  # this worker is kept
    assert results[1].place.startswith(("this machine", "node "))


def test_a_lack_of_memory_that_stays_fails_after_the_second_attempt(tmp_path: Path) -> None:
    evaluate = Faulty(tmp_path, {0: (_MEMORY_ERROR, 9)})
    (result,) = evaluate_all(InProcess(), evaluate, make_trials(1))
    assert len(evaluate.pids(0)) == 2
    assert result.fault == MEMORY
    assert str(result.reason).startswith("OutOfMemoryError: CUDA out of memory. Tried to")
    assert str(result.reason).endswith("; this was the second attempt")


def test_each_worker_has_a_device_and_a_new_one_has_that_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa,MIG-bbbb")

    def evaluate(trial: Trial) -> float:
        device = os.environ["CUDA_VISIBLE_DEVICES"]
        with (tmp_path / "devices").open("a") as file:
            file.write(f"{trial.number} {device}\n")
        time.sleep(0.5)
        if trial.number == 0 and not (tmp_path / "failed").exists():
            (tmp_path / "failed").touch()
            raise MemoryError
        return 1.0

    executor = LocalWorkers(3, devices=["GPU-aaaa", "MIG-bbbb"])
    results = evaluate_all(executor, evaluate, make_trials(8))
    executor.close()
    assert all(result.score == 1.0 for result in results)
    rows = [line.split() for line in (tmp_path / "devices").read_text().splitlines()]
    assert {device for _, device in rows} == {"GPU-aaaa", "MIG-bbbb"}
    assert {result.place for result in results} == {"GPU GPU-aaaa", "GPU MIG-bbbb"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa,MIG-bbbb"


def test_nothing_new_starts_beside_a_trial_that_is_retried_alone(tmp_path: Path) -> None:
    def evaluate(trial: Trial) -> float:
        begin = time.monotonic()
        if trial.number == 0 and not (tmp_path / "failed").exists():
            (tmp_path / "failed").touch()
            raise _MEMORY_ERROR
        time.sleep(0.4)
        with (tmp_path / "times").open("a") as file:
            file.write(f"{trial.number} {begin} {time.monotonic()}\n")
        return 1.0

    executor = LocalWorkers(2, devices=["0"])
    results = evaluate_all(executor, evaluate, make_trials(5))
    executor.close()
    assert [r.score for r in results] == [1.0] * 5
    times = {
        int(number): (float(begin), float(end))
        for number, begin, end in map(str.split, (tmp_path / "times").read_text().splitlines())
    }
    begin, end = times.pop(0)
    assert all(
        other_end <= begin or other_begin >= end for other_begin, other_end in times.values()
    )


def test_the_environment_of_the_search_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def evaluate(trial: Trial) -> float:
        return float(os.environ["CUDA_VISIBLE_DEVICES"])

    executor = LocalWorkers(1, devices=["3"])
    (finished,) = evaluate_all(executor, evaluate, make_trials(1))
    executor.close()
    assert finished.score == 3.0
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
