"""Executors run a batch: in this process, or in worker processes that stay."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import wait

from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import Batch, Evaluate, Finished, Limit, More
from fbnetv3.search.executors.worker import Worker
from fbnetv3.search.trial import Trial


class LocalWorkers:
    """Worker processes on this machine, started once and kept.

    A worker that dies (killed by the OS, say) costs one attempt of its trial, which another
    worker tries once more.

    Args:
        count: of workers.
        threads: OMP_NUM_THREADS of each; processes with several threads on few cores wait for
            each other.
        timeout: seconds that an attempt of a trial may take; a trial that takes longer fails, and
            its worker is ended. None: no limit.

    Raises:
        SearchError: ``count`` or ``threads`` is below 1, or ``timeout`` not positive.
    """

    def __init__(self, count: int, threads: int = 1, timeout: float | None = None) -> None:
        if count < 1 or threads < 1:
            raise SearchError(f"LocalWorkers({count}, threads={threads}): both must be >= 1")
        self._limit = Limit(timeout)
        self._count, self._threads = count, threads
        self._workers: list[Worker] = []
        self._payload: bytes | None = None

    def run(
        self,
        evaluate: Evaluate,
        trials: Sequence[Trial],
        finished: Finished,
        more: More | None = None,
    ) -> None:
        import cloudpickle

        payload = cloudpickle.dumps(evaluate)
        if payload != self._payload:
            self.close()
            self._payload = payload
        try:
            self._run(Batch(trials, finished, more))
        except BaseException:
            self.close()
            raise

    def _run(self, batch: Batch) -> None:
        while batch.todo or any(w.trial for w in self._workers):
            self._hand_out(batch.todo)
            busy = {w.connection: w for w in self._workers if w.trial}
            for connection in wait(list(busy), self._limit.left(w.begun for w in busy.values())):
                worker = busy[connection]  # type: ignore[index]
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    self._bury(worker, batch)
                    continue
                worker.take(message, batch.finished)
            self._end_late_ones(batch)

    def _end_late_ones(self, batch: Batch) -> None:
        late = [w for w in self._workers if w.trial and self._limit.is_over(w.begun)]
        for worker in late:
            trial = worker.trial
            assert trial is not None
            self._workers.remove(worker)
            worker.kill()
            batch.finished(trial, None, self._limit.reason)

    def _hand_out(self, todo: deque[Trial]) -> None:
        for worker in list(self._workers):
            if not worker.trial and not worker.process.is_alive():
                self._workers.remove(worker)
        while len(self._workers) < min(self._count, len(todo) + self._busy()):
            self._workers.append(Worker(self._payload or b"", self._threads, os.getcwd()))
        for worker in self._workers:
            if todo and worker.trial is None:
                worker.start(todo.popleft())

    def _busy(self) -> int:
        return sum(worker.trial is not None for worker in self._workers)

    def _bury(self, worker: Worker, batch: Batch) -> None:
        assert worker.trial is not None
        self._workers.remove(worker)
        batch.lost(worker.trial, worker.cause_of_death())

    def close(self) -> None:
        workers, self._workers = self._workers, []
        try:
            for worker in workers:
                worker.stop()
            for worker in workers:
                worker.join()
        except BaseException:  # a second Ctrl-C: no checkpoint is waited for
            for worker in workers:
                worker.kill()
            raise
