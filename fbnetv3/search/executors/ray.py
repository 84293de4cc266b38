"""The executor with worker processes on the nodes of a Ray cluster."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fbnetv3.search.errors import SearchError, StorageUnavailableError
from fbnetv3.search.executors.base import (
    GRACE_PERIOD_S,
    Evaluate,
    Finished,
    TimeLimit,
    check_counts,
    pickled,
)
from fbnetv3.search.executors.device_faults import MEMORY, NEEDS_NEW_PROCESS, ran_out_of_memory
from fbnetv3.search.executors.ray_cluster import Cluster, last_characters
from fbnetv3.search.executors.ray_node import NodeContext, WorkerActor
from fbnetv3.search.executors.trial_queue import TrialQueue
from fbnetv3.search.trial import Trial

if TYPE_CHECKING:
    from ray.actor import ActorHandle

_log = logging.getLogger(__name__)
_MAX_FAILED_STARTS = 10
"""Number of workers that may be lost in a row before one of them starts a trial.

In addition, as many losses are allowed as there are other workers, because a lost node takes all
its idle and starting workers with it.
"""


class RayWorkers:
    """Evaluates trials in worker processes on a Ray cluster, which are kept between batches.

    Each worker process has an actor on its node, which reserves resources and forwards messages.
    When a worker dies, alone or with its node, or its device fails, another worker evaluates its
    trial once more. When memory runs out, the trial is evaluated once more, alone on its device: no
    other worker of this search gets a trial there until it has ended. The trial fails if its second
    attempt fails too. Nodes that join the cluster during a search get workers if more are needed.

    Args:
        count: Largest number of workers. If None, as many as the cluster has room for.
        cpus: CPUs of each worker, as Ray counts them: 0 to 1, or a whole number above 1.
        gpus: GPUs of each worker: 0 to 1, or a whole number above 1. If None, one GPU if the
            cluster has any, otherwise 0.
        threads: Value of OMP_NUM_THREADS in each worker, at least 1.
        timeout: Seconds that one attempt of a trial may take, above 0. A trial that takes longer
            fails, and its worker is killed. Waiting for room on a node does not count. If
            None, there is no limit.
        address: Address of a running cluster, such as ``10.0.0.1:6379``, or ``auto`` for a cluster
            on this machine. If empty, the environment variable RAY_ADDRESS is used; if that is
            unset, a private cluster is started on this machine and ends with the search. A program
            that has called ``ray.init`` itself stays connected to its cluster.
        shared: Folder that the evaluations write to. If None, the evaluations write no files. Every
            node must see the working directory, and this folder if there is one, at the same paths
            as this process.

    Raises:
        SearchError: Ray is not installed, or a number is out of range.
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
        counts = {"threads": threads} if count is None else {"count": count, "threads": threads}
        check_counts("RayWorkers", **counts)
        self._limit = TimeLimit(timeout)
        self._cluster = Cluster(address, cpus, gpus)
        self._count, self._threads = None if count is None else int(count), int(threads)
        self._shared = None if shared is None else Path(shared).resolve()
        self._context: NodeContext | None = None
        self._handles: list[WorkerHandle] = []
        self._queue = TrialQueue()
        self._payload = b""
        self._failed_starts = 0

    def start(self, evaluate: Evaluate) -> None:
        """Connects to the cluster and pickles the evaluation function.

        Workers of an earlier call are stopped if that call's function differs from this one.

        Raises:
            SearchError: The function cannot be pickled, the cluster cannot be reached, or a private
                cluster cannot hold a worker.
        """
        payload = pickled(evaluate)
        self._cluster.connect()
        self._context = self._context or NodeContext.create(self._shared)
        if payload != self._payload:
            self._end_workers()
        self._payload, self._queue = payload, TrialQueue()

    def submit(self, trial: Trial) -> None:
        self._queue.put(trial)

    def withdraw(self) -> None:
        self._queue.clear()

    def wait(self) -> list[Finished]:
        """Blocks until a submitted trial has finished; returns it, or several; [] if none is left.

        Raises:
            StorageUnavailableError: An evaluation cannot use its disk, folder or URI. The message
                names the node.
            SearchError: No worker starts, a worker cannot unpickle the evaluation function, or a
                node lacks a folder of the search or cannot write to the shared one.
        """
        while self._queue or self._busy():
            self._hand_out()
            for handle in self._answered():
                if finished := self._receive(handle):
                    return finished
            if finished := self._end_overdue():
                return finished
        return []

    def _hand_out(self) -> None:
        """Gives queued trials to idle workers, and requests workers up to ``count``."""
        count = len(self._queue) + len(self._busy())
        if self._count is not None:
            count = min(self._count, count)
        while len(self._handles) < count:
            arguments = (self._payload, self._threads, self._context)
            self._handles.append(WorkerHandle(self._cluster.start_actor(WorkerActor, *arguments)))
        for handle in list(self._handles):
            if handle.is_idle:
                self._give_trial(handle)

    def _give_trial(self, handle: WorkerHandle) -> None:
        """Gives an idle worker the first trial that its device may take."""
        ready = [h for h in self._handles if h.is_ready and h is not handle]
        others = [h for h in ready if h.device == handle.device]
        busy = [h.trial for h in others if h.trial is not None]
        trial = self._queue.take(handle.device, busy, has_others=len(ready) > len(others))
        if trial is None:
            return
        if self._queue.must_be_alone(trial):
            for idle in others:  # they may still hold memory of trainings that have ended
                self._remove(idle)
        handle.start(trial)

    def _remove(self, handle: WorkerHandle) -> None:
        """Ends a worker at once."""
        self._handles.remove(handle)
        self._cluster.ray.kill(handle.actor)

    def _busy(self) -> list[WorkerHandle]:
        return [handle for handle in self._handles if handle.trial is not None]

    def _running(self) -> list[WorkerHandle]:
        """Returns the workers whose process has received its trial."""
        return [handle for handle in self._busy() if handle.has_started]

    def _answered(self) -> list[WorkerHandle]:
        """Waits for a worker's answer, at most for the grace period or until a trial is overdue.

        Returns:
            A list with the worker that has answered; [] if none has.
        """
        pending = {h.answer: h for h in self._handles if h.answer is not None}
        seconds_left = self._limit.seconds_left(h.trial_start for h in self._running())
        timeout = GRACE_PERIOD_S if seconds_left is None else min(seconds_left, GRACE_PERIOD_S)
        answers, _ = self._cluster.ray.wait(list(pending), num_returns=1, timeout=timeout)
        if not answers and not self._busy():
            problem = self._cluster.resource_problem() or "all nodes are full"
            _log.warning("no candidate is training: %s; waiting for free resources", problem)
        return [pending[answer] for answer in answers]

    def _receive(self, handle: WorkerHandle) -> list[Finished]:
        """Handles a worker's answer; returns a list with the trial if it has finished, else []."""
        ray = self._cluster.ray
        try:
            kind, *content = ray.get(handle.answer)
        except ray.exceptions.RayError as error:
            return self._reap(handle, self._cause_of_loss(handle, error))
        return self._handlers[kind](self, handle, *content)

    def _cause_of_loss(self, handle: WorkerHandle, error: Exception) -> str:
        """Returns why an actor no longer answers, such as ``was lost on node ...``."""
        if not handle.is_ready:
            return f"could not start ({last_characters(error)})"
        if not self._cluster.is_alive(handle.node):
            return f"was lost with its node {handle.address}"
        return f"was lost on node {handle.address} ({last_characters(error)})"

    def _on_ready(
        self, handle: WorkerHandle, node: str, address: str, gpus: list[str], error: str | None
    ) -> list[Finished]:
        if error is not None:
            raise SearchError(error)
        handle.node, handle.address, handle.gpus = node, address, tuple(gpus)
        handle.is_ready, handle.answer = True, None
        return []

    def _on_not_ready(self, handle: WorkerHandle, reason: str) -> list[Finished]:
        raise SearchError(f"node {handle.address}: {reason}")

    def _on_started(self, handle: WorkerHandle) -> list[Finished]:
        self._failed_starts = 0
        handle.has_started, handle.trial_start = True, time.monotonic()
        handle.request_message()
        return []

    def _on_report(self, handle: WorkerHandle, epoch: int, score: float) -> list[Finished]:
        assert handle.trial is not None
        handle.trial.report(epoch, score)
        handle.request_message()
        return []

    def _on_result(
        self, handle: WorkerHandle, score: float | None, reason: str | None, fault: str | None
    ) -> list[Finished]:
        finished = Finished(handle.release(), score, reason, fault, handle.place)
        if fault not in NEEDS_NEW_PROCESS:
            return [finished]
        self._remove(handle)
        return self._retry(finished, handle)

    def _retry(self, failed: Finished, handle: WorkerHandle) -> list[Finished]:
        """Queues a trial again after its worker has ended; returns it after its second attempt."""
        finished = self._queue.retry(failed, handle.device)
        if not finished:
            _log.warning(
                "trial %s failed on %s (%s); another worker evaluates it once more",
                failed.trial.id,
                handle.place,
                failed.reason,
            )
        return finished

    def _on_storage_unavailable(self, handle: WorkerHandle, reason: str) -> list[Finished]:
        handle.release()
        raise StorageUnavailableError(f"node {handle.address}: {reason}")

    def _reap(self, handle: WorkerHandle, reason: str) -> list[Finished]:
        """Removes a dead worker; queues its trial again, or returns it after its second attempt.

        Raises:
            SearchError: Too many workers in a row could not start.
        """
        self._remove(handle)
        if handle.trial is not None and handle.has_started:
            fault = MEMORY if ran_out_of_memory(reason) else None
            failed = Finished(handle.trial, None, f"its worker {reason}", fault, handle.place)
            return self._retry(failed, handle)
        if handle.trial is not None:  # The worker died before it received the trial.
            self._queue.put_back(handle.trial)
        self._failed_starts += 1
        # A lost node takes all its idle and starting workers with it at once.
        if self._failed_starts > _MAX_FAILED_STARTS + len(self._handles):
            raise SearchError(
                f"the Ray cluster cannot start workers: {self._failed_starts} attempts "
                f"in a row failed; the last worker {reason}; install the same Python environment, "
                "with ray and fbnetv3, on every node"
            )
        return []

    # Handlers of a worker's messages, by kind.
    _handlers: ClassVar[dict[str, Callable[..., list[Finished]]]] = {
        "ready": _on_ready,
        "not_ready": _on_not_ready,
        "not_started": _reap,
        "started": _on_started,
        "report": _on_report,
        "result": _on_result,
        "storage_unavailable": _on_storage_unavailable,
        "died": _reap,
    }

    def _end_overdue(self) -> list[Finished]:
        """Kills the workers whose trials take too long, and returns these trials as failed."""
        overdue = [h for h in self._running() if self._limit.is_over(h.trial_start)]
        finished = []
        for handle in overdue:
            self._remove(handle)
            finished.append(Finished(handle.release(), None, self._limit.reason))
        return finished

    def close(self) -> None:
        """Ends the workers, after giving them time to save checkpoints, and leaves the cluster."""
        self._queue = TrialQueue()
        try:
            self._end_workers()
        finally:
            context, self._context = self._context, None
            if context is not None:
                context.remove_marker()
            self._cluster.close()

    def _end_workers(self) -> None:
        handles, self._handles = self._handles, []
        ray = self._cluster.ray
        try:
            stops = [handle.actor.stop.remote() for handle in handles if handle.is_ready]
            if stops:
                ray.wait(stops, num_returns=len(stops), timeout=GRACE_PERIOD_S + 10)
        finally:  # Also runs after a second Ctrl-C, which does not wait for checkpoints.
            for handle in handles:
                ray.kill(handle.actor)


