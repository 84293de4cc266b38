"""The signals by which a user, a batch system or a closing terminal asks a process to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any


def stop_signals() -> tuple[signal.Signals, ...]:
    """Returns SIGINT and SIGTERM, plus SIGHUP and SIGUSR1 where this process does not ignore them.

    ``nohup`` makes a process ignore SIGHUP. Batch systems send SIGUSR1 as a warning before a time
    limit; without a handler it ends the process.
    """
    others = [getattr(signal, name, None) for name in ("SIGHUP", "SIGUSR1")]  # missing on Windows
    heeded = [n for n in others if n is not None and signal.getsignal(n) is not signal.SIG_IGN]
    return (signal.SIGINT, signal.SIGTERM, *heeded)


@contextmanager
def stop_signals_as_interrupt() -> Iterator[None]:
    """Lets each of :func:`stop_signals` raise KeyboardInterrupt in the ``with`` block.

    Outside of the main thread it does nothing, since only the main thread can handle signals.
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
        restore_handlers(before)


def restore_handlers(before: Mapping[Any, Any]) -> None:
    """Sets signal handlers back.

    Args:
        before: Signal -> its earlier handler, as ``signal.signal`` returned it. None stands for a
            handler that was not set from Python, which cannot be set again: the signal gets its
            default action.
    """
    for number, handler in before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
