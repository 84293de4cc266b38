"""Ensures that workers end with the search, and (on Linux) their child processes with them."""

from __future__ import annotations

import ctypes
import multiprocessing as mp
import os
import signal
import threading

_PR_SET_PDEATHSIG = 1
"""Linux's option of prctl that requests a signal at the end of the parent."""


def allow_children() -> None:
    """Lets this worker start processes, such as data loaders.

    On Linux, processes that the worker forks end when it ends. Daemonic processes may not start
    processes, so the worker clears its own daemon flag. In the searching process, the flag of the
    worker stays set, so that multiprocessing ends the worker when the searching process exits.
    """
    mp.current_process().daemon = False
    # The kernel ends the children however this process ends. If they went on, they would keep the
    # pipe to the searching process open, which notices the end of a worker when this pipe closes.
    link = _ParentLink()
    os.register_at_fork(before=link.remember_parent, after_in_child=link.end_with_parent)


class _ParentLink:
    """Ends a forked process when its parent ends (on Linux), even right after the fork."""

    def __init__(self) -> None:
        self._parent = os.getpid()

    def remember_parent(self) -> None:
        """Stores the id of the process that is about to fork."""
        self._parent = os.getpid()

    def end_with_parent(self) -> None:
        """Ends this forked process when its parent ends, or now if it has ended already."""
        _signal_when_parent_ends(signal.SIGKILL)
        if os.getppid() != self._parent:  # the parent ended before it could be watched
            os._exit(1)


def die_with_parent() -> None:
    """Ends this process when the searching process ends: nobody would read its result."""
    parent = mp.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # A process stopped by SIGSTOP runs no threads. SIGCONT wakes it, so that the thread can end it.
    _signal_when_parent_ends(signal.SIGCONT)


def _signal_when_parent_ends(number: int) -> None:
    """Requests a signal for when the thread that started this process ends (Linux only)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0)
