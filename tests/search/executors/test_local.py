"""One contract for every executor."""

from __future__ import annotations

import errno
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import InProcess, LocalWorkers, SearchError, Trial
from fbnetv3.search.errors import PlaceError
from fbnetv3.search.executors.base import Executor
from tests.processes import Start
from tests.search import problem
from tests.search.executors.ray_clusters import ray_workers

Make = Callable[..., Any]
_WORKERS = {"local": LocalWorkers, "ray": ray_workers}
_EXECUTORS: dict[str, Callable[[], Executor]] = {
    "in process": InProcess,
    "1 worker": lambda: LocalWorkers(1),
    "2 workers": lambda: LocalWorkers(2),
    "ray, 1 worker": lambda: ray_workers(1),
    "ray, 2 workers": lambda: ray_workers(2),
}


@pytest.fixture(params=list(_EXECUTORS))
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    made = _EXECUTORS[request.param]()
    yield made
    made.close()


@pytest.fixture(params=list(_WORKERS))
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes executors with workers: ``make(count, threads=...)``."""
    made: list[Executor] = []

    def begin(*args: Any, **kwargs: Any) -> Executor:
        made.append(_WORKERS[request.param](*args, **kwargs))
        return made[-1]

    yield begin
    for executor in made:
        executor.close()


def _trials(count: int) -> list[Trial]:
    return [Trial(str(i), i, 0, {"x": i}) for i in range(count)]


def _run(executor: Executor, evaluate: object, count: int) -> dict[int, tuple]:
    found: dict[int, tuple] = {}

    def finished(trial: Trial, score: float | None, reason: str | None) -> None:
        assert trial.number not in found
        found[trial.number] = (score, reason, dict(trial.reports))

    executor.run(evaluate, _trials(count), finished)  # type: ignore[arg-type]
    return found


def test_the_contract(executor: Executor) -> None:
    def evaluate(trial: Trial) -> float | None:
        trial.report(1, 0.5)
        trial.report(2, float(trial.config["x"]))
        if trial.number == 1:
            raise RuntimeError("no\nmemory")
        return None if trial.number == 2 else 10.0 + trial.number

    found = _run(executor, evaluate, 5)
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert found[3] == (13.0, None, {1: 0.5, 2: 3.0})
    assert found[1][0] is None
    assert found[1][1].startswith("RuntimeError: no memory (")
    assert found[2][:2] == (None, "no score was returned")
    # once more, with the same workers where there are some
    assert len(_run(executor, evaluate, 2)) == 2


def test_further_trials_are_taken_while_others_run(executor: Executor) -> None:
    first, later = _trials(3)[:1], _trials(3)[1:]
    found: list[int] = []

    def finished(trial: Trial, score: float | None, reason: str | None) -> None:
        found.append(trial.number)

    executor.run(lambda trial: 1.0, first, finished, lambda: [later.pop(0)] if later else [])
    assert found == [0, 1, 2]


def test_a_full_disk_ends_the_run_and_fails_no_trial(executor: Executor) -> None:
    def evaluate(trial: Trial) -> float:
        if trial.number == 1:
            raise OSError(errno.ENOSPC, "No space left on device", "/a/b")
        return 1.0

    told: list[int] = []

    def finished(trial: Trial, score: float | None, reason: str | None) -> None:
        told.append(trial.number)

    with pytest.raises(PlaceError) as error:
        executor.run(evaluate, _trials(2), finished)
    assert 1 not in told
    assert "trial 1 can't be evaluated: [Errno 28] No space left on device" in str(error.value)
    assert "the same command goes on" in str(error.value)
    assert "\n" not in str(error.value)
    assert _run(executor, lambda trial: 1.0, 2)[1][0] == 1.0


def test_a_candidate_that_hangs_fails_alone(make: Make, tmp_path: Path) -> None:
    def evaluate(trial: Trial) -> float:
        (tmp_path / f"{trial.number}").write_text(str(os.getpid()))
        if trial.number == 1:
            time.sleep(600)
        if trial.number == 2:
            os.kill(os.getpid(), signal.SIGSTOP)
        return 1.0

    begin = time.monotonic()
    found = _run(make(2, timeout=15.0), evaluate, 4)
    assert time.monotonic() - begin < 300
    assert found[1] == found[2] == (None, "took longer than 15 s", {})
    assert [found[i][0] for i in (0, 3)] == [1.0] * 2
    assert all(_has_ended(int((tmp_path / name).read_text())) for name in "12")


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_that_cannot_be_meant(make: Make, timeout: float) -> None:
    with pytest.raises(SearchError, match="seconds above 0"):
        make(1, timeout=timeout)


def test_workers_stay(make: Make) -> None:
    workers = make(2)

    def evaluate(trial: Trial) -> float:
        time.sleep(0.05)
        return float(os.getpid())

    pids = {v[0] for _ in range(3) for v in _run(workers, evaluate, 4).values()}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids


def test_a_killed_worker_costs_one_attempt(make: Make, tmp_path: Path) -> None:
    def evaluate(trial: Trial) -> float:
        mark = tmp_path / f"{trial.number}"
        if trial.number == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if trial.number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    found = _run(make(1), evaluate, 4)
    assert found[1][:2] == (1.0, None)
    assert found[2][:2] == (None, "its worker was ended by SIGKILL, twice")
    assert found[0][0] == found[3][0] == 1.0


def test_workers_may_load_data_in_processes_of_their_own(make: Make) -> None:
    def evaluate(trial: Trial) -> float:
        from torch.utils.data import DataLoader

        return float(sum(int(batch) for batch in DataLoader(range(4), num_workers=1)))  # type: ignore[arg-type]

    assert _run(make(1), evaluate, 2) == {0: (6.0, None, {}), 1: (6.0, None, {})}


def _with_child(pids: Path) -> None:
    """Starts a process as a data loader does, in a group of its own; notes this one and that."""

    def wait() -> None:
        os.setpgid(0, 0)
        time.sleep(600)

    child = multiprocessing.get_context("fork").Process(target=wait, daemon=True)
    child.start()
    pids.write_text(f"{os.getpid()} {child.pid}")


def _noted(pids: Path) -> list[int]:
    """Waits for what :func:`_with_child` notes."""
    deadline = time.monotonic() + 90
    while not (pids.exists() and len(pids.read_text().split()) == 2):
        assert time.monotonic() < deadline, "no evaluation began"
        time.sleep(0.05)
    return [int(pid) for pid in pids.read_text().split()]


@pytest.mark.parametrize("victim", ["worker", "who started it"])
def test_children_end_with_a_worker_that_is_killed(
    make: Make, tmp_path: Path, victim: str, request: pytest.FixtureRequest
) -> None:
    if victim != "worker" and request.node.callspec.params["make"] == "local":
        pytest.skip("that is this process; see the next test")

    def evaluate(trial: Trial) -> float:
        if not (tmp_path / "pids").exists():
            _with_child(tmp_path / "pids")
            os.kill(os.getpid() if victim == "worker" else os.getppid(), signal.SIGKILL)
            time.sleep(600)
        return 1.0

    assert _run(make(1), evaluate, 1)[0][0] == 1.0
    assert all(_has_ended(pid) for pid in _noted(tmp_path / "pids"))


SCRIPT = """
import sys, time
from pathlib import Path
from fbnetv3.search import LocalWorkers, Trial
from tests.search.executors.test_local import _with_child

