"""The queue of submitted trials, which decides on which devices a trial may be evaluated."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable

from fbnetv3.search.executors.base import SECOND_ATTEMPT, Finished
from fbnetv3.search.executors.device_faults import DEVICE, MEMORY
from fbnetv3.search.trial import Trial


class TrialQueue:
    """Submitted trials that wait for a worker.

    A trial is queued once more if it ran out of memory, its worker died, or its device failed.
    After it ran out of memory, it is evaluated alone on a device: the other workers of that device
    get no trials until it has ended. After its device failed, it is evaluated on another device if
    a worker has one.
    """

    def __init__(self) -> None:
        self._trials: deque[Trial] = deque()
        self._retried: set[int] = set()  # trials that were queued again, by number
        self._alone: set[int] = set()  # trials that must be alone on their device, by number
        self._reserved: dict[int, Hashable] = {}  # device that a trial in _alone waits for
        self._avoided: dict[int, Hashable] = {}  # device that failed, by number of the trial

    def __len__(self) -> int:
        return len(self._trials)

    def put(self, trial: Trial) -> None:
        """Adds a trial at the end."""
        self._trials.append(trial)

    def clear(self) -> None:
        """Drops the waiting trials.

        A trial that :meth:`retry` has queued before still counts as retried when it is put into the
        queue again.
        """
        self._trials.clear()
        self._reserved.clear()

    def put_back(self, trial: Trial) -> None:
        """Adds a trial at the front, as if it had not been taken: no attempt is counted."""
        self._trials.appendleft(trial)

    def take(
        self, device: Hashable, busy: Collection[Trial] = (), *, has_others: bool = False
    ) -> Trial | None:
        """Removes and returns the first trial that an idle worker may evaluate.

        Args:
            device: Device of the worker.
            busy: Trials that other workers evaluate on this device.
            has_others: Whether there are workers on other devices.

        Returns:
            The trial; None if no trial waits that this worker may evaluate now.
        """
        if any(trial.number in self._alone for trial in busy):
            return None
        for trial in self._trials:
            if self._allows(trial, device, bool(busy), has_others):
                self._trials.remove(trial)
                self._reserved.pop(trial.number, None)
                return trial
        return None

    def _allows(self, trial: Trial, device: Hashable, is_busy: bool, has_others: bool) -> bool:
        if trial.number in self._alone:
            if is_busy:
                self._reserved.setdefault(trial.number, device)
            return not is_busy
        is_avoided = has_others and self._avoided.get(trial.number, _NOWHERE) == device
        return not is_avoided and device not in self._reserved.values()

    def must_be_alone(self, trial: Trial) -> bool:
        """Returns whether a trial must be alone on its device."""
        return trial.number in self._alone

    def has_failed_on(self, device: Hashable) -> bool:
        """Returns whether one of the waiting trials has had a device error on this device."""
        return any(self._avoided.get(t.number, _NOWHERE) == device for t in self._trials)

    def retry(self, failed: Finished, device: Hashable = None) -> list[Finished]:
        """Queues a failed trial again if this is its first failure; else returns it.

        Args:
            failed: Trial that ran out of memory, or whose worker or device failed, with the reason.
            device: Device of that worker.

        Returns:
            [] after the first failure; after the second one, a list with the failed trial, whose
            reason says that it was the second attempt.
        """
        number = failed.trial.number
        if number in self._retried:
            return [failed.with_note(SECOND_ATTEMPT)]
        self._retried.add(number)
        if failed.fault == MEMORY:
            self._alone.add(number)
        elif failed.fault == DEVICE:
            self._avoided[number] = device
        self.put_back(failed.trial)
        return []


_NOWHERE = object()
"""Stands for a device that differs from every device."""
