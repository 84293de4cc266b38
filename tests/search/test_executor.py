"""One contract for every executor."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fbnetv3.search import InProcess, LocalWorkers, SearchError, Trial
from fbnetv3.search.executor import Executor
from tests.search import problem


@pytest.fixture(params=["in process", "1 worker", "2 workers"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    made = {"1": LocalWorkers(1), "2": LocalWorkers(2), "i": InProcess()}[request.param[0]]
    yield made
    made.close()


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


def test_workers_stay(tmp_path: Path) -> None:
    workers = LocalWorkers(2)

    def evaluate(trial: Trial) -> float:
        time.sleep(0.05)
        return float(os.getpid())

    pids = {v[0] for _ in range(3) for v in _run(workers, evaluate, 4).values()}
    workers.close()
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids


def test_a_killed_worker_costs_one_attempt(tmp_path: Path) -> None:
    def evaluate(trial: Trial) -> float:
        mark = tmp_path / f"{trial.number}"
        if trial.number == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if trial.number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    workers = LocalWorkers(1)
    found = _run(workers, evaluate, 4)
    workers.close()
    assert found[1][:2] == (1.0, None)
    assert found[2][:2] == (None, "its worker was ended by SIGKILL, twice")
    assert found[0][0] == found[3][0] == 1.0


def test_a_second_interrupt_ends_workers_that_save(tmp_path: Path) -> None:
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
            _run(LocalWorkers(1), evaluate, 1)
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.slow
@pytest.mark.parametrize("made", [InProcess, lambda: LocalWorkers(2)], ids=["alone", "workers"])
def test_a_search_costs_little_beside_its_trainings(made: Callable, tmp_path: Path) -> None:
    """Proposals, predictors, storage and workers: under 5% of candidates of 10 seconds.

    In CPU seconds of the searching process: what else the machine does must not matter.
    """

    def evaluate(trial: Trial) -> float:
        time.sleep(0.02)
        return problem.evaluate(trial)

    executor = made()
    changes = {"batch_size": 16, "iterations": 3, "finalists": 4, "early_stop_threshold": None}
    begin = time.process_time()
    url = f"sqlite:///{tmp_path / 'search.db'}"
    result = problem.search(executor=executor, storage=url, **changes).run(evaluate)
    overhead = (time.process_time() - begin) / len(result.trials)
    print(f"{overhead:.3f} s per candidate")
    assert overhead < 0.05 * 10


def test_workers_have_the_threads_that_are_asked_for() -> None:
    workers = LocalWorkers(1, threads=1)
    found = _run(workers, lambda trial: float(os.environ["OMP_NUM_THREADS"]), 1)
    workers.close()
    assert found[0][0] == 1.0


def test_an_evaluation_that_cannot_be_unpacked_is_a_reason() -> None:
    class Broken:
        def __reduce__(self) -> tuple:
            return int, ("not a number",)

    workers = LocalWorkers(1)
    found = _run(workers, Broken(), 1)
    workers.close()
    assert "can't be started in a worker: ValueError" in found[0][1]


@pytest.mark.parametrize("count", [0, -1])
def test_no_workers(count: int) -> None:
    with pytest.raises(SearchError, match="must be >= 1"):
        LocalWorkers(count)


def test_a_search_is_the_same_with_workers() -> None:
    alone = problem.search(finalists=0).run(problem.evaluate)
    workers = problem.search(finalists=0, executor=LocalWorkers(2)).run(problem.evaluate)
    assert problem.summary(workers) == problem.summary(alone)
