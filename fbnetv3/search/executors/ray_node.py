"""The part of the Ray executor that runs on the nodes: an actor and its worker process."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.worker import Worker, WorkerStartError
from fbnetv3.search.trial import Trial

_SAME_PATH = "must be at the same path on all nodes, on a file system that they share"


@dataclass(frozen=True)
class NodeContext:
    """Working directory, environment and shared folder of the search process.

    Attributes:
        folder: Working directory, to which the paths in configs are relative.
        environment: Variables of the search process whose names begin with ``FBNETV3_``; the
            workers get them.
        marker: File in the shared folder by which a node recognises that folder; None if no folder
            is shared.
    """

    folder: str
    environment: dict[str, str]
    marker: Path | None

    @classmethod
    def create(cls, shared: Path | None) -> NodeContext:
        """Returns the context of this process, and writes a marker file to the shared folder."""
        # A new name each time: a network file system may still cache the absence of an old one.
        marker = None if shared is None else shared / f".ray_{uuid.uuid4().hex}"
        if marker is not None:
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
        variables = {k: v for k, v in os.environ.items() if k.startswith("FBNETV3_")}
        return cls(os.getcwd(), variables, marker)

    def remove_marker(self) -> None:
        """Deletes the marker file if there is one."""
        if self.marker is not None:
            self.marker.unlink(missing_ok=True)

    def folder_error(self, node: str) -> str | None:
        """Returns an error message if this node cannot use the search's folders, otherwise None.

        The node must have the working directory and, if there is a shared folder, that folder,
        with write access.

        Args:
            node: Address of this node, for the message.
        """
        if not Path(self.folder).is_dir():
            return (
                f"node {node} has no folder {self.folder}, the working directory of the search: it "
                f"{_SAME_PATH}; start the search in such a folder"
            )
        if self.marker is None:
            return None
        if not self.marker.exists():
            return (
                f"node {node} does not see the run folder {self.marker.parent}, in which "
                f"candidates keep their checkpoints: it {_SAME_PATH}; set OUTPUT_DIR to such a "
                "folder"
            )
        if not os.access(self.marker.parent, os.W_OK):
            return (
                f"node {node} cannot write to the run folder {self.marker.parent}; grant write "
                "access there"
            )
        return None


class WorkerActor:
    """Ray actor that owns a worker process on its node and forwards the worker's messages.

    The evaluation runs in a separate process for two reasons. The signal that makes a training save
    a checkpoint is handled in a process's main thread only, and Ray calls actors in other threads;
    and the actor must survive a crash to report it.

    Args:
        payload: Evaluation function, pickled by cloudpickle.
        threads: Value of OMP_NUM_THREADS in the worker.
        context: Working directory, environment and shared folder of the search process.
    """

    def __init__(self, payload: bytes, threads: int, context: NodeContext) -> None:
        self._payload, self._threads, self._context = payload, threads, context
        self._worker: Worker | None = None
        self._is_stopped = False

    def ready(self) -> tuple[Any, ...]:
        """Returns ``('ready', node id, address, GPUs, error message or None)``."""
        import ray

        address = ray.util.get_node_ip_address()
        node = ray.get_runtime_context().get_node_id()
        gpus = [str(gpu) for gpu in ray.get_gpu_ids()]
        return "ready", node, address, gpus, self._context.folder_error(address)

    def start(self, trial: dict[str, Any]) -> tuple[Any, ...]:
        """Gives a trial to the worker process, which is started if none is alive.

        Returns:
            ``('started',)`` once the trial was sent; ``('not_ready', message)`` if the evaluation
            function cannot be restored; ``('not_started', cause)`` if no process starts.
        """
        if self._worker is None or not self._worker.process.is_alive():
            os.environ.update(self._environment())
            self._worker = Worker(self._payload, self._threads, self._context.folder)
            try:
                self._worker.wait_ready()
            except SearchError as error:
                return "not_ready", str(error)
            except WorkerStartError as error:
                return "not_started", str(error)
        self._worker.start(Trial.from_dict(trial))
        return ("started",)

    def _environment(self) -> dict[str, str]:
        import ray

        variables = {**self._context.environment, "OMP_NUM_THREADS": str(self._threads)}
        # Whether Ray hides the GPUs from actors that have reserved none depends on its version.
        if not ray.get_gpu_ids():
            variables["CUDA_VISIBLE_DEVICES"] = ""
        return variables

    def next_message(self) -> tuple[Any, ...]:
        """Blocks until the worker's next message, and returns it.

        It is a report, the outcome of the trial (``result`` or ``storage_unavailable``), or
        ``('died', cause)`` if the process has ended.
        """
        worker = self._worker
        assert worker is not None
        try:
            message: tuple[Any, ...] = worker.connection.recv()
        except (EOFError, OSError):
            # During stop(), another thread joins the process; cause_of_death() would join it too.
            return "died", "was stopped" if self._is_stopped else worker.cause_of_death()
        if message[0] != "report":
            worker.trial = None
        return message

    def stop(self) -> None:
        """Ends the worker process; a training that is running there saves a checkpoint first."""
        self._is_stopped = True
        if self._worker is not None:
            self._worker.stop()
            self._worker.join()
