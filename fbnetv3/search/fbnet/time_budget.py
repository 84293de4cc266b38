"""The time budget of a run: after SEARCH.MAX_HOURS, the search ends as it does at Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from fbnetv3.search.errors import SearchError


class TimeBudget:
    """Interrupts its ``with`` block after a number of hours; a context manager.

    The interrupt is a SIGTERM of this process to itself: a training in this process then saves a
    checkpoint, and the block ends with KeyboardInterrupt.

    Args:
        hours: Hours, counted from the construction of the object; 0: no limit.

    Attributes:
        hours: The number of hours.
        is_used_up: Whether the time ran out and ended the block.

    Raises:
        SearchError: There is a limit, but this is not the main thread: only it handles signals.
    """

    def __init__(self, hours: float) -> None:
        self.hours = hours
        self._end = time.monotonic() + 3600 * hours if hours else None
        if hours and threading.current_thread() is not threading.main_thread():
            raise SearchError(
                f"SEARCH.MAX_HOURS={hours:g} needs the main thread, since it ends trainings by a "
                "signal; set it to 0, or start the search from the main thread"
            )
        self.is_used_up = False
        self._is_active = False
        self._timer: threading.Timer | None = None
        self._before: Any = None

    def __enter__(self) -> TimeBudget:
        if self._end is not None:
            self._before = signal.signal(signal.SIGTERM, self._interrupt)
            self._is_active = True
            self._timer = threading.Timer(max(0.0, self._end - time.monotonic()), self._expire)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_active = False
        if self._timer is not None:
            self._timer.cancel()
            signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)

    def _expire(self) -> None:
        if self._is_active:
            self.is_used_up = True
            os.kill(os.getpid(), signal.SIGTERM)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_active or not self.is_used_up:  # else time ran out as the block ended
            raise KeyboardInterrupt
