"""The protocol of executors, and the executor that evaluates trials in this process.

To add an executor:

1. In a file of this folder, write a class with the methods of :class:`Executor`, and add it to
   ``_HOME_OF``, ``__all__`` and the imports for type checkers in ``search/__init__.py``.
   ``JointNAS(executor=...)`` accepts an instance without any registration.
2. For ``fbnetv3-search``, write a function that makes an instance from the config, and register it
   with ``@EXECUTORS.register(NAME)`` in ``search/fbnet/config.py``. NAME is declared in
   ``registries.py`` and is then a value of SEARCH.EXECUTOR. Outside of the package:
   ``fbnetv3.register_executor``.
3. Declare the config keys that the function reads in ``search/fbnet/keys.py``. There, list the
   keys that may change when a search is resumed in ``RESUMABLE_KEYS``, and add the executor's
   name to the help of SEARCH.EXECUTOR. Add the ranges of the keys to ``_check_numbers`` in
   ``search/fbnet/config.py``.
4. ``search/fbnet/placement.py`` divides the cores and GPUs of this machine for ``local`` alone. It
   takes every other executor for a cluster: numbers of threads and data-loader workers that are
   ``auto`` follow from SEARCH.RAY.CPUS and SEARCH.RAY.GPUS. Change it if this is wrong.
5. Add the executor to ``WORKERS`` in ``tests/search/executors/shared.py``, or to
   ``WITHOUT_WORKERS`` there if it has no worker processes; ``test_contract.py``,
   ``test_faults.py`` and ``test_withdraw.py`` then test it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from fbnetv3.search.checks import as_real, as_whole
from fbnetv3.search.errors import SearchError, StorageUnavailableError
from fbnetv3.search.executors.device_faults import MEMORY, Fault, failure_kind, find_fault
from fbnetv3.search.executors.disk_faults import disk_fault
from fbnetv3.search.outcome import reason_text, result_of, short
from fbnetv3.search.trial import Trial

Evaluate = Callable[[Trial], Any]
"""Function from a trial to its score or scores, numbers of any type; see :func:`attempt`."""
GRACE_PERIOD_S = 30.0
"""Seconds that a worker gets to save a checkpoint before it is killed."""
SECOND_ATTEMPT = "this was the second attempt"
"""Note on the reason of a trial whose second attempt failed, too."""


@dataclass(frozen=True)
class Finished:
    """A trial whose evaluation has ended.

    Attributes:
        trial: The submitted trial; its reports are complete.
        score: Returned score, or scores by name; None if the trial failed.
        reason: Reason of the failure, on one line; None if there is a score.
        fault: Kind of the fault behind the failure, such as ``device error``; None if there is
            none. See ``device_faults.py``.
        place: Where the trial was evaluated, such as ``GPU 3``; empty for this process.
    """

    trial: Trial
    score: float | Mapping[str, float] | None
    reason: str | None = None
    fault: str | None = None
    place: str = ""

    def with_note(self, note: str) -> Finished:
        """Returns the same failure with a further clause in its reason."""
        return replace(self, reason=f"{self.reason}; {note}")


class Executor(Protocol):
    """Evaluates submitted trials, in any order.

    An exception in an evaluation fails that trial only. KeyboardInterrupt and disk faults
    (:class:`~fbnetv3.search.errors.StorageUnavailableError`), such as a full disk, do not fail the
    trial: it gets no result, and :meth:`wait` raises the exception. After an error, the caller
    calls :meth:`close`.

    An executor may also have a method ``withdraw()``, which drops the submitted trials that have
    not started. Without it, a search that has reached ``max_hours`` waits for all submitted trials.

    A trial that ran out of memory is evaluated once more, alone on its device. Executors with
    worker processes also evaluate a trial once more after a device error or the death of its
    worker, and replace the worker. If the second attempt fails too, the trial fails;
    the cause is outside of the candidate if :attr:`Finished.fault` is one of
    :data:`~fbnetv3.search.executors.device_faults.OUTSIDE`.
    """

    def start(self, evaluate: Evaluate) -> None:
        """Sets the evaluation function of the trials that are submitted from now on.

        Raises:
            SearchError: The workers cannot be set up.
        """

    def submit(self, trial: Trial) -> None:
        """Queues a trial and returns at once."""

    def wait(self) -> list[Finished]:
        """Blocks until a submitted trial has finished; returns it, or several; [] if none is left.

        Meanwhile, ``trial.report`` is called in this process for each report of an evaluation.

        Raises:
            StorageUnavailableError: An evaluation cannot use its disk, folder or URI.
            SearchError: The workers cannot run evaluations.
        """

    def close(self) -> None:
        """Ends the workers, and drops unfinished trials; the executor can be started again.

        Workers get ``GRACE_PERIOD_S`` to save checkpoints.
        """


class InProcess:
    """Evaluates one trial after the other in this process.

    If a trial runs out of memory, unused memory is released and the trial is evaluated once more.
    After a device error, this process can no longer use the device, so the trial fails at once.
    """

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
        trial = self._queue.popleft()
        finished = attempt(self._evaluate, trial)
        if finished.fault == MEMORY:
            gc.collect()
            release_gpu_memory()
            finished = attempt(self._evaluate, trial)
            if finished.reason is not None:
                finished = finished.with_note(SECOND_ATTEMPT)
        return [finished]

    def withdraw(self) -> None:
        self._queue.clear()

    def close(self) -> None:
        self._queue.clear()


def release_gpu_memory() -> None:
    """Releases GPU memory that PyTorch has cached, so that other processes can use it."""
    torch = sys.modules.get("torch")  # None: torch was not imported, so that it holds no memory
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        with contextlib.suppress(RuntimeError):  # the device may have failed
            torch.cuda.empty_cache()


def attempt(evaluate: Evaluate, trial: Trial) -> Finished:
    """Evaluates a copy of a trial, in this process or in a worker.

    The trial fails if the evaluation raises an exception or returns a value that is not a finite
    number; a trial with ``score_names`` needs one for each name. Reports of the copy are passed on
    to the trial until the evaluation ends.

    Raises:
        StorageUnavailableError: The exception is a disk fault, because of which no trial may fail.
    """
    copy = trial.copy()
    copy.on_report = trial.report
    try:
        score, reason = result_of(evaluate(copy), trial.score_names)
    except Exception as error:  # user code may raise anything
        problem = disk_fault(error)
        if problem is None:
            fault = find_fault(error)
            kind = None if fault is None else fault.kind
            return Finished(trial, None, _reason_of(error, fault), kind)
        raise StorageUnavailableError(
            f"trial {trial.id} cannot be evaluated: {problem}. It does not count as failed, and "
            "finished trials are kept; once the problem is solved, the same command continues the "
            "search"
        ) from error
    finally:
        copy.on_report = None  # a thread of the evaluation may still report
    return Finished(trial, score, reason)


def _reason_of(error: BaseException, fault: Fault | None) -> str:
    """Returns the reason of a failure; it mentions the fault even if another error followed."""
    reason = describe(error)
    if fault is None:
        return reason
    if fault.error is not error:
        reason = reason_text(f"{describe(fault.error)}, then {reason}")
    if fault.kind == MEMORY and failure_kind(reason) != MEMORY:
        # ``reason_text`` cut off the words by which ``failure_kind`` recognises the fault.
        reason = reason_text(f"{MEMORY}: {reason}")
    return reason


def describe(error: BaseException) -> str:
    """Returns an exception on one line, such as ``ValueError: text (file.py:12)``."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    try:
        text = reason_text(error)
    except Exception:  # str() of a foreign exception may raise anything
        text = "no message"
    return reason_text(f"{type(error).__name__}: {text[:400]}{where}")


