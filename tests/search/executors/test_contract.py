"""The contract that every executor keeps, in this process, in local workers and on Ray."""

from __future__ import annotations

import errno
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import SearchError, Trial
from fbnetv3.search.errors import StorageUnavailableError
from fbnetv3.search.executors.base import Executor, Finished
from tests.search import problem
from tests.search.executors.running import (
    evaluate_all,
    has_ended,
    make_trials,
    read_pids,
    start_child,
)
from tests.search.executors.shared import WITHOUT_WORKERS, WORKERS

Make = Callable[..., Any]
_SHARED: dict[str, tuple[str, int]] = {
    f"{kind}, {count}": (kind, count) for kind in WORKERS for count in (1, 2)
}


@pytest.fixture(params=[*WITHOUT_WORKERS, *_SHARED])
def executor(request: pytest.FixtureRequest, shared_executors: Any) -> Executor:
    """An executor of each kind, whose workers may have served other tests."""
    if request.param in WITHOUT_WORKERS:
        return WITHOUT_WORKERS[request.param]()
    return shared_executors(*_SHARED[request.param])


@pytest.fixture(params=list(WORKERS))
def shared(request: pytest.FixtureRequest, shared_executors: Any) -> Callable[[int], Executor]:
    """Returns an executor with so many workers, which may have served other tests."""
    return functools.partial(shared_executors, request.param)


