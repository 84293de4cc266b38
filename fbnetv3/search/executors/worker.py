"""A worker process and the trial that it evaluates."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from fbnetv3.search.errors import PlaceError, SearchError
from fbnetv3.search.executors.base import PATIENCE_S, Evaluate, Finished, _attempt, describe
from fbnetv3.search.executors.orphans import die_with_parent, may_have_children
from fbnetv3.search.trial import Trial


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