def pickled(evaluate: Evaluate) -> bytes:
    """Returns an evaluation function as bytes, from which workers restore it.

    Raises:
        SearchError: The function refers to an object that cannot be pickled, such as a lock.
    """
    import cloudpickle

    try:
        payload: bytes = cloudpickle.dumps(evaluate)
    except Exception as error:  # __reduce__ of a foreign object may raise anything
        raise SearchError(
            f"the evaluation function cannot be sent to worker processes: {describe(error)}; "
            "create objects that cannot be pickled (locks, open files, connections) inside the "
            "function, or evaluate in this process (no executor)"
        ) from error
    return payload


def check_counts(executor: str, **counts: object) -> None:
    """Checks the numbers of workers and threads.

    Raises:
        SearchError: A number is not a whole number above 0.
    """
    for name, value in counts.items():
        try:
            as_whole(name, value, low=1)
        except SearchError:
            raise SearchError(
                f"{executor}({name}={short(value)}): {name} must be >= 1 and a whole number"
            ) from None


class TimeLimit:
    """Limit on the duration of one attempt of a trial, from the start of its evaluation.

    Args:
        seconds: Limit in seconds, above 0. If None, there is no limit.

    Raises:
        SearchError: The limit is not a finite number above 0.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None:
            try:
                seconds = as_real("timeout", seconds, above=0.0)
            except SearchError:
                raise SearchError(
                    f"timeout={short(seconds)}: allowed are seconds above 0, or None"
                ) from None
        self._seconds = seconds

    def is_over(self, start: float) -> bool:
        """Returns whether an attempt that began at ``start`` (monotonic clock) is overdue."""
        return self.seconds_left([start]) == 0.0

    def seconds_left(self, starts: Iterable[float]) -> float | None:
        """Returns the seconds until the first of several attempts is overdue; None: no limit.

        Without attempts, these are the seconds of the limit.

        Args:
            starts: Times at which the attempts began (monotonic clock).
        """
        if self._seconds is None:
            return None
        now = time.monotonic()
        return max(0.0, min((s + self._seconds - now for s in starts), default=self._seconds))

    @property
    def reason(self) -> str:
        """Reason with which an overdue trial fails."""
        return f"took longer than {self._seconds:g} s"