@pytest.fixture(params=list(WORKERS))
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes executors with worker processes: ``make(count, threads=...)``."""
    executors: list[Executor] = []

    def construct(*args: Any, **kwargs: Any) -> Executor:
        executors.append(WORKERS[request.param](*args, **kwargs))
        return executors[-1]

    yield construct
    for executor in executors:
        executor.close()


def _by_number(results: list[Finished]) -> dict[int, tuple[float | None, str | None]]:
    """Returns score and reason of failure by trial number; no trial may finish twice."""
    numbers = [finished.trial.number for finished in results]
    assert len(set(numbers)) == len(numbers)
    return {finished.trial.number: (finished.score, finished.reason) for finished in results}


def test_scores_reports_and_failures_are_returned(executor: Executor) -> None:
    def evaluate(trial: Trial) -> float | None:
        trial.report(1, 0.5)
        trial.report(2, float(trial.config["x"]))
        if trial.number == 1:
            raise RuntimeError("no\nmemory")
        return None if trial.number == 2 else 10.0 + trial.number

    trials = make_trials(5)
    results = _by_number(evaluate_all(executor, evaluate, trials))
    assert sorted(results) == [0, 1, 2, 3, 4]
    assert results[3] == (13.0, None)
    assert trials[3].reports == {1: 0.5, 2: 3.0}
    assert results[1][0] is None
    assert str(results[1][1]).startswith("RuntimeError: no memory (")
    assert results[2] == (None, "no score was returned")
    # The same workers, if there are any, evaluate further trials.
    assert len(evaluate_all(executor, evaluate, make_trials(2))) == 2


def test_trials_can_be_submitted_while_others_run(executor: Executor) -> None:
    trials = make_trials(3)
    executor.start(lambda trial: 1.0)
    executor.submit(trials.pop(0))
    order: list[int] = []
    while finished := executor.wait():
        order += [item.trial.number for item in finished]
        if trials:
            executor.submit(trials.pop(0))
    assert order == [0, 1, 2]


def test_reports_arrive_in_the_searching_process(executor: Executor) -> None:
    (trial,) = make_trials(1)
    pids: list[int] = []
    trial.on_report = lambda epoch, score: pids.append(os.getpid())

    def evaluate(trial: Trial) -> float:
        trial.report(1, 0.5)
        return 1.0

    evaluate_all(executor, evaluate, [trial])
    assert pids == [os.getpid()]


def test_a_full_disk_ends_the_run_and_fails_no_trial(executor: Executor) -> None:
    def evaluate(trial: Trial) -> float:
        if trial.number == 1:
            raise OSError(errno.ENOSPC, "No space left on device", "/a/b")
        return 1.0

    results: list[Finished] = []
    with pytest.raises(StorageUnavailableError) as error:
        evaluate_all(executor, evaluate, make_trials(2), results)
    assert 1 not in _by_number(results)
    assert "trial 1 cannot be evaluated: [Errno 28] No space left on device" in str(error.value)
    assert "the same command continues the search" in str(error.value)
    assert "\n" not in str(error.value)
    results = evaluate_all(executor, lambda trial: 1.0, make_trials(2))
    assert _by_number(results)[1] == (1.0, None)


def test_a_candidate_that_hangs_fails_alone(make: Make, tmp_path: Path) -> None:
    def evaluate(trial: Trial) -> float:
        (tmp_path / f"{trial.number}").write_text(str(os.getpid()))
        if trial.number == 1:
            time.sleep(600)
        if trial.number == 2:
            os.kill(os.getpid(), signal.SIGSTOP)
        return 1.0

    start = time.monotonic()
    results = _by_number(evaluate_all(make(2, timeout=8.0), evaluate, make_trials(4)))
    assert time.monotonic() - start < 300
    assert results[1] == results[2] == (None, "took longer than 8 s")
    assert results[0] == results[3] == (1.0, None)
    assert all(has_ended(int((tmp_path / name).read_text())) for name in "12")


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_that_is_not_positive_is_refused(make: Make, timeout: float) -> None:
    with pytest.raises(SearchError, match="seconds above 0"):
        make(1, timeout=timeout)


def test_workers_are_kept_between_batches(shared: Callable[[int], Executor]) -> None:
    workers = shared(2)

    def evaluate(trial: Trial) -> float:
        time.sleep(0.05)
        return float(os.getpid())

    pids = {r.score for _ in range(3) for r in evaluate_all(workers, evaluate, make_trials(4))}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids


def test_a_trial_is_retried_after_one_death_of_its_worker(
    shared: Callable[[int], Executor], tmp_path: Path
) -> None:
    def evaluate(trial: Trial) -> float:
        mark = tmp_path / f"{trial.number}"
        if trial.number == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if trial.number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    results = _by_number(evaluate_all(shared(1), evaluate, make_trials(4)))
    assert results[1] == (1.0, None)
    assert results[2] == (None, "its worker was ended by SIGKILL; this was the second attempt")
    assert results[0] == results[3] == (1.0, None)


def test_workers_may_start_data_loader_processes(shared: Callable[[int], Executor]) -> None:
    def evaluate(trial: Trial) -> float:
        from torch.utils.data import DataLoader

        return float(sum(int(batch) for batch in DataLoader(range(4), num_workers=1)))  # type: ignore[arg-type]

    results = _by_number(evaluate_all(shared(1), evaluate, make_trials(2)))
    assert results == {0: (6.0, None), 1: (6.0, None)}


@pytest.mark.parametrize("victim", ["worker", "actor"])
def test_children_end_with_a_worker_that_is_killed(
    make: Make, tmp_path: Path, victim: str, request: pytest.FixtureRequest
) -> None:
    if victim == "actor" and request.node.callspec.params["make"] == "local":
        pytest.skip("local workers have no actor; test_local.py kills the searching process")

    def evaluate(trial: Trial) -> float:
        if not (tmp_path / "pids").exists():
            start_child(tmp_path / "pids")
            os.kill(os.getpid() if victim == "worker" else os.getppid(), signal.SIGKILL)
            time.sleep(600)
        return 1.0

    (finished,) = evaluate_all(make(1), evaluate, make_trials(1))
    assert finished.score == 1.0
    assert all(has_ended(pid) for pid in read_pids(tmp_path / "pids"))


def test_a_second_interrupt_ends_workers_that_save(make: Make, tmp_path: Path) -> None:
    def evaluate(trial: Trial) -> float:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a checkpoint that takes for ever
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(600)
        return 1.0

    def interrupt_twice() -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.05)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.0)

    # In a shell's background job SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt_twice)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            evaluate_all(make(1), evaluate, make_trials(1))
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert has_ended(int((tmp_path / "pid").read_text()))


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

    epochs: list[int] = []
    trials = make_trials(2)

    def interrupt(epoch: int, score: float) -> None:
        epochs.append(epoch)
        if len(epochs) == 2:  # both workers are evaluating
            raise KeyboardInterrupt

    for trial in trials:
        trial.on_report = interrupt
    with pytest.raises(KeyboardInterrupt):
        evaluate_all(make(2), evaluate, trials)
    assert (tmp_path / "saved0").exists()
    assert (tmp_path / "saved1").exists()
    assert all(has_ended(int((tmp_path / name).read_text())) for name in "01")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*WITHOUT_WORKERS, *WORKERS])
def test_a_search_costs_little_beside_its_trainings(kind: str, tmp_path: Path) -> None:
    """Proposals, predictors, storage and workers cost under 5% of trainings of 10 seconds.

    CPU seconds of the searching process are compared, since other programs may be running.
    """

    def evaluate(trial: Trial) -> float:
        time.sleep(0.02)
        return problem.evaluate(trial)

    executor = WORKERS[kind](2) if kind in WORKERS else WITHOUT_WORKERS[kind]()
    changes = {"batch_size": 8, "iterations": 3, "finalists": 4, "early_stop_threshold": None}
    start = time.process_time()
    url = f"sqlite:///{tmp_path / 'search.db'}"
    result = problem.search(executor=executor, storage=url, **changes).run(evaluate)
    overhead = (time.process_time() - start) / len(result.trials)
    print(f"{overhead:.3f} s per candidate")
    assert overhead < 0.05 * 10


def test_workers_run_in_the_folder_and_with_the_threads_of_the_executor(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_text("7")

    def evaluate(trial: Trial) -> float:
        return 10 * float(Path("here").read_text()) + float(os.environ["OMP_NUM_THREADS"])

    (finished,) = evaluate_all(make(1, threads=3), evaluate, make_trials(1))
    assert finished.score == 73.0


def test_an_evaluation_that_cannot_be_unpickled_is_one_error(make: Make) -> None:
    class Broken:
        def __reduce__(self) -> tuple:
            return int, ("not a number",)

    results: list[Finished] = []
    with pytest.raises(SearchError, match="unpickle the evaluation function: ValueError") as error:
        evaluate_all(make(1), Broken(), make_trials(2), results)  # type: ignore[arg-type]
    assert results == []
    assert "\n" not in str(error.value)


def test_an_evaluation_that_cannot_be_pickled_is_one_error_before_anything_starts(
    make: Make,
) -> None:
    lock = threading.Lock()
    with pytest.raises(SearchError, match="cannot be sent to worker processes") as error:
        make(1).start(lambda trial: float(lock.locked()))
    assert "\n" not in str(error.value)


def test_a_time_limit_counts_from_the_start_of_the_evaluation(make: Make) -> None:
    class Slow:
        """An evaluation whose modules take longer to import than it may take itself."""

        def __reduce__(self) -> tuple:
            return _import_slowly, ()

    results = _by_number(evaluate_all(make(1, timeout=1.5), Slow(), make_trials(2)))  # type: ignore[arg-type]
    assert results == {0: (1.0, None), 1: (1.0, None)}


def _import_slowly() -> Callable[[Trial], float]:
    time.sleep(2.5)
    return lambda trial: 1.0


def test_what_cannot_be_sent_fails_its_trial_alone(executor: Executor) -> None:
    def evaluate(trial: Trial) -> object:
        import torch

        values = (torch.tensor(1.5, requires_grad=True), (x for x in [1.0]), (0.9, 12.5), 2.0)
        return values[trial.number]

    results = _by_number(evaluate_all(executor, evaluate, make_trials(4)))
    assert (results[0], results[3]) == ((1.5, None), (2.0, None))
    assert str(results[1][1]).startswith("the score is <generator object")
    assert str(results[2][1]).startswith("the score is the tuple (0.9, 12.5), not a number; return")


def test_an_evaluation_changes_no_trial_of_the_search(executor: Executor) -> None:
    def evaluate(trial: Trial) -> float:
        trial.config.clear()
        trial.finish(3.0)
        return 1.0

    trials = make_trials(2)
    before = [trial.copy() for trial in trials]
    evaluate_all(executor, evaluate, trials)
    assert trials == before


@pytest.mark.parametrize("count", [0, -1])
def test_fewer_than_one_worker_is_refused(make: Make, count: int) -> None:
    with pytest.raises(SearchError, match="must be >= 1"):
        make(count)


@functools.cache
def _search_in_process() -> tuple[str, list[tuple]]:
    result = problem.search(batch_size=4, finalists=2).run(problem.evaluate)
    return result.best.id, problem.summary(result)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        pytest.param(
            kind, count, marks=[pytest.mark.slow] * (count > (2 if kind == "local" else 1))
        )
        for kind in WORKERS
        for count in (1, 2, 4)  # one by one, half a batch, a whole batch
    ],
)
def test_a_search_is_the_same_with_workers(kind: str, count: int) -> None:
    workers = WORKERS[kind](count)  # constructed first because it may skip the test
    result = problem.search(batch_size=4, finalists=2, executor=workers).run(problem.evaluate)
    assert (result.best.id, problem.summary(result)) == _search_in_process()
