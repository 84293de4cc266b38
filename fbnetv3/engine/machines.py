"""Heartbeats between the machines of a training, and the reason why the training ended.

The launcher of a machine is the process that starts the machine's ranks. Each launcher counts its
heartbeats in a store, which the launcher of machine 0 hosts. Machine 0 watches the counts of the
other machines, and each other machine watches whether the store still answers. When a rank or a
machine dies, all launchers end their ranks within seconds and print the same reason, which names
the rank or machine that died.

torchrun's elastic agent does not replace this. Measured with its c10d rendezvous (torch 2.14, gloo,
two nodes of one rank each): after SIGKILL of a node, the other one ended within 10 s, but with the
traceback of its own rank and without the name of the dead node. SIGSTOP of a node looks like a loss
of power or network to the other node, which was still waiting in a collective call 90 s later. With
this module, both cases end within about 10 s, and the message names the dead machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")

HEARTBEAT_TIMEOUT = 8.0
"""Seconds without a heartbeat after which a machine counts as dead."""
_HEARTBEAT_INTERVAL = 0.5  # seconds
# Limit in seconds on each call to the store at the end of a training, on machine 0's wait for the
# other machines, and on the wait for the thread of the heartbeats
_LEAVE_TIMEOUT = 3.0
_REASON = "reason"  # key in the store


def report_end(store: dist.Store, reason: str) -> str:
    """Records why the training ended, unless a reason was recorded before.

    Args:
        store: Store that the machines share.
        reason: One line that names a rank or a machine.

    Returns:
        The reason that was recorded first.
    """
    # the expected value "" also matches a key that does not exist
    return bytes(store.compare_set(_REASON, "", reason)).decode()


def end_reason(store: dist.Store) -> str:
    """Returns why the training ended; "" if no reason was recorded or the store is gone."""
    with suppress(RuntimeError):
        if store.check([_REASON]):
            return bytes(store.get(_REASON)).decode()
    return ""


class MachineMonitor:
    """Sends the heartbeats of this machine, and notices when the training has ended elsewhere.

    Args:
        store: Store that the machines share; machine 0 hosts it.
        rank: Rank of this machine among the machines.
        count: Number of machines.
        processes: Number of ranks on each machine.
    """

    def __init__(self, store: dist.Store, rank: int, count: int, processes: int) -> None:
        self._store, self._rank, self._processes = store, rank, processes
        self._reason, self._answered = "", time.monotonic()
        # Machine 0 watches the others: machine -> (heartbeats so far, time of the last one)
        watched = range(1, count) if rank == 0 else ()
        self._others = dict.fromkeys(watched, (0, self._answered))
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def reason(self) -> str:
        """Why the training ended, on whichever machine; "" as long as no reason is known."""
        if not self._reason and not self._store_answers:
            self._reason = self._death_reason(0)
        return self._reason

    @property
    def others_have_left(self) -> bool:
        """Whether no other machine needs this one any more.

        Only machine 0, which hosts the store, is needed by others; on all others this is True.
        """
        return not self._others

    def report(self, reason: str) -> str:
        """Reports why the training ends, which ends it on all machines.

        Args:
            reason: One line that names a rank or a machine.

        Returns:
            The reason that was reported first, by any machine or rank. If the store does not
            answer, the reason that this machine knows of, or else ``reason``.
        """
        if not self.reason and self._store_answers:
            with suppress(RuntimeError, TimeoutError):
                return call_with_timeout(lambda: report_end(self._store, reason), _LEAVE_TIMEOUT)
        return self._reason or reason

    @property
    def interrupt_reason(self) -> str:
        """The reason to report if a signal ended the training on this machine."""
        return f"{self._name(self._rank)} was interrupted"

    def leave(self) -> None:
        """Announces the end of this machine's heartbeats, so that it does not count as dead.

        Machine 0 then waits up to 3 s until the others have announced their end, too, since the
        store ends with machine 0.
        """
        if not self._store_answers:
            return
        deadline = time.monotonic() + _LEAVE_TIMEOUT
        with suppress(RuntimeError, TimeoutError):
            call_with_timeout(lambda: self._store.set(_left_key(self._rank), ""), _LEAVE_TIMEOUT)
        while not self.others_have_left and time.monotonic() < deadline:
            time.sleep(_HEARTBEAT_INTERVAL / 5)
        self._leaving.set()
        self._thread.join(_LEAVE_TIMEOUT)

    @property
    def _store_answers(self) -> bool:
        """Whether heartbeats are sent, and the last answer is at most HEARTBEAT_TIMEOUT s old."""
        silent = time.monotonic() - self._answered > HEARTBEAT_TIMEOUT
        return self._thread.is_alive() and not silent

    def _run(self) -> None:
        try:
            while not self._leaving.wait(_HEARTBEAT_INTERVAL):
                self._store.add(_beats_key(self._rank), 1)
                for other in list(self._others):
                    self._watch(other)
                self._reason = self._reason or end_reason(self._store)
                self._answered = time.monotonic()
        except RuntimeError:  # the connection to the store was closed
            self._reason = self._reason or self._death_reason(0)

    def _watch(self, other: int) -> None:
        beats, since = self._others[other]
        # add(key, 0) reads a counter; get would wait for one that does not exist yet
        now, beats_now = time.monotonic(), self._store.add(_beats_key(other), 0)
        if self._store.check([_left_key(other)]):
            del self._others[other]
        elif beats_now != beats:
            self._others[other] = (beats_now, now)
        # A machine without any heartbeat has not started yet.
        elif beats and now - since > HEARTBEAT_TIMEOUT:
            report_end(self._store, self._death_reason(other))
            del self._others[other]

    def _death_reason(self, machine: int) -> str:
        return f"{self._name(machine)} does not answer any more"

    def _name(self, machine: int) -> str:
        first, last = machine * self._processes, (machine + 1) * self._processes - 1
        ranks = f"rank {first}" if first == last else f"ranks {first} to {last}"
        return f"machine {machine} ({ranks})"


def call_with_timeout(function: Callable[[], T], seconds: float) -> T:
    """Calls a function in a thread, and returns what it returns.

    Calls to a store whose machine is silent may never return, and no signal interrupts them. The
    thread of such a call is abandoned; it does not keep the process alive.

    Args:
        function: The function to call.
        seconds: Time to wait for its return.

    Raises:
        TimeoutError: The function did not return in time.
        Exception: The function raised it.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    if wait([future], seconds).not_done:
        raise TimeoutError(f"a call did not return within {seconds:g} s")
    return future.result()


def _beats_key(machine: int) -> str:
    return f"beats of {machine}"


def _left_key(machine: int) -> str:
    return f"{machine} left"
