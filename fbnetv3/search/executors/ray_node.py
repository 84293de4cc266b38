"""What runs on a node of a Ray cluster: a worker process, and the actor that speaks for it."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fbnetv3.search.executors.worker import Worker
from fbnetv3.search.trial import Trial


@dataclass(frozen=True)
class Here:
    """What every node must have as the searching process has it.

    Attributes:
        folder: the working directory: configs name files relative to it.
        environment: variables.
        mark: a file in the shared folder; None: there is no such folder.
    """

    folder: str
    environment: dict[str, str]
    mark: Path | None

    @classmethod
    def made(cls, shared: Path | None) -> Here:
        """Describes this process, and leaves a mark in the shared folder."""
        # a name that is new each time: no node's cache of the folder knows that it is not there
        mark = None if shared is None else shared / f".ray_{uuid.uuid4().hex}"
        if mark is not None:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        named = {k: v for k, v in os.environ.items() if k.startswith("FBNETV3_")}
        return cls(os.getcwd(), named, mark)

    def forget(self) -> None:
        """Removes the mark."""
        if self.mark is not None:
            self.mark.unlink(missing_ok=True)

    def complaint(self, node: str) -> str | None:
        """Says what a node lacks, asked there; None: nothing."""
        rule = "must be at the same path on all nodes, on a file system that they share"
        if not Path(self.folder).is_dir():
            return (
                f"node {node} has no folder {self.folder}, the search's working directory: it "
                f"{rule}; start the search in one that is"
            )
        if self.mark is None:
            return None
        if not self.mark.exists():
            return (
                f"node {node} does not see the run folder {self.mark.parent}, in which candidates "
                f"keep their checkpoints: it {rule}; set OUTPUT_DIR to one that is"
            )
        if not os.access(self.mark.parent, os.W_OK):
            return f"node {node} can't write to the run folder {self.mark.parent}; allow it there"
        return None


class Keeper:
    """The actor: keeps a worker process on its node and passes on what that says.

    A process of its own, since signals, which let a training save, reach the main thread only,
    and since its death leaves somebody here who can say how it died.
    """

    def __init__(self, payload: bytes, threads: int, here: Here) -> None:
        self._payload, self._threads, self._here = payload, threads, here
        self._worker: Worker | None = None
        self._is_stopped = False

    def ready(self) -> tuple[Any, ...]:
        """Answers once there is room for it on a node: its id, address, and what it lacks."""
        import ray

        address = ray.util.get_node_ip_address()
        node = ray.get_runtime_context().get_node_id()
        return "ready", node, address, self._here.complaint(address)

    def start(self, trial: dict[str, Any]) -> tuple[Any, ...]:
        """Hands a trial to the process; starts one where there is none, or none any more."""
        if self._worker is None or not self._worker.process.is_alive():
            os.environ.update(self._environment())
            self._worker = Worker(self._payload, self._threads, self._here.folder)
        self._worker.start(Trial.from_dict(trial))
        return ("begun",)

    def _environment(self) -> dict[str, str]:
        import ray

        found = {**self._here.environment, "OMP_NUM_THREADS": str(self._threads)}
        if not ray.get_gpu_ids():  # Ray hides GPUs from those only that it gives one
            found["CUDA_VISIBLE_DEVICES"] = ""
        return found

    def message(self) -> tuple[Any, ...]:
        """Returns the next report, how the trial ended, or the cause of the process's death."""
        worker = self._worker
        assert worker is not None
        try:
            found: tuple[Any, ...] = worker.connection.recv()
        except (EOFError, OSError):
            # while it is stopped, another thread waits for its end
            return "died", "was stopped" if self._is_stopped else worker.cause_of_death()
        if found[0] != "report":
            worker.trial = None
        return found

    def stop(self) -> None:
        """Ends the process, which may save what it has."""
        self._is_stopped = True
        if self._worker is not None:
            self._worker.stop()
            self._worker.join()
