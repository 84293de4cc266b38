"""Executors run a batch: in this process, or in worker processes that stay."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from fbnetv3.search.errors import PlaceError, SearchError
from fbnetv3.search.place import fault_of_place
from fbnetv3.search.ties import die_with_parent, may_have_children
from fbnetv3.search.trials import Trial

Evaluate = Callable[[Trial], float | None]
Finished = Callable[[Trial, float | None, str | None], None]
"""Called in the searching process for each trial: score, or None and the reason of failure."""
More = Callable[[], Sequence[Trial]]
"""Called there after each: further trials to run, with those that still run."""
PATIENCE_S = 30.0
"""So long a worker may take to save what it has."""


class Executor(Protocol):
    """Runs evaluations.

    An exception fails its trial alone, with the reason. KeyboardInterrupt ends the run, and so
    does a full or forbidden disk, which is no trial's fault: the trial stays without a result.
    Trials may finish in any order.
    """

    def run(
        self,
        evaluate: Evaluate,
        trials: Sequence[Trial],
        finished: Finished,
        more: More | None = None,
    ) -> None:
        """Evaluates each trial and calls ``finished`` for it; returns when all are done.

        What ``more`` gives is evaluated, too. None: nothing.

        Raises:
            PlaceError: an evaluation can't use its disk, folder or URI.
        """

    def close(self) -> None:
        """Ends workers, which may save what they have."""


class InProcess:
    """One trial after the other, here."""

    def run(
        self,
        evaluate: Evaluate,
        trials: Sequence[Trial],
        finished: Finished,
        more: More | None = None,
    ) -> None:
        todo = deque(trials)
        while todo:
            trial = todo.popleft()
            finished(trial, *_attempt(evaluate, trial))
            todo.extend(more() if more else ())

    def close(self) -> None:
        return


def _attempt(evaluate: Evaluate, trial: Trial) -> tuple[float | None, str | None]:
    """Returns the score, or None and the reason of failure.

    Raises:
        PlaceError: the reason is none of the trial's.
    """
    try:
        score = evaluate(trial)
    except Exception as error:  # of the user's code: any
        fault = fault_of_place(error)
        if fault is None:
            return None, describe(error)
        raise PlaceError(
            f"trial {trial.id} can't be evaluated: {fault}; it has not failed, and finished "
            "trials are kept: mend that, and the same command goes on"
        ) from error
    return (None, "no score was returned") if score is None else (score, None)


def describe(error: BaseException) -> str:
    """Returns ``ValueError: text (file.py:12)``, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {text}{where}"


class Batch:
    """Trials of a batch that wait for a worker, each tried once more where that worker dies.

    Args:
        trials: of the batch.
        finished: called for each.
        more: gives further trials, asked after each.
    """

    def __init__(
        self, trials: Sequence[Trial], finished: Finished, more: More | None = None
    ) -> None:
        self.todo, self._tell, self._more = deque(trials), finished, more
        self._deaths: set[int] = set()

    def finished(self, trial: Trial, score: float | None, reason: str | None) -> None:
        """Tells a trial's result, and takes what there is to do next."""
        self._tell(trial, score, reason)
        self.todo.extend(self._more() if self._more else ())

    def lost(self, trial: Trial, reason: str) -> None:
        """Counts the death of a trial's worker: the first is forgiven, the second fails it.

        Args:
            trial: that the worker had begun.
            reason: what became of the worker, such as ``was ended by SIGKILL``.
        """
        if trial.number in self._deaths:
            self.finished(trial, None, f"its worker {reason}, twice")
            return
        self._deaths.add(trial.number)
        self.todo.appendleft(trial)


class Limit:
    """How long an attempt of a trial may take.

    Args:
        seconds: None: no limit.

    Raises:
        SearchError: it is not positive.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise SearchError(f"timeout={seconds}: seconds above 0, or None for no limit")
        self._seconds = seconds

    def is_over(self, begun: float) -> bool:
        """Tells whether an attempt that began then, by the monotonic clock, takes too long."""
        return self.left([begun]) == 0.0

    def left(self, begun: Iterable[float]) -> float | None:
        """Returns the seconds until the first of some attempts takes too long; None: never."""
        if self._seconds is None:
            return None
        now = time.monotonic()
        return max(0.0, min((b + self._seconds - now for b in begun), default=self._seconds))

    @property
    def reason(self) -> str:
        """Why a trial fails."""
        return f"took longer than {self._seconds:g} s"


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


class Worker:
    """A process on this machine and the trial it works on.

    Args:
        payload: the evaluation, pickled by cloudpickle.
        threads: its OMP_NUM_THREADS.
        folder: its working directory.
    """

    def __init__(self, payload: bytes, threads: int, folder: str) -> None:
        context = mp.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.trial: Trial | None = None
        self.begun = 0.0
        self.process: BaseProcess = context.Process(
            target=_work, args=(theirs, payload, threads, folder), daemon=True
        )
        self.process.start()
        theirs.close()

    def start(self, trial: Trial) -> None:
        """Hands a trial to the process."""
        self.trial, self.begun = trial, time.monotonic()
        try:
            self.connection.send(trial.to_dict())
        except OSError:
            return  # dead already: noticed when its answer is waited for

    def take(self, message: tuple[Any, ...], finished: Finished) -> None:
        """Takes a report or a result.

        Raises:
            PlaceError: it is neither, since the trial can't be evaluated here.
        """
        trial = self.trial
        assert trial is not None
        kind, *content = message
        if kind == "report":
            trial.report(*content)
            return
        self.trial = None
        if kind == "place":
            raise PlaceError(*content)
        finished(trial, *content)

    def cause_of_death(self) -> str:
        """Returns how the process ended, as words that follow "its worker"."""
        self.process.join(PATIENCE_S)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"stopped with exit status {code}"

    def stop(self) -> None:
        """Asks the process to end; a training saves a checkpoint first."""
        if self.trial is not None:
            self.process.terminate()
        self.connection.close()

    def join(self) -> None:
        """Waits for its end, and ends it where that takes too long."""
        self.process.join(PATIENCE_S)
        if self.process.is_alive():
            self.kill()

    def kill(self) -> None:
        """Ends the process at once."""
        self.process.kill()
        self.process.join()


def _work(connection: Connection, payload: bytes, threads: int, folder: str) -> None:
    """What a worker does: evaluates trials until the searching process hangs up."""
    os.setsid()  # Ctrl-C is for the searching process, which tells its workers to stop
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.chdir(folder)
    may_have_children()
    die_with_parent()
    evaluate = _unpacked(payload)
    while True:
        try:
            trial = Trial.from_dict(connection.recv())
        except (EOFError, OSError):
            return
        trial.on_report = lambda epoch, score: connection.send(("report", epoch, score))
        try:
            connection.send(_outcome(evaluate, trial))
        except (KeyboardInterrupt, OSError):  # asked to stop, or nobody listens any more
            os._exit(1)


def _outcome(evaluate: Evaluate, trial: Trial) -> tuple[Any, ...]:
    """Evaluates a trial; returns the message of its end."""
    try:
        return "result", *_attempt(evaluate, trial)
    except PlaceError as error:
        return "place", str(error)


def _unpacked(payload: bytes) -> Evaluate:
    """Returns the evaluation; where it can't be unpacked, one that says so for each trial."""
    import cloudpickle

    try:
        evaluate: Evaluate = cloudpickle.loads(payload)
    except Exception as error:  # of the user's modules: any
        reason = f"the evaluation can't be started in a worker: {describe(error)}"

        def complain(trial: Trial) -> float | None:
            raise SearchError(reason)

        return complain
    return evaluate
