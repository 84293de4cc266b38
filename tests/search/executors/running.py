"""Runs trials through executors as a search does, and tells what becomes of the processes."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable
from pathlib import Path

from fbnetv3.search import Trial
from fbnetv3.search.executors.base import Evaluate, Executor, Finished


def make_trials(count: int) -> list[Trial]:
    """Returns trials whose ids, numbers and configs differ."""
    return [Trial(str(i), i, 0, {"x": i}) for i in range(count)]


def evaluate_all(
    executor: Executor,
    evaluate: Evaluate,
    trials: Iterable[Trial],
    results: list[Finished] | None = None,
) -> list[Finished]:
    """Evaluates trials; closes the executor after an error.

    Args:
        executor: Executor to use.
        evaluate: Function trial -> score.
        trials: Trials to submit.
        results: List that the finished trials are added to, also before an error; None for a new
            list.

    Returns:
        The finished trials, in the order of their end.
    """
    results = [] if results is None else results
    executor.start(evaluate)
    for trial in trials:
        executor.submit(trial)
    try:
        while finished := executor.wait():
            results += finished
    except BaseException:
        executor.close()
        raise
    return results


def start_child(pids: Path) -> None:
    """Forks a process, as a data loader does, and writes the pids of this process and of it."""

    def wait() -> None:
        os.setpgid(0, 0)
        time.sleep(600)

    child = multiprocessing.get_context("fork").Process(target=wait, daemon=True)
    child.start()
    pids.write_text(f"{os.getpid()} {child.pid}")


def read_pids(pids: Path) -> list[int]:
    """Waits for the file that :func:`start_child` writes, and returns its two pids."""
    deadline = time.monotonic() + 90
    while not (pids.exists() and len(pids.read_text().split()) == 2):
        assert time.monotonic() < deadline, "no evaluation has begun"
        time.sleep(0.05)
    return [int(pid) for pid in pids.read_text().split()]


def has_ended(pid: int) -> bool:
    """Returns whether a process ends within 10 seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
