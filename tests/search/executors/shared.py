"""Executors whose workers serve several tests, since their start takes most of the time."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fbnetv3.search import InProcess, LocalWorkers, Trial
from fbnetv3.search.executors.base import Evaluate, Executor, Finished, pickled
from tests.search.executors.ray_clusters import ray_workers

WITHOUT_WORKERS: dict[str, Callable[[], Executor]] = {"in process": InProcess}
"""Executors without worker processes, by kind."""
WORKERS: dict[str, Callable[..., Any]] = {"local": LocalWorkers, "ray": ray_workers}
"""Executors with worker processes, by kind; each takes the number of workers."""
# Workers that reserve nothing leave the cluster to those of other tests.
_SHARING: dict[str, dict[str, Any]] = {"ray": {"cpus": 0.0}}


class SharedExecutor:
    """An executor that keeps its workers when the evaluation function changes.

    It gives them one function, which reads the current evaluation function from a file.

    Args:
        executor: The executor.
        path: The file.
    """

    def __init__(self, executor: Any, path: Path) -> None:
        self._executor, self._path = executor, path

    def start(self, evaluate: Evaluate) -> None:
        """Writes the evaluation function to the file."""
        self._path.write_bytes(pickled(evaluate))
        self._executor.start(StoredEvaluation(self._path))

    def submit(self, trial: Trial) -> None:
        """Submits a trial."""
        self._executor.submit(trial)

    def wait(self) -> list[Finished]:
        """Waits for finished trials."""
        return self._executor.wait()

    def withdraw(self) -> None:
        """Drops the submitted trials that have not started."""
        self._executor.withdraw()

    def close(self) -> None:
        """Ends the workers; the next test starts new ones."""
        self._executor.close()


class StoredEvaluation:
    """Evaluates trials by the function in a file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, trial: Trial) -> Any:
        return pickle.loads(self._path.read_bytes())(trial)


class SharedExecutors:
    """The shared executors of this process, which are made when they are first used.

    Args:
        folder: Folder for the evaluation functions.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._executors: dict[tuple[str, int], SharedExecutor] = {}

    def __call__(self, kind: str, count: int) -> SharedExecutor:
        """Returns the executor of a kind of ``WORKERS``, with a number of workers."""
        if (kind, count) not in self._executors:
            executor = WORKERS[kind](count, **_SHARING.get(kind, {}))
            path = self._folder / f"{kind}{count}.pkl"
            self._executors[kind, count] = SharedExecutor(executor, path)
        return self._executors[kind, count]

    def close(self) -> None:
        """Ends all workers."""
        for executor in self._executors.values():
            executor.close()
