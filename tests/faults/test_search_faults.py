"""What can go wrong around a search: the invariant is the same each time.

No finished trial is lost or done twice, and the result is that of an undisturbed search; or there
is one clear error, and a folder from which the same command goes on.
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
from fbnetv3.search.errors import PlaceError
from fbnetv3.search.storage.optuna_store import OptunaStore
from fbnetv3.search.trial import Event
from tests.search import problem
from tests.search.executors.ray_clusters import ray_workers

ROOT = Path(__file__).resolve().parent.parent.parent
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
def wanted() -> list[Any]:
    """The summary of an undisturbed search."""
    return problem.summary(problem.search(**SMALL).run(problem.evaluate))


def _search(folder: Path, what: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SEARCH, str(folder), what],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def _one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Returns the error of a process that failed as it should: with one line."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_database_that_is_locked_for_a_while(
    tmp_path: Path, seconds: float, wanted: list[Any]
) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    search = problem.search(**SMALL, storage=url)
    held: list[threading.Thread] = []

    def hold() -> None:
        other = sqlite3.connect(tmp_path / "search.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        locked.set()
        time.sleep(seconds)
        other.execute("COMMIT")
        other.close()

    locked = threading.Event()

    def evaluate(trial: Trial) -> float:
        if trial.number == 4:
            held.append(threading.Thread(target=hold))
            held[0].start()
            assert locked.wait(10)
        return problem.evaluate(trial)

    begin = time.monotonic()
    result = search.run(evaluate)
    held[0].join()
    assert time.monotonic() - begin > seconds
    assert problem.summary(result) == wanted
    assert problem.summary(problem.search(**SMALL, storage=url).run(_never)) == wanted


def _never(trial: Trial) -> float:
    pytest.fail("a finished trial was done again")


def test_a_full_disk_is_one_line_and_the_search_goes_on_when_there_is_room(
    small_disk: Path, wanted: list[Any]
) -> None:
    error = _one_line(_search(small_disk, "fill"))
    assert "trial" in error
    assert "full" in error
    assert "the same command goes on" in error
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    done = _search(small_disk)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(wanted))


def test_a_folder_that_cannot_be_written_is_one_line(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert str(small_disk) in _one_line(_search(small_disk))
    assert list(small_disk.iterdir()) == []


_EXECUTORS: dict[str, Callable[[], Any]] = {
    "in process": InProcess,
    "local": lambda: LocalWorkers(2),
    "ray": lambda: ray_workers(2),
}


@pytest.mark.parametrize("kind", list(_EXECUTORS))
@pytest.mark.parametrize("fault", ["full", pytest.param("read-only", marks=pytest.mark.slow)])
def test_evaluations_that_cannot_write_fail_no_trial(
    tmp_path: Path, small_disk: Path, wanted: list[Any], kind: str, fault: str
) -> None:
    """The database has room for the result of each, also for a failure."""
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
    with pytest.raises(PlaceError, match="free space or choose a writable folder") as error:
        problem.search(**SMALL, storage=url, executor=executor).run(evaluate)
    assert "\n" not in str(error.value)
    stored = OptunaStore(url, problem.space()).load()
    assert all(trial.state == "complete" for trial in stored)
    assert bool(stored) == (fault == "full")
    begun.unlink()
    subprocess.run(["mount", "-o", "remount,rw,size=16m", str(small_disk)], check=True)
    result = problem.search(**SMALL, storage=url, executor=_EXECUTORS[kind]()).run(evaluate)
    assert problem.summary(result) == wanted
    assert not {trial.id for trial in stored} & set(begun.read_text().split())


def _state(pid: int) -> str:
    """Returns the state of a process: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.01)


def test_a_worker_that_is_stopped_for_a_while(tmp_path: Path, wanted: list[Any]) -> None:
    """In the middle of an evaluation, which then waits for nothing but SIGCONT."""
    finished: list[int] = []

    def evaluate(trial: Trial) -> float:
        if trial.number == 3:
            (tmp_path / "new").write_text(str(os.getpid()))
            (tmp_path / "new").rename(tmp_path / "pid")
            while not (tmp_path / "go").exists():
                time.sleep(0.01)
        return problem.evaluate(trial)

    def stop() -> list[int]:
        _until((tmp_path / "pid").exists)
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        _until(lambda: _state(pid) == "T")
        (tmp_path / "go").touch()
        _until(lambda: len(finished) == 7)  # of 8: the other worker has done the rest
        time.sleep(2)
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
    assert problem.summary(result) == wanted


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


def test_a_torn_database_is_one_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    search = problem.search(**SMALL, storage=url)
    trials = search.ask()
    search.tell(trials, [problem.evaluate(t) for t in trials])
    search.close()
    path = tmp_path / "search.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SearchError, match=r"search\.db"):
        problem.search(**SMALL, storage=url).run(problem.evaluate)
