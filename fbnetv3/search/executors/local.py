"""The executor with worker processes on this machine."""

from __future__ import annotations

import os
from multiprocessing.connection import wait

from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import (
    Evaluate,
    Finished,
    TimeLimit,
    TrialQueue,
    check_counts,
    pickled,
)
from fbnetv3.search.executors.worker import (
    START_LIMIT_S,
    Worker,
    WorkerStartError,
    refuse_start_at_import,
)
from fbnetv3.search.trial import Trial

_MAX_FAILED_STARTS = 4
"""Number of workers that may be killed in a row before one is ready."""
_POLL_S = 60.0
"""Seconds after which the executor looks whether a starting worker is late."""


class LocalWorkers:
    """Evaluates trials in worker processes on this machine, which are kept between batches.

    When a worker dies, for example because memory runs out, another worker evaluates its trial. The
    trial fails if the second worker dies too.

    Args:
        count: Number of workers, at least 1.
        threads: Value of OMP_NUM_THREADS in each worker, at least 1. Keep count * threads at or
            below the number of cores.
        timeout: Seconds that one attempt of a trial may take, above 0. A trial that takes longer
            fails, and its worker is killed. If None, there is no limit.

    Raises:
        SearchError: ``count`` or ``threads`` is below 1, or ``timeout`` is not positive.
    """

    def __init__(self, count: int, threads: int = 1, timeout: float | None = None) -> None:
        check_counts("LocalWorkers", count=count, threads=threads)
        self._limit = TimeLimit(timeout)
        self._count, self._threads = int(count), int(threads)
        self._failed_starts = 0
        self._workers: list[Worker] = []
        self._queue = TrialQueue()
        self._payload = b""

    def start(self, evaluate: Evaluate) -> None:
        """Pickles the evaluation function.

        If it differs from the last one, the old workers are stopped.

        Raises:
            SearchError: The function cannot be pickled, or the script has no main guard.
        """
        refuse_start_at_import()
        payload = pickled(evaluate)
        if payload != self._payload:
            self.close()
        self._payload, self._queue = payload, TrialQueue()

    def submit(self, trial: Trial) -> None:
        self._queue.put(trial)

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
        """Gives queued trials to idle workers, and starts workers up to ``count``."""
        self._workers = [
            w for w in self._workers if w.trial or not w.is_ready or w.process.is_alive()
        ]
        while len(self._workers) < min(self._count, len(self._queue) + len(self._busy())):
            self._workers.append(Worker(self._payload, self._threads, os.getcwd()))
        for worker in self._workers:
            if self._queue and worker.is_ready and worker.trial is None:
                worker.start(self._queue.take())

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.trial is not None]

    def _receive(self, worker: Worker) -> list[Finished]:
        if not worker.is_ready:
            return self._receive_ready(worker)
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return self._reap(worker)
        return worker.handle(message)

    def _receive_ready(self, worker: Worker) -> list[Finished]:
        """Reads the first message of a worker; a worker that cannot start fails no trial."""
        try:
            worker.receive_ready()
            self._failed_starts = 0
        except WorkerStartError as error:
            self._workers.remove(worker)
            self._failed_starts += 1
            if not error.can_retry or self._failed_starts >= _MAX_FAILED_STARTS:
                raise SearchError(
                    f"no worker process can start: the last one {error} before its first "
                    "evaluation; its own messages are above. Workers import the script that "
                    "starts the search. No trial was evaluated, and none has failed"
                ) from None
        return []

    def _reap(self, worker: Worker) -> list[Finished]:
        """Removes a dead worker and queues its trial again, or fails it."""
        assert worker.trial is not None
        self._workers.remove(worker)
        return self._queue.retry(worker.trial, worker.cause_of_death())

    def _end_overdue(self) -> list[Finished]:
        """Kills the workers whose trials take too long; these trials fail."""
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
