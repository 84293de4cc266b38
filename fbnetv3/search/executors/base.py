"""The protocol of executors, and the executor that evaluates trials in this process."""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from fbnetv3.search.errors import PlaceError, SearchError
from fbnetv3.search.executors.disk_faults import disk_fault
from fbnetv3.search.trial import Trial

Evaluate = Callable[[Trial], float | None]
GRACE_PERIOD_S = 30.0
"""Seconds that a worker gets to save a checkpoint before it is killed."""


@dataclass(frozen=True)
class Finished:
    """A trial whose evaluation has ended.

    Attributes:
        trial: The submitted trial; its reports are complete.
        score: Returned score; None if the trial failed.
        reason: Reason of the failure, on one line; None if there is a score.
    """

    trial: Trial
    score: float | None
    reason: str | None = None


class Executor(Protocol):
    """Evaluates submitted trials, in any order.

    An exception in an evaluation fails that trial only. KeyboardInterrupt and disk faults
    (:class:`~fbnetv3.search.errors.PlaceError`) are raised by :meth:`wait` instead, and the
    trial stays without a result. After an error the caller calls :meth:`close`.
    """

    def start(self, evaluate: Evaluate) -> None:
        """Sets the evaluation function of the trials that are submitted from now on.

        Raises:
            SearchError: The workers cannot be set up.
        """

    def submit(self, trial: Trial) -> None:
        """Queues a trial and returns at once."""

    def wait(self) -> list[Finished]:
        """Blocks until at least one submitted trial has finished; [] if none is left.

        ``trial.report`` is called in this process while it waits.

        Raises:
            PlaceError: An evaluation cannot use its disk, folder or URI.
            SearchError: The workers cannot run evaluations.
        """

    def close(self) -> None:
        """Ends the workers after they have saved checkpoints, and drops unfinished trials.

        The executor can be started again.
        """


class InProcess:
    """Evaluates one trial after the other in this process."""

    def __init__(self) -> None:
        self._evaluate: Evaluate | None = None
        self._queue: deque[Trial] = deque()

    def start(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate

    def submit(self, trial: Trial) -> None:
        self._queue.append(trial)

    def wait(self) -> list[Finished]:
        if not self._queue:
            return []
        assert self._evaluate is not None, "start() was not called"
        return [attempt(self._evaluate, self._queue.popleft())]

    def close(self) -> None:
        self._queue.clear()


def attempt(evaluate: Evaluate, trial: Trial) -> Finished:
    """Evaluates a trial; an exception becomes the reason of its failure.

    Raises:
        PlaceError: The exception is a disk fault, which says nothing about the trial.
    """
    try:
        score = evaluate(trial)
    except Exception as error:  # user code may raise anything
        fault = disk_fault(error)
        if fault is None:
            return Finished(trial, None, describe(error))
        raise PlaceError(
            f"trial {trial.id} cannot be evaluated: {fault}. It does not count as failed, and "
            "finished trials are kept; once that is fixed, the same command continues the search"
        ) from error
    return Finished(trial, score, "no score was returned" if score is None else None)


def describe(error: BaseException) -> str:
    """Returns an exception on one line, such as ``ValueError: text (file.py:12)``."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {text}{where}"


class TrialQueue:
    """Submitted trials without a worker; a trial whose worker died is queued once more."""

    def __init__(self) -> None:
        self._trials: deque[Trial] = deque()
        self._retried: set[int] = set()

    def __len__(self) -> int:
        return len(self._trials)

    def put(self, trial: Trial) -> None:
        """Adds a trial at the end."""
        self._trials.append(trial)

    def take(self) -> Trial:
        """Removes and returns the first trial."""
        return self._trials.popleft()

    def put_back(self, trial: Trial) -> None:
        """Adds a trial at the front; this is not counted as an attempt."""
        self._trials.appendleft(trial)

    def retry(self, trial: Trial, reason: str) -> list[Finished]:
        """Queues a trial again after the first death of its worker; fails it after the second.

        Args:
            trial: Trial that the worker was evaluating.
            reason: Cause of the death, as a predicate such as ``was ended by SIGKILL``.

        Returns:
            [] after the first death, the failed trial after the second.
        """
        if trial.number in self._retried:
            return [Finished(trial, None, f"its worker {reason}; this was the second attempt")]
        self._retried.add(trial.number)
        self.put_back(trial)
        return []


class TimeLimit:
    """Limit on the duration of one attempt of a trial.

    Args:
        seconds: Limit in seconds, above 0; None for no limit.

    Raises:
        SearchError: The limit is not positive.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise SearchError(f"timeout={seconds}: allowed are seconds above 0, or None")
        self._seconds = seconds

    def is_over(self, start: float) -> bool:
        """Returns whether an attempt that began at ``start`` (monotonic clock) is overdue."""
        return self.seconds_left([start]) == 0.0

    def seconds_left(self, starts: Iterable[float]) -> float | None:
        """Returns the seconds until the first of several attempts is overdue; None for never."""
        if self._seconds is None:
            return None
        now = time.monotonic()
        return max(0.0, min((s + self._seconds - now for s in starts), default=self._seconds))

    @property
    def reason(self) -> str:
        """Reason with which an overdue trial fails."""
        return f"took longer than {self._seconds:g} s"
