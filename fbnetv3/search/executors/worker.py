"""A worker process on this machine and the trial that it evaluates."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from fbnetv3.search.errors import SearchError, StorageUnavailableError
from fbnetv3.search.executors.base import GRACE_PERIOD_S, Evaluate, Finished, attempt, describe
from fbnetv3.search.executors.orphans import allow_children, die_with_parent
from fbnetv3.search.trial import Trial

START_LIMIT_S = 600.0
"""Seconds within which a worker process must become ready."""
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
"""Environment variable that lists the GPUs of a process."""
_NAME = "fbnetv3-search-worker"
"""Name of a worker process, by which it recognises itself while it imports the user's script."""
_STARTED_AT_IMPORT = 77
"""Exit status of a worker whose script starts a search when it is imported."""
_NO_GUARD = (
    "the script starts a search with workers when it is imported, but every worker imports it; put "
    'the calls that search below the line: if __name__ == "__main__":'
)


class Worker:
    """A process on this machine that evaluates one trial at a time.

    Its first message is ``ready`` or ``not_ready``. A trial is only given to a worker that is
    ready, so that the start of the process and its imports do not count as part of an evaluation.

    Args:
        payload: Evaluation function, pickled by cloudpickle.
        threads: Value of OMP_NUM_THREADS in the process.
        folder: Working directory of the process.
        device: Value of CUDA_VISIBLE_DEVICES in the process, such as ``3``; empty hides all GPUs.
            None: the same as in this process.
        slot: Index of the worker among those of ``LocalWorkers``, from 0. A worker that replaces
            another one gets a free index.

    Attributes:
        connection: This end of the pipe to the process.
        process: The process.
        device: Value of CUDA_VISIBLE_DEVICES in the process; None: the same as in this process.
        slot: Index of the worker in its executor, from 0.
        is_ready: Whether the process can evaluate trials.
        trial: Trial that the process evaluates; None while it is idle.
        trial_start: Time in seconds at which the process was given the trial, by the monotonic
            clock. Before the first trial: time at which the worker was created.
    """

    def __init__(
        self,
        payload: bytes,
        threads: int,
        folder: str,
        device: str | None = None,
        slot: int = 0,
    ) -> None:
        context = mp.get_context("spawn")
        self.connection, worker_end = context.Pipe()
        self.device, self.slot = device, slot
        self.is_ready = False
        self.trial: Trial | None = None
        self.trial_start = self._creation = time.monotonic()
        self.process: BaseProcess = context.Process(
            target=_work, args=(worker_end, payload, threads, folder), daemon=True, name=_NAME
        )
        refuse_start_at_import()
        with _visible_devices(device):  # torch may read it as soon as the process imports modules
            self.process.start()
        worker_end.close()

    @property
    def place(self) -> str:
        """Where the process runs, for messages."""
        return f"GPU {self.device}" if self.device else "this machine"

    def start(self, trial: Trial) -> None:
        """Gives the process a trial."""
        self.trial, self.trial_start = trial, time.monotonic()
        try:
            self.connection.send(trial.to_dict())
        except OSError:
            return  # The process is dead, which the next recv() reports.

    def receive_ready(self) -> None:
        """Reads the first message.

        Raises:
            WorkerStartError: The process has ended before it was ready.
            SearchError: The evaluation function cannot be restored in the process, or the user's
                script has no main guard.
        """
        try:
            kind, reason = self.connection.recv()
        except (EOFError, OSError):
            code = self._exit_code()
            if code == _STARTED_AT_IMPORT:
                raise SearchError(_NO_GUARD) from None
            raise WorkerStartError(self.cause_of_death(), can_retry=(code or 0) < 0) from None
        if kind == "not_ready":
            raise SearchError(reason)
        self.is_ready = True

    def wait_ready(self) -> None:
        """Blocks until the process is ready.

        Raises:
            WorkerStartError: The process has ended, or is not ready after ten minutes.
            SearchError: See :meth:`receive_ready`.
        """
        if not self.connection.poll(START_LIMIT_S):
            self.kill()
            raise WorkerStartError(f"was not ready after {START_LIMIT_S:g} s", can_retry=False)
        self.receive_ready()

    def is_late(self) -> bool:
        """Returns whether the process has not become ready within ``START_LIMIT_S``."""
        return not self.is_ready and time.monotonic() - self._creation > START_LIMIT_S

    def handle(self, message: tuple[Any, ...]) -> list[Finished]:
        """Handles a message that was read from the connection.

        Returns:
            The finished trial; [] if the message is a report.

        Raises:
            StorageUnavailableError: The disk or folder of the trial's files cannot be used.
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

    def _exit_code(self) -> int | None:
        self.process.join(GRACE_PERIOD_S)
        return self.process.exitcode

    def cause_of_death(self) -> str:
        """Returns how the process ended, as a predicate such as ``was ended by SIGKILL``."""
        code = self._exit_code()
        if code is not None and code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"stopped with exit status {code}"

    def stop(self) -> None:
        """Asks the process to end; a training saves a checkpoint first."""
        if self.trial is not None or not self.is_ready:
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


@contextmanager
def _visible_devices(device: str | None) -> Iterator[None]:
    """Sets CUDA_VISIBLE_DEVICES for processes that the block starts; None leaves it as it is."""
    before = os.environ.get(VISIBLE_DEVICES)
    if device is not None:
        os.environ[VISIBLE_DEVICES] = device
    try:
        yield
    finally:
        if before is not None:
            os.environ[VISIBLE_DEVICES] = before
        elif device is not None:
            del os.environ[VISIBLE_DEVICES]


class WorkerStartError(Exception):
    """A worker process has ended before it was ready, or was not ready in time.

    Args:
        reason: Cause, as a predicate such as ``was ended by SIGKILL``.
        can_retry: Whether another process may succeed, for example because memory is free again.
    """

    def __init__(self, reason: str, *, can_retry: bool) -> None:
        super().__init__(reason)
        self.can_retry = can_retry


def refuse_start_at_import() -> None:
    """Ends a worker that would start workers itself, because its script has no main guard.

    A new process imports the script of the process that started it. If the script starts a search
    outside of ``if __name__ == "__main__":``, the worker would start that search again.

    Raises:
        SearchError: This process is importing the script, and is not a worker of a search but, for
            example, a process of the user's own pool.
    """
    process = mp.current_process()
    # multiprocessing sets ``_inheriting`` while a new process imports the script.
    if not getattr(process, "_inheriting", False):
        return
    if process.name == _NAME:
        os._exit(_STARTED_AT_IMPORT)
    raise SearchError(_NO_GUARD)


def _work(connection: Connection, payload: bytes, threads: int, folder: str) -> None:
    """Evaluates trials until the searching process closes the connection."""
    os.setsid()  # Ctrl-C reaches the searching process only, which then stops its workers.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        os.chdir(folder)
        allow_children()
        die_with_parent()
        evaluate = _unpickle(payload)
        connection.send(("ready", None))
    except SearchError as error:
        connection.send(("not_ready", str(error)))
        return
    except (KeyboardInterrupt, OSError):
        os._exit(1)
    while True:
        try:
            trial = Trial.from_dict(connection.recv())
        except (EOFError, OSError):
            return
        try:
            _evaluate(evaluate, trial, connection)
        # This process was asked to stop, or the searching process has closed the connection.
        except (KeyboardInterrupt, OSError):
            os._exit(1)


def _evaluate(evaluate: Evaluate, trial: Trial, connection: Connection) -> None:
    """Evaluates a trial, and sends its reports and its outcome."""
    mutex = threading.Lock()  # an evaluation may report from threads, also after its end
    has_ended = False

    def send(message: tuple[Any, ...]) -> None:
        with mutex:
            if not has_ended:
                connection.send(message)

    trial.on_report = lambda epoch, score: send(("report", epoch, score))
    message = _outcome(evaluate, trial)
    with mutex:
        has_ended = True
        connection.send(message)


def _outcome(evaluate: Evaluate, trial: Trial) -> tuple[Any, ...]:
    """Evaluates a trial; returns the message with its outcome."""
    try:
        finished = attempt(evaluate, trial)
    except StorageUnavailableError as error:
        return "storage_unavailable", str(error)
    except SystemExit as error:  # sys.exit() ends the evaluation, not the worker
        return "result", None, describe(error)
    return "result", finished.score, finished.reason, finished.fault


def _unpickle(payload: bytes) -> Evaluate:
    """Returns the evaluation function.

    Raises:
        SearchError: The function cannot be unpickled, for example because a module is missing here.
    """
    import cloudpickle

    try:
        evaluate: Evaluate = cloudpickle.loads(payload)
    except Exception as error:  # the user's modules may raise anything
        raise SearchError(
            f"a worker cannot unpickle the evaluation function: {describe(error)}; every worker "
            "needs the modules that the function uses"
        ) from error
    return evaluate
