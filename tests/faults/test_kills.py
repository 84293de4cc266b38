"""SIGKILL at random moments, and the same command again: nothing lost, nothing done twice."""

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
from pathlib import Path

import pytest

from tests.search import problem

Started = Callable[[subprocess.Popen], subprocess.Popen]
START_S, LIMIT_S = 300.0, 480
ROOT = Path(__file__).resolve().parent.parent.parent
# Each evaluation takes a little while, says who does it, and leaves marks when it begins and ends.
SCRIPT = """
import json, os, sys, time
from pathlib import Path
from fbnetv3.search import InProcess, LocalWorkers
from tests.search import problem

folder, workers = Path(sys.argv[1]), int(sys.argv[2])

def note(name, text):
    with (folder / name).open("a") as file:
        file.write(f"{text}\\n")

def evaluate(trial):
    note("pids", os.getpid())
    note("begun", trial.id)
    time.sleep(0.1)
    score = problem.evaluate(trial)
    note("log", trial.id)
    return score

if __name__ == "__main__":
    executor = LocalWorkers(workers) if workers else InProcess()
    storage = f"sqlite:///{folder}/search.db"
    result = problem.search(storage=storage, executor=executor).run(evaluate)
    (folder / "result.json").write_text(json.dumps(problem.summary(result)))
"""


def _start(script: Path, folder: Path, workers: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(workers)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )


def _lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def _is_due(process: subprocess.Popen, is_due: Callable[[], bool], delay: float) -> bool:
    """Waits until some time after something is due; False where the process ended before."""
    deadline = time.monotonic() + START_S
    while not is_due() and process.poll() is None:
        assert time.monotonic() < deadline, f"no progress in {START_S} s"
        time.sleep(0.005)
    try:
        assert process.wait(delay) == 0
    except subprocess.TimeoutExpired:
        return True
    return False


def _kill(process: subprocess.Popen) -> bool:
    """Kills a process that this one has started; tells whether it was alive until then."""
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def _kill_other(pid: int) -> bool:
    """The same for one that others wait for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@pytest.fixture
def started() -> Iterator[Started]:
    """Ends what a test has started, also where it fails or runs out of time."""
    processes: list[subprocess.Popen] = []

    def note(process: subprocess.Popen) -> subprocess.Popen:
        processes.append(process)
        return process

    yield note
    for process in processes:
        process.kill()
        process.wait()


class Killer:
    """Starts searches, and kills them or a worker of theirs at random moments.

    Args:
        folder: of a search.
        draws: of the moments.
        started: fixture.

    Attributes:
        kills: of living processes, by what they were.
        kept: after each kill of a coordinator, the evaluations begun so far and the trials stored.
    """

    def __init__(self, script: Path, folder: Path, draws: random.Random, started: Started) -> None:
        self._script, self._draws, self._started = script, draws, started
        self.folder = folder
        self.kills: Counter[str] = Counter()
        self.kept: list[tuple[int, set[str]]] = []
        folder.mkdir()

    def run(self, most: int) -> bool:
        """Runs the search until it is killed or ends; tells whether it ended.

        Args:
            most: kills that it may take.
        """
        workers = self._draws.choice((0, 0, 2))
        process = self._started(_start(self._script, self.folder, workers))
        while self.kills.total() < most:
            victim = self._draws.choice(("coordinator", "worker")) if workers else "coordinator"
            # a candidate whose worker dies twice fails: after four more it has been done again
            few, many = (4, 6) if victim == "worker" else (1, 4)
            wanted = len(_lines(self.folder / "log")) + self._draws.randint(few, many)
            if not _is_due(process, functools.partial(self._has, wanted), self._delay()):
                return True
            if victim == "coordinator":
                self._kill(process)
                return False
            # none, where it was ended with the last batch
            self.kills[victim] += _kill_other(int(_lines(self.folder / "pids")[-1]))
        assert process.wait(START_S) == 0
        return True

    def _kill(self, coordinator: subprocess.Popen) -> None:
        self.kills["coordinator"] += _kill(coordinator)
        # not by the search's own reader, which might lose some in both
        with closing(sqlite3.connect(self.folder / "search.db")) as stored:
            found = stored.execute("SELECT value_json FROM trial_user_attributes WHERE key = 'id'")
            ids = {json.loads(value) for (value,) in found}
        self.kept.append((len(self.begun), ids))

    @property
    def begun(self) -> list[str]:
        """The candidates whose evaluation was begun, in that order, again where it was again."""
        return _lines(self.folder / "begun")

    def _has(self, wanted: int) -> bool:
        return len(_lines(self.folder / "log")) >= wanted

    def _delay(self) -> float:
        return self._draws.uniform(0.0, 0.5)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_killed_at_random_moments_the_result_is_the_same(
    tmp_path: Path, started: Started, request: pytest.FixtureRequest
) -> None:
    """From stage 1's first trial to the last of stage 2, and while the predictor is fitted."""
    script, total = tmp_path / "search.py", request.config.getoption("--kills")
    script.write_text(SCRIPT)
    wanted = json.loads(json.dumps(problem.summary(problem.search().run(problem.evaluate))))
    seed = random.SystemRandom().randrange(2**32)
    draws, kills = random.Random(seed), Counter[str]()
    while kills.total() < total:
        killer = Killer(script, tmp_path / f"after{kills.total()}", draws, started)
        while not killer.run(total - kills.total()):
            pass
        assert json.loads((killer.folder / "result.json").read_text()) == wanted
        assert set(_lines(killer.folder / "log")) == {row[1] for row in wanted}
        # only what was not stored yet is done again
        for count, stored in killer.kept:
            assert not stored & set(killer.begun[count:])
        kills += killer.kills
        print(f"seed {seed}: {dict(kills)}", flush=True)


