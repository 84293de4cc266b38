"""Faults around a search: locked databases, full disks, stopped workers, lack of memory.

Either the result is that of an undisturbed search, and no finished trial is lost or evaluated
again; or there is one clear error, and a folder from which the same command continues.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.io import atomic_write
from fbnetv3.search import InProcess, JointNAS, LocalWorkers, SearchError, Trial
from fbnetv3.search.errors import StorageUnavailableError
from fbnetv3.search.storage.optuna_store import OptunaStore
from fbnetv3.search.trial import Event
from tests.search import problem
from tests.search.executors.ray_clusters import ray_workers

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {"finalists": 3}
SEARCH = """
import contextlib, json, sys
from pathlib import Path
from fbnetv3.errors import FBNetError
from tests.search import problem

folder = Path(sys.argv[1])

def evaluate(trial):
    if trial.number == 5 and not (folder / "filler").exists():
        with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
            while sys.argv[2] == "fill":
                file.write(bytes(1024))
    return problem.evaluate(trial)

try:
    result = problem.search(storage=f"sqlite:///{folder}/search.db", finalists=3).run(evaluate)
except FBNetError as error:
    print(f"error: {error}")
    sys.exit(2)
print(json.dumps(problem.summary(result)))
"""


@pytest.fixture(scope="module")
def expected() -> list[Any]:
    """The summary of an undisturbed search."""
    return problem.summary(problem.search(**SMALL).run(problem.evaluate))


def _search(folder: Path, action: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SEARCH, str(folder), action],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        # with all variables of this process: those of OpenBLAS change the rounding of predictions
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def _error_line(process: subprocess.CompletedProcess[str]) -> str:
    """Returns the error of a search, which must have printed this line only."""
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    lines = process.stdout.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_database_that_is_locked_for_a_while(tmp_path: Path, expected: list[Any]) -> None:
    seconds = 6.0  # longer than the 5 s for which sqlite3 waits by default
    url = f"sqlite:///{tmp_path / 'search.db'}"
    search = problem.search(**SMALL, storage=url)
    threads: list[threading.Thread] = []

    def lock_database() -> None:
        other = sqlite3.connect(tmp_path / "search.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        locked.set()
        time.sleep(seconds)
        other.execute("COMMIT")
        other.close()

    locked = threading.Event()

    def evaluate(trial: Trial) -> float:
        if trial.number == 4:
            threads.append(threading.Thread(target=lock_database))
            threads[0].start()
            assert locked.wait(10)
        return problem.evaluate(trial)

    start = time.monotonic()
    result = search.run(evaluate)
    threads[0].join()
    assert time.monotonic() - start > seconds
    assert problem.summary(result) == expected
    assert problem.summary(problem.search(**SMALL, storage=url).run(_never)) == expected


def _never(trial: Trial) -> float:
    pytest.fail("a finished trial was evaluated again")


def test_a_full_disk_is_one_error_and_the_search_continues_when_there_is_room(
    small_disk: Path, expected: list[Any]
) -> None:
    error = _error_line(_search(small_disk, "fill"))
    assert "trial" in error
    assert "full" in error
    assert "the same command continues the search" in error
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    process = _search(small_disk)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == json.loads(json.dumps(expected))


def test_a_read_only_folder_is_one_error(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert str(small_disk) in _error_line(_search(small_disk))
    assert list(small_disk.iterdir()) == []


_EXECUTORS: dict[str, Callable[[], Any]] = {
    "in process": InProcess,
    "local": lambda: LocalWorkers(2),
    "ray": lambda: ray_workers(2),
}


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        *((kind, "full") for kind in _EXECUTORS),
        pytest.param("local", "read-only", marks=pytest.mark.slow),
    ],
)
def test_evaluations_that_cannot_write_fail_no_trial(
    tmp_path: Path, small_disk: Path, expected: list[Any], kind: str, fault: str
) -> None:
    """The database is on another disk, where even a failure could be stored."""
    url, begun = f"sqlite:///{tmp_path / 'search.db'}", tmp_path / "begun"

    def evaluate(trial: Trial) -> float:
        with begun.open("a") as file:
            file.write(f"{trial.id}\n")
        with atomic_write(small_disk / f"{trial.id}.bin") as temporary:
            temporary.write_bytes(bytes(100_000))
        return problem.evaluate(trial)

    executor = _EXECUTORS[kind]()
    if fault == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(
        StorageUnavailableError, match="free space or choose a writable folder"
    ) as error:
        problem.search(**SMALL, storage=url, executor=executor).run(evaluate)
    assert "\n" not in str(error.value)
    stored = OptunaStore(url, problem.space()).load()
    assert all(trial.state == "complete" for trial in stored)
    assert bool(stored) == (fault == "full")
    begun.unlink()
    subprocess.run(["mount", "-o", "remount,rw,size=16m", str(small_disk)], check=True)
    result = problem.search(**SMALL, storage=url, executor=_EXECUTORS[kind]()).run(evaluate)
    assert problem.summary(result) == expected
    assert not {trial.id for trial in stored} & set(begun.read_text().split())


def _state(pid: int) -> str:
    """Returns the state of a process as the kernel names it; T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _wait_until(is_due: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_due():
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.01)


def test_a_worker_that_is_stopped_for_a_while(tmp_path: Path, expected: list[Any]) -> None:
    """It is stopped during an evaluation, which continues at SIGCONT."""
    finished: list[int] = []

    def evaluate(trial: Trial) -> float:
        if trial.number == 3:
            (tmp_path / "new").write_text(str(os.getpid()))
            (tmp_path / "new").rename(tmp_path / "pid")
            while not (tmp_path / "go").exists():
                time.sleep(0.01)
        return problem.evaluate(trial)

    def stop() -> list[int]:
        _wait_until((tmp_path / "pid").exists)
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        _wait_until(lambda: _state(pid) == "T")
        (tmp_path / "go").touch()
        _wait_until(lambda: len(finished) == 7)  # the other worker evaluates the rest of 8
        time.sleep(1)
        before = list(finished)
        assert _state(pid) == "T"
        os.kill(pid, signal.SIGCONT)
        return before

    def note(search: JointNAS, event: Event) -> None:
        if event.kind == "finish":
            finished.append(event.trial.number)

    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(stop)
        search = problem.search(**SMALL, executor=LocalWorkers(2))
        result = search.run(evaluate, callbacks=[note])
    assert sorted(stopped.result()) == [0, 1, 2, 4, 5, 6, 7]
    assert finished[7] == 3
    assert problem.summary(result) == expected


def test_a_candidate_without_memory_fails_alone() -> None:
    def evaluate(trial: Trial) -> float:
        if trial.number == 2:
            soft, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (2**33, hard))
            try:
                bytearray(2**34)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        return problem.evaluate(trial)

    result = problem.search(**SMALL, executor=LocalWorkers(1)).run(evaluate)
    failed = [t for t in result.trials if t.state == "failed"]
    assert [t.number for t in failed] == [2]
    assert str(failed[0].reason).startswith("MemoryError")


def test_a_truncated_database_is_one_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    search = problem.search(**SMALL, storage=url)
    trials = search.ask()
    search.tell(trials, [problem.evaluate(t) for t in trials])
    search.close()
    path = tmp_path / "search.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SearchError, match=r"search\.db"):
        problem.search(**SMALL, storage=url).run(problem.evaluate)
