"""Ensures that workers and their child processes end with the process that started them."""

from __future__ import annotations

import ctypes
import multiprocessing as mp
import os
import signal
import threading
from functools import partial

_PR_SET_PDEATHSIG = 1


def allow_children() -> None:
    """Lets this worker start processes, such as data loaders, which end with the worker.

    For the searching process, the worker remains daemonic: multiprocessing ends it at exit.
    """
    mp.current_process().daemon = False
    # The kernel kills the children however this process ends. Orphans would also keep the pipe to
    # the searching process open, which recognises the end of this worker by the closed pipe.
    os.register_at_fork(after_in_child=partial(_signal_when_parent_ends, signal.SIGKILL))


def die_with_parent() -> None:
    """Ends this process when the searching process ends: nobody would read its result."""
    parent = mp.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # A process stopped by SIGSTOP runs no threads. SIGCONT wakes it, so that the thread can exit.
    _signal_when_parent_ends(signal.SIGCONT)


def _signal_when_parent_ends(number: int) -> None:
    """Requests a signal for when the thread that started this process ends (Linux only)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0)