def evaluate(trial):
    _with_child(Path(sys.argv[1]))
    time.sleep(600)
    return 1.0

if __name__ == "__main__":
    LocalWorkers(1).run(evaluate, [Trial("0", 0, 0, {})], print)
"""


@pytest.mark.parametrize("is_stopped", [False, True], ids=["running", "stopped"])
def test_workers_and_children_end_with_a_search_that_is_killed(
    tmp_path: Path, start: Start, is_stopped: bool
) -> None:
    (tmp_path / "search.py").write_text(SCRIPT)
    search = start([sys.executable, "search.py", str(tmp_path / "pids")])
    worker, child = _noted(tmp_path / "pids")
    if is_stopped:
        os.kill(worker, signal.SIGSTOP)
    search.kill()
    search.wait()
    assert _has_ended(worker)
    assert _has_ended(child)


def test_a_second_interrupt_ends_workers_that_save(make: Make, tmp_path: Path) -> None:
    def evaluate(trial: Trial) -> float:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # saves something, for ever
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(600)
        return 1.0

    def interrupts() -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.05)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.0)

    # a shell's background jobs begin with it ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupts)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            _run(make(1), evaluate, 1)
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert _has_ended(int((tmp_path / "pid").read_text()))


def test_an_interrupt_lets_workers_save(make: Make, tmp_path: Path) -> None:
    def evaluate(trial: Trial) -> float:
        def save(number: int, frame: object) -> None:
            (tmp_path / f"saved{trial.number}").touch()
            raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, save)
        (tmp_path / f"{trial.number}").write_text(str(os.getpid()))
        trial.report(1, 0.5)
        time.sleep(600)
        return 1.0

    seen: list[int] = []
    trials = _trials(2)

    def stop(epoch: int, score: float) -> None:
        seen.append(epoch)
        if len(seen) == 2:  # both work
            raise KeyboardInterrupt

    for trial in trials:
        trial.on_report = stop
    with pytest.raises(KeyboardInterrupt):
        make(2).run(evaluate, trials, lambda *result: None)
    assert (tmp_path / "saved0").exists()
    assert (tmp_path / "saved1").exists()
    assert all(_has_ended(int((tmp_path / name).read_text())) for name in "01")


def _has_ended(pid: int) -> bool:
    """Whether a process is gone, or goes within a moment."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", ["in process", "2 workers", "ray, 2 workers"])
