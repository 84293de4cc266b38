"""How a worker ends with the process that started it, and its children with it."""

from __future__ import annotations

import ctypes
import multiprocessing as mp
import os
import signal
import threading
from functools import partial

_PR_SET_PDEATHSIG = 1


def may_have_children() -> None:
    """Lets this worker start processes, such as data loaders', which end when it does.

    It stays daemonic where it was started: that process ends it when it ends itself.
    """
    mp.current_process().daemon = False
    # However this process ends, the kernel ends them: left behind, they would also keep open the
    # pipes by whose end that of this process is noticed.
    os.register_at_fork(after_in_child=partial(_signal_when_parent_ends, signal.SIGKILL))


def die_with_parent() -> None:
    """Ends this process when the searching one is killed: nobody would read its result."""
    parent = mp.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # the thread of a process that is stopped (SIGSTOP) would not see it
    _signal_when_parent_ends(signal.SIGCONT)


def _signal_when_parent_ends(number: int) -> None:
    """Has the kernel send a signal when the thread that started this process ends: Linux."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0)
