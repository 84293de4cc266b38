"""Searches in processes of their own that are ready to start at once.

The processes are forked from a server that has imported this module, and has run a search, before:
imports and first calls take longer than a search of the synthetic problem.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fbnetv3.search import InProcess, LocalWorkers, Trial
from tests.forked import PRELOADED
from tests.search import problem

StartSearch = Callable[[Path, int], BaseProcess]
"""(folder, workers) -> process; the fixture ``start_search``."""
_SERVER = "fbnetv3.tests.server"
"""Environment variable that is set in the server, which runs a search when it imports this."""


def start_search(folder: Path, workers: int) -> BaseProcess:
    """Starts a search in a folder.

    Args:
        folder: Folder of the storage, the result and the notes of the evaluations.
        workers: Number of worker processes; 0 to evaluate in the process of the search.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    os.environ[_SERVER] = "1"
    try:
        process = context.Process(target=_search, args=(folder, workers))
        process.start()
    finally:
        del os.environ[_SERVER]
    return process


def _search(folder: Path, workers: int) -> None:
    os.environ.pop(_SERVER, None)
    executor = LocalWorkers(workers) if workers else InProcess()
    search = problem.search(storage=f"sqlite:///{folder}/search.db", executor=executor)
    result = search.run(Evaluation(folder))
    (folder / "result.json").write_text(json.dumps(problem.summary(result)))


class Evaluation:
    """Evaluates the synthetic problem in 0.1 s, and notes in files when it begins and ends.

    Args:
        folder: Folder of the files ``pids``, ``begun`` and ``ended``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, trial: Trial) -> float:
        self._note("pids", os.getpid())
        self._note("begun", trial.id)
        time.sleep(0.1)
        score = problem.evaluate(trial)
        self._note("ended", trial.id)
        return score

    def _note(self, name: str, value: Any) -> None:
        with (self._folder / name).open("a") as file:
            file.write(f"{value}\n")


if _SERVER in os.environ:
    problem.search().run(problem.evaluate)