def test_a_search_costs_little_beside_its_trainings(name: str, tmp_path: Path) -> None:
    """Proposals, predictors, storage and workers: under 5% of candidates of 10 seconds.

    In CPU seconds of the searching process: what else the machine does must not matter.
    """

    def evaluate(trial: Trial) -> float:
        time.sleep(0.02)
        return problem.evaluate(trial)

    executor = _EXECUTORS[name]()
    changes = {"batch_size": 16, "iterations": 3, "finalists": 4, "early_stop_threshold": None}
    begin = time.process_time()
    url = f"sqlite:///{tmp_path / 'search.db'}"
    result = problem.search(executor=executor, storage=url, **changes).run(evaluate)
    overhead = (time.process_time() - begin) / len(result.trials)
    print(f"{overhead:.3f} s per candidate")
    assert overhead < 0.05 * 10


def test_workers_have_the_threads_that_are_asked_for(make: Make) -> None:
    workers = make(1, threads=3)
    found = _run(workers, lambda trial: float(os.environ["OMP_NUM_THREADS"]), 1)
    assert found[0][0] == 3.0


def test_workers_are_in_the_same_folder(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_text("7")
    assert _run(make(1), lambda trial: float(Path("here").read_text()), 1)[0][0] == 7.0


def test_an_evaluation_that_cannot_be_unpacked_is_a_reason(make: Make) -> None:
    class Broken:
        def __reduce__(self) -> tuple:
            return int, ("not a number",)

    found = _run(make(1), Broken(), 1)
    assert "can't be started in a worker: ValueError" in found[0][1]


@pytest.mark.parametrize("count", [0, -1])
def test_no_workers(make: Make, count: int) -> None:
    with pytest.raises(SearchError, match="must be >= 1"):
        make(count)


@functools.cache
def _alone() -> tuple[str, list[tuple]]:
    found = problem.search(finalists=2).run(problem.evaluate)
    return found.best.id, problem.summary(found)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("local", 1),
        ("local", 2),
        pytest.param("local", 8, marks=pytest.mark.slow),
        ("ray", 1),
        pytest.param("ray", 2, marks=pytest.mark.slow),
        pytest.param("ray", 8, marks=pytest.mark.slow),
    ],
)
def test_a_search_is_the_same_with_workers(kind: str, count: int) -> None:
    workers = _WORKERS[kind](count)  # first, since it may skip
    found = problem.search(finalists=2, executor=workers).run(problem.evaluate)
    assert (found.best.id, problem.summary(found)) == _alone()
