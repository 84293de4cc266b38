"""The signals that ask a process to stop: of a user, a batch system, and a terminal that closes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def stop_signals() -> tuple[signal.Signals, ...]:
    """Returns SIGINT, SIGTERM, and SIGHUP and SIGUSR1 unless this process ignores them.

    ``nohup`` ignores SIGHUP. Batch systems send SIGUSR1 as a warning before a time limit; without
    a handler it ends the process.
    """
    others = [getattr(signal, name, None) for name in ("SIGHUP", "SIGUSR1")]  # Windows has none
    heeded = [n for n in others if n is not None and signal.getsignal(n) is not signal.SIG_IGN]
    return (signal.SIGINT, signal.SIGTERM, *heeded)


@contextmanager
def stop_signals_as_interrupt() -> Iterator[None]:
    """Raises KeyboardInterrupt in the ``with`` block on each of :func:`stop_signals`.

    Outside of the main thread, which alone gets signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [number for number in stop_signals() if number != signal.SIGINT]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None is a handler that was not set from Python
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