TRAINING = [
    "--config-file",
    "model_zoo/search/digits.yaml",
    *("SEARCH.BATCH_SIZE", "4", "SEARCH.ITERATIONS", "2", "SEARCH.FINALISTS", "2"),
    *("SEARCH.WORKERS", "1", "SEARCH.POOL_SIZE", "400", "SOLVER.MAX_EPOCHS", "2.0"),
    *("DATA.TRAIN_LIMIT", "500"),
    *("SEARCH.FIX", "['resolution', 16, 'stage0_c', 8, 'stage2_n', 1, 'stage3_n', 1]"),
]


def _search(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "tools/jointnas_search.py", *TRAINING, "OUTPUT_DIR", str(folder)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )


def _trials(folder: Path) -> list[tuple]:
    from fbnetv3.search.fbnet.config import space_from_config
    from fbnetv3.search.fbnet.keys import get_search_cfg
    from fbnetv3.search.storage.optuna_store import OptunaStore

    cfg = get_search_cfg()
    cfg.merge_from_file(str(folder / "config.yaml"))
    store = OptunaStore(f"sqlite:///{folder / 'search.db'}", space_from_config(cfg).space)
    return [(t.id, t.score, t.reports, t.predicted) for t in store.load()]


def _scored(folder: Path) -> int:
    """Counts the candidates that have the score of an epoch."""
    return len(list(folder.glob("candidates/*/scores.json")))


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
def test_real_trainings_killed_three_times_end_the_same(tmp_path: Path, started: Started) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert started(_search(straight)).wait(LIMIT_S) == 0
    # in the first batch, in the middle of a candidate; in the second batch; in stage 2. Counted in
    # candidates: how many epochs the later ones train for depends on the first batch's scores
    for number in (2, 6, 9):
        process = started(_search(killed))
        assert _is_due(process, lambda wanted=number: _scored(killed) >= wanted, 0.05)  # type: ignore[misc]
        _kill(process)
    assert started(_search(killed)).wait(LIMIT_S) == 0
    assert _trials(killed) == _trials(straight)
    assert (killed / "best_arch.yaml").read_text() == (straight / "best_arch.yaml").read_text()