class WorkerHandle:
    """The searching process's record of a worker.

    Attributes:
        actor: Ray actor that owns the worker process.
        node: Id of the actor's node; empty until the actor is ready.
        address: Address of the actor's node; empty until the actor is ready.
        gpus: GPUs that Ray has given to the actor, by their numbers on the node.
        is_ready: Whether the actor has been placed on a node.
        trial: Trial that the worker was given; None while it is idle.
        has_started: Whether the worker process is ready and has received the trial.
        trial_start: Time at which ``has_started`` became true, by the monotonic clock.
        answer: Ray's reference to the pending answer of the actor; None while the worker is idle.
    """

    def __init__(self, actor: ActorHandle[WorkerActor]) -> None:
        self.actor = actor
        self.node = self.address = ""
        self.gpus: tuple[str, ...] = ()
        self.is_ready = self.has_started = False
        self.trial_start = 0.0
        self.trial: Trial | None = None
        self.answer: Any = actor.ready.remote()

    @property
    def device(self) -> tuple[str, ...]:
        """Node id and GPUs, which are equal for workers on the same device."""
        return (self.node, *self.gpus)

    @property
    def place(self) -> str:
        """Where the worker runs, for messages."""
        gpus = f", GPU {' and '.join(self.gpus)}" if self.gpus else ""
        return f"node {self.address}{gpus}"

    @property
    def is_idle(self) -> bool:
        """Whether the worker can be given a trial."""
        return self.is_ready and self.trial is None

    def start(self, trial: Trial) -> None:
        """Gives the worker a trial."""
        self.trial, self.has_started = trial, False
        self.answer = self.actor.start.remote(trial.to_dict())

    def request_message(self) -> None:
        """Asks for the next message about the trial."""
        self.answer = self.actor.next_message.remote()

    def release(self) -> Trial:
        """Makes the worker idle, and returns its trial."""
        trial = self.trial
        assert trial is not None
        self.trial = self.answer = None
        return trial
