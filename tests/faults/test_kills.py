"""Searches that are killed by SIGKILL at random moments and run again lose and repeat nothing."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from fbnetv3.cli import run_main, search
from tests.faults.searches import StartSearch, start_search
from tests.processes import Start, finish
from tests.search import problem

START_S, LIMIT_S = 300.0, 480
ROOT = Path(__file__).resolve().parents[2]


def _lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def _kill_worker(pid: int) -> bool:
    """Kills a worker process; returns whether it was alive until then."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@pytest.fixture
def start_searches() -> Iterator[StartSearch]:
    """Starts searches, which are killed at the end of the test."""
    processes: list[BaseProcess] = []

    def start(folder: Path, workers: int) -> BaseProcess:
        processes.append(start_search(folder, workers))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.join()


class Killer:
    """Starts a search again and again, and kills it or one of its workers at random moments.

    Args:
        folder: Folder of the search.
        random_state: Source of the moments.
        start: The fixture ``start_searches``.

    Attributes:
        kills: Number of killed processes, by ``coordinator`` and ``worker``.
        stored: For each kill of a coordinator, the number of evaluations that had begun and the
            ids of the trials that were stored.
    """

    def __init__(self, folder: Path, random_state: random.Random, start: StartSearch) -> None:
        self._random, self._start = random_state, start
        self.folder = folder
        self.kills: Counter[str] = Counter()
        self.stored: list[tuple[int, set[str]]] = []
        folder.mkdir()

    def run(self, max_kills: int) -> bool:
        """Runs the search until it is killed or ends; returns whether it ended.

        Args:
            max_kills: Number of kills in all after which the search is left alone.
        """
        workers = self._random.choice((0, 0, 2))
        process = self._start(self.folder, workers)
        while self.kills.total() < max_kills:
            victim = self._random.choice(("coordinator", "worker")) if workers else "coordinator"
            # A trial fails if two of its workers die; it has ended after four more evaluations.
            low, high = (4, 6) if victim == "worker" else (1, 4)
            count = len(_lines(self.folder / "ended")) + self._random.randint(low, high)
            if not self._wait_for(process, count):
                return True
            if victim == "coordinator":
                self._kill(process)
                return False
            # The worker may have been ended already, with the last batch.
            self.kills[victim] += _kill_worker(int(_lines(self.folder / "pids")[-1]))
        process.join(START_S)
        assert process.exitcode == 0
        return True

    def _wait_for(self, process: BaseProcess, count: int) -> bool:
        """Waits for a random time after a number of evaluations; False if the search has ended."""
        deadline = time.monotonic() + START_S
        while len(_lines(self.folder / "ended")) < count and process.is_alive():
            assert time.monotonic() < deadline, f"no progress in {START_S} s"
            time.sleep(0.005)
        process.join(self._random.uniform(0.0, 0.5))
        assert process.exitcode in (None, 0)
        return process.exitcode is None

    def _kill(self, coordinator: BaseProcess) -> None:
        coordinator.kill()
        coordinator.join()
        self.kills["coordinator"] += coordinator.exitcode == -signal.SIGKILL
        # Read by SQL: a bug in the search's own reader could hide a lost trial.
        with closing(sqlite3.connect(self.folder / "search.db")) as database:
            query = "SELECT value_json FROM trial_user_attributes WHERE key = 'id'"
            ids = {json.loads(value) for (value,) in database.execute(query)}
        self.stored.append((len(self.begun), ids))

    @property
    def begun(self) -> list[str]:
        """Ids of the evaluated trials in the order in which their evaluations began."""
        return _lines(self.folder / "begun")


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_search_killed_at_random_moments_has_the_same_result(
    tmp_path: Path, start_searches: StartSearch, request: pytest.FixtureRequest
) -> None:
    """The kills come in both stages, during evaluations and while the predictor is fitted."""
    total = request.config.getoption("--kills")
    expected = json.loads(json.dumps(problem.summary(problem.search().run(problem.evaluate))))
    seed = random.SystemRandom().randrange(2**32)
    random_state, kills = random.Random(seed), Counter[str]()
    while kills.total() < total:
        killer = Killer(tmp_path / f"after{kills.total()}", random_state, start_searches)
        while not killer.run(total - kills.total()):
            pass
        assert json.loads((killer.folder / "result.json").read_text()) == expected
        assert set(_lines(killer.folder / "ended")) == {row[1] for row in expected}
        # Only trials that were not stored yet are evaluated again.
        for begun, stored in killer.stored:
            assert not stored & set(killer.begun[begun:])
        kills += killer.kills
        print(f"seed {seed}: {dict(kills)}", flush=True)


TRAINING = [
    "--config-file",
    str(ROOT / "model_zoo/search/digits.yaml"),
    *("SEARCH.BATCH_SIZE", "3", "SEARCH.ITERATIONS", "2", "SEARCH.FINALISTS", "2"),
    *("SEARCH.WORKERS", "1", "SEARCH.POOL_SIZE", "400", "SOLVER.MAX_EPOCHS", "2.0"),
    *("DATA.TRAIN_LIMIT", "400"),
    *("SEARCH.FIX", "['resolution', 16, 'stage0_c', 8, 'stage2_n', 1, 'stage3_n', 1]"),
]


def _stored_trials(folder: Path) -> list[tuple]:
    from fbnetv3.search.fbnet.config import space_from_config
    from fbnetv3.search.fbnet.keys import get_search_cfg
    from fbnetv3.search.storage.optuna_store import OptunaStore

    cfg = get_search_cfg()
    cfg.merge_from_file(str(folder / "config.yaml"))
    store = OptunaStore(f"sqlite:///{folder / 'search.db'}", space_from_config(cfg).space)
    return [(t.id, t.score, t.reports, t.predicted) for t in store.load()]


def _kill_when(process: subprocess.Popen[str], is_due: Callable[[], bool]) -> None:
    """Kills a search, which must still be running, as soon as something is due."""
    deadline = time.monotonic() + START_S
    while not is_due():
        assert process.poll() is None, "the search ended before it was killed"
        assert time.monotonic() < deadline, f"no progress in {START_S} s"
        time.sleep(0.005)
    time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.usefixtures("forked_workers")
def test_real_trainings_killed_three_times_end_the_same(tmp_path: Path, fork: Start) -> None:
    pytest.importorskip("detectron2")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert run_main(search.main, [*TRAINING, "OUTPUT_DIR", str(straight)]) == 0
    command = [sys.executable, str(ROOT / "tools" / "jointnas_search.py"), *TRAINING]
    # The kills come in the first batch, in the second batch and in stage 2. They are counted in
    # candidates with a score, since the first batch decides how many epochs later ones train for.
    for count in (2, 5, 7):
        process = fork([*command, "OUTPUT_DIR", str(killed)])
        is_due = functools.partial(_has_scores, killed, count)
        _kill_when(process, is_due)
    finish(fork([*command, "OUTPUT_DIR", str(killed)]))
    assert _stored_trials(killed) == _stored_trials(straight)
    assert (killed / "best_arch.yaml").read_text() == (straight / "best_arch.yaml").read_text()


def _has_scores(folder: Path, count: int) -> bool:
    """Returns whether so many candidates have the score of an epoch."""
    return len(list(folder.glob("candidates/*/scores.json"))) >= count
