"""A clean stop by a signal: after the same step on all ranks, with a checkpoint."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from fbnetv3.engine.detectron2_loop import HookBase
from fbnetv3.engine.errors import STOPPED, StoppedError
from fbnetv3.signals import restore_handlers, stop_signals

_ASK_INTERVAL = 1.0  # seconds between two exchanges of a StopAgreement
_MAX_STEPS = 1000  # largest number of steps between two exchanges


class StopAgreement:
    """Lets all ranks stop after the same step, whichever rank a signal has reached.

    About once a second, after the same step, the ranks exchange the signals that have reached
    them. In each exchange they also agree on the number of steps until the next one.

    Args:
        device: Device on which the process group communicates.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._next: int | None = None
        self._asked = (0, 0.0)

    def agreed(self, iteration: int, number: int) -> int:
        """Returns the signal to stop by after this step, the same on all ranks; 0 for none.

        Args:
            iteration: Index of the step.
            number: Signal that has reached this rank; 0 for none.
        """
        if self._next is not None and iteration < self._next:
            return 0
        now = time.monotonic()
        steps, seconds = iteration - self._asked[0], now - self._asked[1]
        self._asked = iteration, now
        wait = 1
        if self._next is not None and seconds > 0:
            wait = min(max(1, round(steps * _ASK_INTERVAL / seconds)), _MAX_STEPS)
        # The maximum over the ranks of -wait gives the smallest wait.
        question = torch.tensor([number, -wait], dtype=torch.int64, device=self._device)
        dist.all_reduce(question, dist.ReduceOp.MAX)
        stop, fewest = question.tolist()
        self._next = iteration - fewest
        return int(stop)


class StopHook(HookBase):
    """Stops with a checkpoint after the step in which one of :func:`stop_signals` arrives.

    Several ranks stop after the next step at whose end they exchange signals.

    In a training of one process, a second signal stops at once, without a checkpoint. In a training
    of several processes, all signals after the first are ignored: batch systems send a signal to
    all processes, and launchers pass it on, so that a process may receive it twice.

    Args:
        save: Function that saves a checkpoint and returns its path; None on ranks other than 0.
        path: Function that returns the path of a checkpoint after the given number of steps.
        agreement: How several ranks agree on a step; None in a training of one process.
    """

    def __init__(
        self,
        save: Callable[[], Path] | None,
        path: Callable[[int], Path],
        agreement: StopAgreement | None = None,
    ) -> None:
        self._save, self._path, self._agreement = save, path, agreement
        self._signal = 0
        self._stops = False
        self._before: dict[int, Any] = {}

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._agreement is not None:
            self._signal = self._signal or number
        elif self._signal:
            raise KeyboardInterrupt
        else:
            self._signal = number

    def before_train(self) -> None:
        """Installs the signal handlers; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in stop_signals():
            self._before[number] = signal.signal(number, self._remember)

    def after_step(self) -> None:
        """Stops if a signal has arrived.

        Raises:
            StoppedError: A signal has arrived at any of the ranks; the checkpoint is written.
        """
        iteration, number = self.trainer.iter, self._signal
        if self._agreement is not None:
            number = self._agreement.agreed(iteration, number)
        if not number:
            return
        self._stops = True
        if self._save is not None:
            self._save()
        if self._agreement is not None:
            dist.barrier()  # until rank 0 has saved: the end of one rank ends the others
        path = self._path(iteration + 1)
        name = signal.Signals(number).name
        raise StoppedError(f"{STOPPED}{name}; saved {path}; continue with --resume")

    def after_train(self) -> None:
        """Restores the signal handlers, unless a signal has stopped a training of several ranks."""
        if self._stops and self._agreement is not None:
            return  # the launcher may pass the signal on just now
        restore_handlers(self._before)
