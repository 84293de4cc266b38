"""SIGKILL at random moments, and the same command again: nothing lost, nothing done twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.search import problem

Started = Callable[[subprocess.Popen], subprocess.Popen]
START_S, LIMIT_S = 90.0, 480
ROOT = Path(__file__).resolve().parent.parent.parent
# Each evaluation takes a little while and leaves a mark when it ends.
SCRIPT = """
import json, sys, time
from pathlib import Path
from fbnetv3.search import InProcess, LocalWorkers
from tests.search import problem

folder, workers = Path(sys.argv[1]), int(sys.argv[2])

def evaluate(trial):
    time.sleep(0.1)
    score = problem.evaluate(trial)
    with (folder / "log").open("a") as file:
        file.write(f"{trial.id}\\n")
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


def _kill_when(process: subprocess.Popen, is_due: Callable[[], bool], delay: float) -> bool:
    """Kills a process some time after something is due; False where it ended before."""
    deadline = time.monotonic() + START_S
    while not is_due() and process.poll() is None:
        assert time.monotonic() < deadline, f"no progress in {START_S} s"
        time.sleep(0.005)
    try:
        assert process.wait(delay) == 0
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


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


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
def test_killed_at_twenty_moments_the_result_is_the_same(tmp_path: Path, started: Started) -> None:
    script = tmp_path / "search.py"
    script.write_text(SCRIPT)
    wanted = json.loads(json.dumps(problem.summary(problem.search().run(problem.evaluate))))
    draws, kills, folder, mine = random.Random(7), 0, tmp_path / "0", 0
    folder.mkdir()
    while kills < 20 or (folder / "log").exists():
        workers = 2 if kills % 5 == 4 else 0
        log = folder / "log"
        lines = len(_lines(log)) + draws.randint(1, 4)
        process = started(_start(script, folder, workers))

        def is_due(log: Path = log, lines: int = lines) -> bool:
            return len(_lines(log)) >= lines

        # from stage 1's first trial to the last one of stage 2, and while the predictor is fitted
        if kills < 20 and _kill_when(process, is_due, draws.uniform(0.0, 0.5)):
            kills, mine = kills + 1, mine + 1
            continue
        assert process.wait(START_S) == 0
        assert json.loads((folder / "result.json").read_text()) == wanted
        done = _lines(log)
        # what was evaluated in the very moment of a kill, before it was stored, is done again
        assert len(done) - len(set(done)) <= 2 * mine
        assert set(done) == {row[1] for row in wanted}
        folder, mine = tmp_path / f"after{kills}", 0
        folder.mkdir(exist_ok=True)


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
    from fbnetv3.search.evaluator import get_search_cfg, space_from_config
    from fbnetv3.search.trials import OptunaStore

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
        assert _kill_when(process, lambda wanted=number: _scored(killed) >= wanted, 0.05)  # type: ignore[misc]
    assert started(_search(killed)).wait(LIMIT_S) == 0
    assert _trials(killed) == _trials(straight)
    assert (killed / "best_arch.yaml").read_text() == (straight / "best_arch.yaml").read_text()
