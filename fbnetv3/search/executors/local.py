"""The executor with worker processes on this machine."""

from __future__ import annotations

import os
from multiprocessing.connection import wait

from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import Evaluate, Finished, TimeLimit, TrialQueue
from fbnetv3.search.executors.worker import Worker
from fbnetv3.search.trial import Trial


class LocalWorkers:
    """Evaluates trials in worker processes on this machine, which are kept between batches.

    When a worker dies, for example because memory runs out, another worker evaluates its trial. The
    trial fails if the second worker dies too.

    Args:
        count: Number of workers, at least 1.
        threads: Value of OMP_NUM_THREADS in each worker, at least 1. Keep count * threads at or
            below the number of cores.
        timeout: Seconds that one attempt of a trial may take, above 0. A trial that takes longer
            fails, and its worker is killed. None: no limit.

    Raises:
        SearchError: ``count`` or ``threads`` is below 1, or ``timeout`` is not positive.
    """

    def __init__(self, count: int, threads: int = 1, timeout: float | None = None) -> None:
        if count < 1 or threads < 1:
            raise SearchError(f"LocalWorkers({count}, threads={threads}): both must be >= 1")
        self._limit = TimeLimit(timeout)
        self._count, self._threads = count, threads
        self._workers: list[Worker] = []
        self._queue = TrialQueue()
        self._payload = b""

    def start(self, evaluate: Evaluate) -> None:
        """Pickles the evaluation function.

        If it differs from the last one, the old workers are stopped.
        """
        import cloudpickle

        payload = cloudpickle.dumps(evaluate)
        if payload != self._payload:
            self.close()
        self._payload, self._queue = payload, TrialQueue()

    def submit(self, trial: Trial) -> None:
        self._queue.put(trial)

    def wait(self) -> list[Finished]:
        while self._queue or self._busy():
            self._hand_out()
            busy = {w.connection: w for w in self._busy()}
            seconds_left = self._limit.seconds_left(w.trial_start for w in busy.values())
            for connection in wait(list(busy), seconds_left):
                if finished := self._receive(busy[connection]):  # type: ignore[index]
                    return finished
            if finished := self._end_overdue():
                return finished
        return []

    def _hand_out(self) -> None:
        """Gives queued trials to idle workers, and starts workers up to ``count``."""
        self._workers = [w for w in self._workers if w.trial or w.process.is_alive()]
        while len(self._workers) < min(self._count, len(self._queue) + len(self._busy())):
            self._workers.append(Worker(self._payload, self._threads, os.getcwd()))
        for worker in self._workers:
            if self._queue and worker.trial is None:
                worker.start(self._queue.take())

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.trial is not None]

    def _receive(self, worker: Worker) -> list[Finished]:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return self._reap(worker)
        return worker.handle(message)

    def _reap(self, worker: Worker) -> list[Finished]:
        """Removes a dead worker and queues its trial again, or fails it."""
        assert worker.trial is not None
        self._workers.remove(worker)
        return self._queue.retry(worker.trial, worker.cause_of_death())

    def _end_overdue(self) -> list[Finished]:
        """Kills the workers whose trials take too long; these trials fail."""
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
