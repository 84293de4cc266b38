"""Runs candidates on the nodes of a Ray cluster."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fbnetv3.search.errors import PlaceError, SearchError
from fbnetv3.search.executors.base import PATIENCE_S, Batch, Evaluate, Finished, Limit, More
from fbnetv3.search.executors.ray_cluster import Cluster, one_line
from fbnetv3.search.executors.ray_node import Here, Keeper
from fbnetv3.search.trial import Trial

_log = logging.getLogger(__name__)
# so many workers may fail in a row before one comes up, beside those of one node
_STARTS = 10


class RayWorkers:
    """Worker processes on the nodes of a Ray cluster, started once and kept.

    An actor beside each holds its resources and passes on what it says. A worker that dies, alone
    or with its node, costs one attempt of its trial, which another worker tries once more. Nodes
    that join while a batch runs take part in it.

    Args:
        count: at most so many at a time; None: as many as the cluster has room for.
        cpus: of each, as Ray counts them; a part of one is allowed.
        gpus: of each; a part of one is allowed. None: one where the cluster has any, else none.
        threads: OMP_NUM_THREADS of each.
        timeout: as of LocalWorkers; the time in which a trial waits for room does not count.
        address: of a running cluster, such as ``10.0.0.1:6379``, or ``auto`` for one on this
            machine. Empty: that of the environment variable RAY_ADDRESS, else one of this
            machine's own, which ends with the search. A program that has called ``ray.init``
            stays connected as it is.
        shared: a folder that candidates write to. Every node must see it at the same path, as it
            must the working directory. None: candidates write nothing.

    Raises:
        SearchError: ray is not installed, or a number is out of range.
    """

    def __init__(
        self,
        count: int | None = None,
        *,
        cpus: float = 1.0,
        gpus: float | None = None,
        threads: int = 1,
        timeout: float | None = None,
        address: str = "",
        shared: str | os.PathLike[str] | None = None,
    ) -> None:
        if (count is not None and count < 1) or threads < 1:
            raise SearchError(f"RayWorkers({count}, threads={threads}): both must be >= 1")
        self._limit = Limit(timeout)
        self._cluster = Cluster(address, cpus, gpus)
        self._count, self._threads = count, threads
        self._shared = None if shared is None else Path(shared).resolve()
        self._here: Here | None = None
        self._seats: list[_Seat] = []
        self._payload: bytes | None = None
        self._failed_starts = 0

    def run(
        self,
        evaluate: Evaluate,
        trials: Sequence[Trial],
        finished: Finished,
        more: More | None = None,
    ) -> None:
        """Evaluates each trial somewhere on the cluster.

        Raises:
            SearchError: the cluster can't be reached or can't hold a worker, no worker comes up,
                or a node lacks the folders of the search.
            PlaceError: an evaluation can't use its disk, folder or URI; names the node.
        """
        import cloudpickle

        try:
            self._cluster.connect()
            self._here = self._here or Here.made(self._shared)
            payload = cloudpickle.dumps(evaluate)
            if payload != self._payload:
                self._end_workers()
                self._payload = payload
            self._run(Batch(trials, finished, more))
        except BaseException:
            self.close()
            raise

    def _run(self, batch: Batch) -> None:
        while batch.todo or self._busy():
            self._hand_out(batch)
            for seat in self._answered():
                try:
                    kind, *content = seat.answer(self._cluster.ray)
                except self._cluster.ray.exceptions.RayError as error:
                    kind, content = "died", [self._cause(seat, error)]
                self._takes[kind](self, seat, batch, *content)
            self._end_late_ones(batch)

    def _end_late_ones(self, batch: Batch) -> None:
        late = [s for s in self._seats if s.has_begun and s.trial and self._limit.is_over(s.begun)]
        for seat in late:
            trial = seat.trial
            assert trial is not None
            self._seats.remove(seat)
            self._cluster.ray.kill(seat.actor)
            batch.finished(trial, None, self._limit.reason)

    def _hand_out(self, batch: Batch) -> None:
        wanted = len(batch.todo) + self._busy()
        if self._count is not None:
            wanted = min(self._count, wanted)
        while len(self._seats) < wanted:
            arguments = (self._payload, self._threads, self._here)
            self._seats.append(_Seat(self._cluster.actor(Keeper, *arguments)))
        for seat in self._seats:
            if batch.todo and seat.is_idle:
                seat.start(batch.todo.popleft())

    def _busy(self) -> int:
        return sum(seat.trial is not None for seat in self._seats)

    def _answered(self) -> list[_Seat]:
        """Waits for an answer; none of them where that takes long."""
        asked = {seat.asked: seat for seat in self._seats if seat.asked is not None}
        left = self._limit.left(s.begun for s in self._seats if s.has_begun and s.trial)
        patience = PATIENCE_S if left is None else min(left, PATIENCE_S)
        found, _ = self._cluster.ray.wait(list(asked), num_returns=1, timeout=patience)
        if not found and not self._busy():
            lack = self._cluster.lack() or "all nodes are full"
            _log.warning("no candidate trains: %s; waiting for room", lack)
        return [asked[reference] for reference in found]

    def _cause(self, seat: _Seat, error: Exception) -> str:
        """Returns what became of a worker that answers no more, as words after "its worker"."""
        if not seat.is_ready:
            return f"could not start ({one_line(error)})"
        if not self._cluster.is_alive(seat.node):
            return f"was lost with its node {seat.address}"
        return f"was lost on node {seat.address} ({one_line(error)})"

    def _ready(
        self, seat: _Seat, batch: Batch, node: str, address: str, complaint: str | None
    ) -> None:
        if complaint is not None:
            raise SearchError(complaint)
        self._failed_starts = 0
        seat.node, seat.address = node, address
        seat.is_ready, seat.asked = True, None

    def _begun(self, seat: _Seat, batch: Batch) -> None:
        seat.has_begun, seat.begun = True, time.monotonic()
        seat.ask()

    def _report(self, seat: _Seat, batch: Batch, epoch: int, score: float) -> None:
        assert seat.trial is not None
        seat.trial.report(epoch, score)
        seat.ask()

    def _result(self, seat: _Seat, batch: Batch, score: float | None, reason: str | None) -> None:
        trial = seat.trial
        assert trial is not None
        seat.trial = seat.asked = None
        batch.finished(trial, score, reason)

    def _place(self, seat: _Seat, batch: Batch, reason: str) -> None:
        seat.trial = seat.asked = None
        raise PlaceError(f"node {seat.address}: {reason}")

    def _died(self, seat: _Seat, batch: Batch, reason: str) -> None:
        self._seats.remove(seat)
        self._cluster.ray.kill(seat.actor)
        trial = seat.trial
        if trial is not None and seat.has_begun:
            batch.lost(trial, reason)
            return
        if trial is not None:  # its worker was dead before: no attempt of the trial
            batch.todo.appendleft(trial)
        self._failed_starts += 1
        # a node that is lost takes with it all workers that start or idle there
        if self._failed_starts > _STARTS + len(self._seats):
            raise SearchError(
                f"the Ray cluster starts no worker: {self._failed_starts} in a row failed, the "
                f"last one {reason}; every node needs this Python, with ray and fbnetv3 in it"
            )

    # what is done with a message, by its kind
    _takes: ClassVar[dict[str, Callable[..., None]]] = {
        "ready": _ready,
        "begun": _begun,
        "report": _report,
        "result": _result,
        "place": _place,
        "died": _died,
    }

    def close(self) -> None:
        """Ends the workers, which may save what they have, and leaves the cluster."""
        try:
            self._end_workers()
        finally:
            here, self._here = self._here, None
            if here is not None:
                here.forget()
            self._cluster.close()

    def _end_workers(self) -> None:
        seats, self._seats = self._seats, []
        ray = self._cluster.ray
        try:
            stops = [seat.actor.stop.remote() for seat in seats if seat.is_ready]
            if stops:
                ray.wait(stops, num_returns=len(stops), timeout=PATIENCE_S + 10)
        finally:  # also at a second Ctrl-C: no checkpoint is waited for
            for seat in seats:
                ray.kill(seat.actor)


class _Seat:
    """A worker as the searching process sees it: its actor, and the answer that is waited for.

    Attributes:
        node, address: where it is.
        is_ready: whether its actor is on a node.
        has_begun: whether its process has got the trial.
        begun: when, by the monotonic clock.
        asked: a reference to its next message; None: it is idle.
    """

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.node = self.address = ""
        self.is_ready = self.has_begun = False
        self.begun = 0.0
        self.trial: Trial | None = None
        self.asked: Any = actor.ready.remote()

    @property
    def is_idle(self) -> bool:
        """Whether it takes a trial."""
        return self.is_ready and self.trial is None

    def start(self, trial: Trial) -> None:
        """Hands it a trial."""
        self.trial, self.has_begun = trial, False
        self.asked = self.actor.start.remote(trial.to_dict())

    def ask(self) -> None:
        """Asks for its next message."""
        self.asked = self.actor.message.remote()

    def answer(self, ray: Any) -> tuple[Any, ...]:
        """Returns the message that came."""
        found: tuple[Any, ...] = ray.get(self.asked)
        return found
