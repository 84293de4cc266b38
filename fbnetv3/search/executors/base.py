"""What an executor is, and the one that evaluates trials in this process."""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from fbnetv3.search.errors import PlaceError, SearchError
from fbnetv3.search.executors.disk_faults import fault_of_place
from fbnetv3.search.trial import Trial

Evaluate = Callable[[Trial], float | None]
Finished = Callable[[Trial, float | None, str | None], None]
"""Called in the searching process for each trial: score, or None and the reason of failure."""
More = Callable[[], Sequence[Trial]]
"""Called there after each: further trials to run, with those that still run."""
PATIENCE_S = 30.0
"""So long a worker may take to save what it has."""


class Executor(Protocol):
    """Runs evaluations.

    An exception fails its trial alone, with the reason. KeyboardInterrupt ends the run, and so
    does a full or forbidden disk, which is no trial's fault: the trial stays without a result.
    Trials may finish in any order.
    """

    def run(
        self,
        evaluate: Evaluate,
        trials: Sequence[Trial],
        finished: Finished,
        more: More | None = None,
    ) -> None:
        """Evaluates each trial and calls ``finished`` for it; returns when all are done.

        What ``more`` gives is evaluated, too. None: nothing.

        Raises:
            PlaceError: an evaluation can't use its disk, folder or URI.
        """

    def close(self) -> None:
        """Ends workers, which may save what they have."""


class InProcess:
    """One trial after the other, here."""

    def run(
        self,
        evaluate: Evaluate,
        trials: Sequence[Trial],
        finished: Finished,
        more: More | None = None,
    ) -> None:
        todo = deque(trials)
        while todo:
            trial = todo.popleft()
            finished(trial, *_attempt(evaluate, trial))
            todo.extend(more() if more else ())

    def close(self) -> None:
        return


def _attempt(evaluate: Evaluate, trial: Trial) -> tuple[float | None, str | None]:
    """Returns the score, or None and the reason of failure.

    Raises:
        PlaceError: the reason is none of the trial's.
    """
    try:
        score = evaluate(trial)
    except Exception as error:  # of the user's code: any
        fault = fault_of_place(error)
        if fault is None:
            return None, describe(error)
        raise PlaceError(
            f"trial {trial.id} can't be evaluated: {fault}; it has not failed, and finished "
            "trials are kept: mend that, and the same command goes on"
        ) from error
    return (None, "no score was returned") if score is None else (score, None)


def describe(error: BaseException) -> str:
    """Returns ``ValueError: text (file.py:12)``, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {text}{where}"


class Batch:
    """Trials of a batch that wait for a worker, each tried once more where that worker dies.

    Args:
        trials: of the batch.
        finished: called for each.
        more: gives further trials, asked after each.
    """

    def __init__(
        self, trials: Sequence[Trial], finished: Finished, more: More | None = None
    ) -> None:
        self.todo, self._tell, self._more = deque(trials), finished, more
        self._deaths: set[int] = set()

    def finished(self, trial: Trial, score: float | None, reason: str | None) -> None:
        """Tells a trial's result, and takes what there is to do next."""
        self._tell(trial, score, reason)
        self.todo.extend(self._more() if self._more else ())

    def lost(self, trial: Trial, reason: str) -> None:
        """Counts the death of a trial's worker: the first is forgiven, the second fails it.

        Args:
            trial: that the worker had begun.
            reason: what became of the worker, such as ``was ended by SIGKILL``.
        """
        if trial.number in self._deaths:
            self.finished(trial, None, f"its worker {reason}, twice")
            return
        self._deaths.add(trial.number)
        self.todo.appendleft(trial)


class Limit:
    """How long an attempt of a trial may take.

    Args:
        seconds: None: no limit.

    Raises:
        SearchError: it is not positive.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise SearchError(f"timeout={seconds}: seconds above 0, or None for no limit")
        self._seconds = seconds

    def is_over(self, begun: float) -> bool:
        """Tells whether an attempt that began then, by the monotonic clock, takes too long."""
        return self.left([begun]) == 0.0

    def left(self, begun: Iterable[float]) -> float | None:
        """Returns the seconds until the first of some attempts takes too long; None: never."""
        if self._seconds is None:
            return None
        now = time.monotonic()
        return max(0.0, min((b + self._seconds - now for b in begun), default=self._seconds))

    @property
    def reason(self) -> str:
        """Why a trial fails."""
        return f"took longer than {self._seconds:g} s"
