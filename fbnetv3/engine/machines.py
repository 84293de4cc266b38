"""What the machines of a training tell each other: that they live, and why it ended.

Connections of a process group end with a rank, and tell the others neither which one it was nor
why. The process that starts the ranks of its machine knows, and tells in a store, which that of
machine 0 keeps, so that it outlives every rank.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")

SILENCE = 8.0
"""Seconds after which a machine that gives no sign of life counts as gone."""
_BEAT = 0.5  # seconds between signs of life
_FAREWELL = 3.0  # seconds for the others to read why it ended
_REASON = "reason"


def tell_reason(store: dist.Store, reason: str) -> str:
    """Tells all machines why the training ended, unless one has told already.

    Args:
        store: that the machines share.
        reason: one line, which names a rank or a machine.

    Returns:
        The reason that was told first.
    """
    return bytes(store.compare_set(_REASON, "", reason)).decode()


def told_reason(store: dist.Store) -> str:
    """Returns why the training ended, "" where nobody has told, or nobody can be asked."""
    with suppress(RuntimeError):
        if store.check([_REASON]):
            return bytes(store.get(_REASON)).decode()
    return ""


class Machines:
    """This machine among those that train together.

    Args:
        store: that they share.
        rank: of this machine; 0 keeps the store.
        count: of machines.
        processes: ranks on each of them.
    """

    def __init__(self, store: dist.Store, rank: int, count: int, processes: int) -> None:
        self._store, self._rank, self._processes = store, rank, processes
        self._end, self._answered = "", time.monotonic()
        # machine 0 watches the others: rank -> signs of life, and when the last one came
        watched = range(1, count) if rank == 0 else ()
        self._others = dict.fromkeys(watched, (0, self._answered))
        self._leaving = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def end(self) -> str:
        """Why the training ended, on whichever machine; "" while it goes on."""
        if not self._end and not self._answering:
            self._end = self._gone(0)
        return self._end

    @property
    def last(self) -> bool:
        """Whether no other machine needs this one any more."""
        return not self._others

    def tell(self, reason: str) -> str:
        """Ends the training on all machines.

        Args:
            reason: one line, which names a rank.

        Returns:
            The reason that was told first, by whichever machine or rank.
        """
        if not self.end and self._answering:
            with suppress(RuntimeError, TimeoutError):
                return in_time(lambda: tell_reason(self._store, reason), _FAREWELL)
        return self._end or reason

    def tell_interrupted(self) -> None:
        """Ends the training on all machines, since a signal ends it on this one."""
        self.tell(f"{self._name(self._rank)} was interrupted")

    def leave(self) -> None:
        """Says goodbye, without which the others would take this machine for dead."""
        if not self._answering:
            return
        deadline = time.monotonic() + _FAREWELL
        with suppress(RuntimeError, TimeoutError):
            in_time(lambda: self._store.set(_left(self._rank), ""), _FAREWELL)
        while not self.last and time.monotonic() < deadline:
            time.sleep(_BEAT / 5)
        self._leaving.set()
        self._listener.join(_FAREWELL)

    @property
    def _answering(self) -> bool:
        """Whether the store answers, as far as is known."""
        return self._listener.is_alive() and time.monotonic() - self._answered <= SILENCE

    def _listen(self) -> None:
        try:
            while not self._leaving.wait(_BEAT):
                self._store.add(_beats(self._rank), 1)
                for other in list(self._others):
                    self._hear(other)
                self._end = self._end or told_reason(self._store)
                self._answered = time.monotonic()
        except RuntimeError:  # the connection to the store has ended
            self._end = self._end or self._gone(0)

    def _hear(self, other: int) -> None:
        beats, since = self._others[other]
        now, heard = time.monotonic(), self._store.add(_beats(other), 0)
        if self._store.check([_left(other)]):
            del self._others[other]
        elif heard != beats:
            self._others[other] = (heard, now)
        elif beats and now - since > SILENCE:  # none at all: it has not started yet
            tell_reason(self._store, self._gone(other))
            del self._others[other]

    def _gone(self, machine: int) -> str:
        return f"{self._name(machine)} does not answer any more"

    def _name(self, machine: int) -> str:
        first, last = machine * self._processes, (machine + 1) * self._processes - 1
        ranks = f"rank {first}" if first == last else f"ranks {first} to {last}"
        return f"machine {machine} ({ranks})"


def in_time(work: Callable[[], T], seconds: float) -> T:
    """Returns what ``work`` returns.

    A call of a store whose machine is silent does not end, and no signal interrupts it: it is left
    to a thread that does not keep this process.

    Raises:
        TimeoutError: it took longer than ``seconds``.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(seconds)


def _beats(machine: int) -> str:
    return f"beats of {machine}"


def _left(machine: int) -> str:
    return f"{machine} left"
