"""A worker process on this machine and the trial that it evaluates."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from fbnetv3.search.errors import SearchError, StorageUnavailableError
from fbnetv3.search.executors.base import GRACE_PERIOD_S, Evaluate, Finished, attempt, describe
from fbnetv3.search.executors.orphans import allow_children, die_with_parent
from fbnetv3.search.trial import Trial


class Worker:
    """A process on this machine that evaluates one trial at a time.

    Args:
        payload: Evaluation function, pickled by cloudpickle.
        threads: Value of OMP_NUM_THREADS in the process.
        folder: Working directory of the process.

    Attributes:
        connection: This end of the pipe to the process.
        process: The process.
        trial: Trial that the process evaluates; None while it is idle.
        trial_start: Time at which the process was given the trial, by the monotonic clock.
    """

    def __init__(self, payload: bytes, threads: int, folder: str) -> None:
        context = mp.get_context("spawn")
        self.connection, worker_end = context.Pipe()
        self.trial: Trial | None = None
        self.trial_start = 0.0
        self.process: BaseProcess = context.Process(
            target=_work, args=(worker_end, payload, threads, folder), daemon=True
        )
        self.process.start()
        worker_end.close()

    def start(self, trial: Trial) -> None:
        """Gives the process a trial."""
        self.trial, self.trial_start = trial, time.monotonic()
        try:
            self.connection.send(trial.to_dict())
        except OSError:
            return  # The process is dead, which the next recv() reports.

    def handle(self, message: tuple[Any, ...]) -> list[Finished]:
        """Handles a message that was read from the connection.

        Returns:
            The finished trial; [] if the message is a report.

        Raises:
            StorageUnavailableError: The trial cannot be evaluated because of a disk fault.
        """
        trial = self.trial
        assert trial is not None
        kind, *content = message
        if kind == "report":
            trial.report(*content)
            return []
        self.trial = None
        if kind == "storage_unavailable":
            raise StorageUnavailableError(*content)
        return [Finished(trial, *content)]

    def cause_of_death(self) -> str:
        """Returns how the process ended, as a predicate such as ``was ended by SIGKILL``."""
        self.process.join(GRACE_PERIOD_S)
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
        """Waits until the process has ended; kills it after the grace period."""
        self.process.join(GRACE_PERIOD_S)
        if self.process.is_alive():
            self.kill()

    def kill(self) -> None:
        """Kills the process."""
        self.process.kill()
        self.process.join()


def _work(connection: Connection, payload: bytes, threads: int, folder: str) -> None:
    """Evaluates trials until the searching process closes the connection."""
    os.setsid()  # Ctrl-C reaches the searching process only, which then stops its workers.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.chdir(folder)
    allow_children()
    die_with_parent()
    evaluate = _unpickle(payload)
    while True:
        try:
            trial = Trial.from_dict(connection.recv())
        except (EOFError, OSError):
            return
        trial.on_report = lambda epoch, score: connection.send(("report", epoch, score))
        try:
            connection.send(_outcome(evaluate, trial))
        # This process was asked to stop, or the searching process has closed the connection.
        except (KeyboardInterrupt, OSError):
            os._exit(1)


def _outcome(evaluate: Evaluate, trial: Trial) -> tuple[Any, ...]:
    """Evaluates a trial; returns the message with its outcome."""
    try:
        finished = attempt(evaluate, trial)
    except StorageUnavailableError as error:
        return "storage_unavailable", str(error)
    return "result", finished.score, finished.reason


def _unpickle(payload: bytes) -> Evaluate:
    """Returns the evaluation function, or one that fails each trial if it cannot be unpickled."""
    import cloudpickle

    try:
        evaluate: Evaluate = cloudpickle.loads(payload)
    except Exception as error:  # the user's modules may raise anything
        reason = f"a worker cannot unpickle the evaluation function: {describe(error)}"

        def fail(trial: Trial) -> float | None:
            raise SearchError(reason)

        return fail
    return evaluate
