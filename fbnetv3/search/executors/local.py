"""The executor with worker processes on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import wait

from fbnetv3.search.checks import as_items
from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import Evaluate, Finished, TimeLimit, check_counts, pickled
from fbnetv3.search.executors.device_faults import MEMORY, NEEDS_NEW_PROCESS, ran_out_of_memory
from fbnetv3.search.executors.trial_queue import TrialQueue
from fbnetv3.search.executors.worker import (
    START_LIMIT_S,
    Worker,
    WorkerStartError,
    refuse_start_at_import,
)
from fbnetv3.search.trial import Trial

_log = logging.getLogger(__name__)
_MAX_FAILED_STARTS = 4
"""The executor gives up when so many workers in a row were killed before they were ready."""
_POLL_S = 60.0
"""Longest wait in seconds before the executor checks whether a starting worker is late."""


class LocalWorkers:
    """Evaluates trials in worker processes on this machine, which are kept between batches.

    When a worker dies or its device fails, another worker evaluates its trial once more; after the
    failure of a device, a worker of another device if there is one. When memory runs out, the
    trial is evaluated once more, alone on its device: until it has ended, the other workers of the
    device get no trials. The trial fails if its second attempt fails too.

    Args:
        count: Number of workers, at least 1.
        threads: Value of OMP_NUM_THREADS in each worker, at least 1. Keep count * threads at or
            below the number of cores.
        timeout: Seconds that one attempt of a trial may take, above 0. A trial that takes longer
            fails, and its worker is killed. If None, there is no limit.
        devices: Values of CUDA_VISIBLE_DEVICES, such as ``["0", "1"]``, which are given to the
            workers in turn: worker i, and any worker that replaces it, gets
            ``devices[i % len(devices)]``. If empty, all workers see the GPUs of this process.

    Raises:
        SearchError: ``count`` or ``threads`` is below 1, ``timeout`` is not positive, or a device
            is not a string.
    """

    def __init__(
        self,
        count: int,
        threads: int = 1,
        timeout: float | None = None,
        devices: Sequence[str] = (),
    ) -> None:
        check_counts("LocalWorkers", count=count, threads=threads)
        names = as_items("LocalWorkers: devices", devices, str, 'texts such as "0"')
        self._devices: tuple[str | None, ...] = tuple(names) or (None,)
        self._limit = TimeLimit(timeout)
        self._count, self._threads = int(count), int(threads)
        self._failed_starts = 0
        self._workers: list[Worker] = []
        self._queue = TrialQueue()
        self._payload = b""

    def start(self, evaluate: Evaluate) -> None:
        """Pickles the evaluation function.

        If it differs from the previous one, the old workers are stopped.

        Raises:
            SearchError: The function cannot be pickled, or the script has no main guard (see
                :func:`~fbnetv3.search.executors.worker.refuse_start_at_import`).
        """
        refuse_start_at_import()
        payload = pickled(evaluate)
        if payload != self._payload:
            self.close()
        self._payload, self._queue = payload, TrialQueue()

    def submit(self, trial: Trial) -> None:
        self._queue.put(trial)

    def withdraw(self) -> None:
        self._queue.clear()

    def wait(self) -> list[Finished]:
        while self._queue or self._busy():
            self._hand_out()
            active = {w.connection: w for w in self._workers if w.trial or not w.is_ready}
            seconds_left = self._limit.seconds_left(w.trial_start for w in self._busy())
            timeout = _POLL_S if seconds_left is None else min(seconds_left, _POLL_S)
            for connection in wait(list(active), timeout):
                if finished := self._receive(active[connection]):  # type: ignore[index]
                    return finished
            if finished := self._end_overdue():
                return finished
        return []

    def _hand_out(self) -> None:
        """Drops dead workers, starts new ones up to ``count``, and gives trials to idle ones."""
        self._workers = [
            w for w in self._workers if w.trial or not w.is_ready or w.process.is_alive()
        ]
        while len(self._workers) < min(self._count, len(self._queue) + len(self._busy())):
            self._workers.append(self._new_worker())
        for worker in list(self._workers):
            if worker.is_ready and worker.trial is None:
                self._give_trial(worker)

    def _new_worker(self) -> Worker:
        """Starts a worker in a free slot, if possible on a device where no queued trial failed."""
        taken = {worker.slot for worker in self._workers}
        free = [slot for slot in range(self._count) if slot not in taken]
        slot = min(free, key=lambda i: self._queue.has_failed_on(self._device(i)))
        return Worker(self._payload, self._threads, os.getcwd(), self._device(slot), slot)

    def _device(self, slot: int) -> str | None:
        return self._devices[slot % len(self._devices)]

    def _give_trial(self, worker: Worker) -> None:
        """Gives an idle worker the first trial that its device may take."""
        others = [w for w in self._workers if w.device == worker.device and w is not worker]
        busy = [w.trial for w in others if w.trial is not None]
        has_others = any(w.device != worker.device for w in self._workers)
        trial = self._queue.take(worker.device, busy, has_others=has_others)
        if trial is None:
            return
        if self._queue.must_be_alone(trial):
            for idle in others:  # they may hold the memory of earlier trainings
                self._workers.remove(idle)
                idle.kill()
        worker.start(trial)

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.trial is not None]

    def _receive(self, worker: Worker) -> list[Finished]:
        if not worker.is_ready:
            return self._receive_ready(worker)
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return self._reap(worker)
        finished = worker.handle(message)
        if finished and finished[0].fault in NEEDS_NEW_PROCESS:
            self._workers.remove(worker)
            worker.kill()
            return self._retry(finished[0], worker)
        return [replace(item, place=worker.place) for item in finished]

    def _retry(self, failed: Finished, worker: Worker) -> list[Finished]:
        """Queues a trial again after its worker has ended; returns it after its second attempt."""
        finished = self._queue.retry(replace(failed, place=worker.place), worker.device)
        if not finished:
            _log.warning(
                "trial %s failed on %s (%s); another worker evaluates it once more",
                failed.trial.id,
                worker.place,
                failed.reason,
            )
        return finished

    def _receive_ready(self, worker: Worker) -> list[Finished]:
        """Reads the first message from a worker; returns [], since no trial has finished.

        Raises:
            SearchError: The worker cannot start, and further ones are unlikely to.
        """
        try:
            worker.receive_ready()
            self._failed_starts = 0
        except WorkerStartError as error:
            self._workers.remove(worker)
            self._failed_starts += 1
            if not error.can_retry or self._failed_starts >= _MAX_FAILED_STARTS:
                raise SearchError(
                    f"a worker process cannot start: it {error} before its first evaluation; its "
                    "own messages are above. Workers import the script that starts the search. No "
                    "trial has failed because of this"
                ) from None
        return []

    def _reap(self, worker: Worker) -> list[Finished]:
        """Removes a dead worker; queues its trial again, or returns it after its second attempt."""
        assert worker.trial is not None
        self._workers.remove(worker)
        cause = worker.cause_of_death()
        fault = MEMORY if ran_out_of_memory(cause) else None
        return self._retry(Finished(worker.trial, None, f"its worker {cause}", fault), worker)

    def _end_overdue(self) -> list[Finished]:
        """Kills the workers whose trials take too long, and returns these trials as failed.

        Raises:
            SearchError: A worker was not ready in time.
        """
        for worker in self._workers:
            if worker.is_late():
                raise SearchError(
                    f"a worker process was not ready after {START_LIMIT_S:g} s; it imports the "
                    "modules of the evaluation function: run the search on a machine that is less "
                    "busy, or import less"
                )
        overdue = [w for w in self._busy() if self._limit.is_over(w.trial_start)]
        finished = []
        for worker in overdue:
            assert worker.trial is not None
            self._workers.remove(worker)
            worker.kill()
            finished.append(Finished(worker.trial, None, self._limit.reason))
        return finished

    def close(self) -> None:
        self._queue = TrialQueue()
        workers, self._workers = self._workers, []
        try:
            for worker in workers:
                worker.stop()
            for worker in workers:
                worker.join()
        except BaseException:  # A second Ctrl-C does not wait for checkpoints.
            for worker in workers:
                worker.kill()
            raise
