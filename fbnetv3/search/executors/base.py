"""The protocol of executors, and the executor that evaluates trials in this process.

To add an executor:

1. Write a class with the methods of :class:`Executor`. ``JointNAS(executor=...)`` takes an instance
   of it without any registration.
2. For ``fbnetv3-search``, write a function that makes an instance from the config, and add it to
   ``_EXECUTORS`` in ``fbnet/config.py``. Its key there is then a value of SEARCH.EXECUTOR.
3. Declare the config keys that the function reads in ``fbnet/keys.py``, and list those that may
   change when a search is resumed in ``RESUMABLE_KEYS``.
4. Add a row to ``_EXECUTORS`` in ``tests/search/executors/test_contract.py``, which tests the
   contract that all executors keep.
"""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from fbnetv3.search.errors import SearchError, StorageUnavailableError
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
    (:class:`~fbnetv3.search.errors.StorageUnavailableError`) do not fail the trial, which keeps no
    result: :meth:`wait` raises them. After an error, the caller calls :meth:`close`.
    """

    def start(self, evaluate: Evaluate) -> None:
        """Sets the evaluation function of the trials that are submitted from now on.

        Raises:
            SearchError: The workers cannot be set up.
        """

    def submit(self, trial: Trial) -> None:
        """Queues a trial and returns at once."""

    def wait(self) -> list[Finished]:
        """Blocks until submitted trials have finished, and returns them; [] if none is left.

        Meanwhile, ``trial.report`` is called in this process for each report of an evaluation.

        Raises:
            StorageUnavailableError: An evaluation cannot use its disk, folder or URI.
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
    """Evaluates a trial. An exception fails it and becomes the reason of the failure.

    Raises:
        StorageUnavailableError: The exception is a disk fault, for which the trial must not fail.
    """
    try:
        score = evaluate(trial)
    except Exception as error:  # user code may raise anything
        fault = disk_fault(error)
        if fault is None:
            return Finished(trial, None, describe(error))
        raise StorageUnavailableError(
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
    """Submitted trials that wait for a worker. A trial whose worker died is queued once more."""

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
        """Adds a trial at the front. This does not count as an attempt."""
        self._trials.appendleft(trial)

    def retry(self, trial: Trial, reason: str) -> list[Finished]:
        """Queues a trial again when its worker dies for the first time; fails it the second time.

        Args:
            trial: Trial that the worker was evaluating.
            reason: Cause of the death, as a predicate such as ``was ended by SIGKILL``.

        Returns:
            [] the first time, the failed trial the second time.
        """
        if trial.number in self._retried:
            return [Finished(trial, None, f"its worker {reason}; this was the second attempt")]
        self._retried.add(trial.number)
        self.put_back(trial)
        return []


class TimeLimit:
    """Limit on the duration of one attempt of a trial.

    Args:
        seconds: Limit in seconds, above 0. None: no limit.

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
        """Returns the seconds until the first of several attempts is overdue; None: no limit."""
        if self._seconds is None:
            return None
        now = time.monotonic()
        return max(0.0, min((s + self._seconds - now for s in starts), default=self._seconds))

    @property
    def reason(self) -> str:
        """Reason with which an overdue trial fails."""
        return f"took longer than {self._seconds:g} s"
