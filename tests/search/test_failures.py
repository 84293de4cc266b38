"""Failures in a row end a search; failed trials can be put back, and run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fbnetv3.search import FloatRange, JointNAS, SearchError, SearchSpace, Trial
from fbnetv3.search.executors.base import Finished
from fbnetv3.search.executors.device_faults import DATA, DEVICE
from fbnetv3.search.failures import FailureLimit
from fbnetv3.search.storage.batch_log import BatchLog
from tests.search.executors.running import make_trials

pytestmark = pytest.mark.usefixtures("short_training")

_DEVICE_ERROR = torch.AcceleratorError("CUDA error: device-side assert triggered")


def _search(path: Path | None = None, **changes: Any) -> JointNAS:
    space = SearchSpace([FloatRange("x", 0.0, 1.0), FloatRange("y", 0.0, 1.0)])
    settings: dict[str, Any] = {
        "batch_size": 6,
        "iterations": 2,
        "finalists": 2,
        "pool_size": 64,
        "predictor": "random",
        "early_stop_threshold": None,
    }
    storage = None if path is None else f"sqlite:///{path / 's.db'}"
    return JointNAS(space, storage=storage, **{**settings, **changes})


def _score(trial: Trial) -> float:
    return float(trial.config["x"])


def _failing(error: Exception, fails: Callable[[int], bool]) -> Callable[[Trial], float]:
    def evaluate(trial: Trial) -> float:
        if fails(trial.number):
            raise error
        return _score(trial)

    return evaluate


def _outcome(search: JointNAS) -> list[tuple[Any, ...]]:
    trials = search.result().trials
    return [(t.number, t.id, t.batch, t.state, t.score, t.predicted) for t in trials]


@pytest.mark.parametrize("first", [0, 3, 5, 9])
def test_a_broken_device_ends_the_search_which_resumes_as_if_nothing_had_happened(
    tmp_path: Path, first: int
) -> None:
    undisturbed = _search()
    undisturbed.run(_score)
    evaluated: list[int] = []

    def evaluate(trial: Trial) -> float:
        evaluated.append(trial.number)
        return _score(trial)

    with pytest.raises(SearchError, match="device error on this process: AcceleratorE") as error:
        _search(tmp_path).run(_failing(_DEVICE_ERROR, lambda number: number >= first))
    assert "5 candidates" in str(error.value)
    assert "SEARCH.STOP_AFTER_FAILURES 0" in str(error.value)
    assert all(t.state == "complete" for t in _search(tmp_path).result().trials)
    assert len(_search(tmp_path).result().trials) == first
    again = _search(tmp_path)
    again.run(evaluate)
    assert evaluated == list(range(first, 14))
    assert _outcome(again) == _outcome(undisturbed)


def test_the_same_search_object_continues_after_it_was_ended() -> None:
    search, undisturbed = _search(), _search()
    with pytest.raises(SearchError, match="in a row failed because of their device or data"):
        search.run(_failing(_DEVICE_ERROR, lambda number: number >= 4))
    search.run(_score)
    undisturbed.run(_score)
    assert _outcome(search) == _outcome(undisturbed)


@pytest.mark.parametrize(
    "fails",
    [lambda number: number % 5 != 0, lambda number: 1 <= number <= 4],
    ids=["four in a row, often", "four in a row"],
)
def test_fewer_failures_in_a_row_count_as_failures(fails: Callable[[int], bool]) -> None:
    search = _search()
    search.run(_failing(_DEVICE_ERROR, fails))
    failed = [t.number for t in search.trials if t.state == "failed"]
    assert failed == [number for number in range(14) if fails(number)]


def test_candidates_that_fail_by_themselves_end_no_search_with_scores() -> None:
    search = _search()
    search.run(_failing(ValueError("x"), lambda number: number > 0))
    assert sum(t.state == "failed" for t in search.trials) == 13


def test_a_search_whose_first_candidates_all_fail_ends_then(tmp_path: Path) -> None:
    evaluated: list[int] = []

    def evaluate(trial: Trial) -> float:
        evaluated.append(trial.number)
        raise KeyError("typo")

    with pytest.raises(
        SearchError, match="5 candidates failed, among them the first ones that were submitted; the"
    ):
        _search(tmp_path).run(evaluate)
    assert evaluated == [0, 1, 2, 3, 4]
    assert _search(tmp_path).run(_score).best.state == "complete"
    with pytest.raises(SearchError, match="none of 12 trials has a score"):
        _ = _search(stop_after_failures=0).run(evaluate).best


def _result(trial: Trial, score: float | None = None, fault: str | None = None) -> Finished:
    return Finished(trial, score, None if score is not None else "why", fault, "GPU 3")


def test_quick_failures_beside_a_slow_training_end_no_search() -> None:
    limit, trials = FailureLimit(2, has_scores=False), make_trials(4)
    for trial in trials:
        limit.submitted(trial.number)
    for trial in trials[1:]:
        limit.finished(_result(trial))
    assert limit.problem() is None  # the first trial still runs
    limit.finished(_result(trials[0]))
    assert limit.problem() is not None
    limit.finished(_result(trials[0], score=1.0))
    assert limit.problem() is None


def test_the_limit_names_place_and_cause() -> None:
    limit, trials = FailureLimit(2, has_scores=True), make_trials(3)
    limit.finished(_result(trials[0], fault=DEVICE))
    limit.finished(_result(trials[1], fault=DATA))
    problem = limit.problem()
    assert problem is not None
    assert (
        "trial 1: data error on GPU 3: why. These candidates do not count as failed" in problem[0]
    )
    assert problem[1] == {0, 1}


@pytest.mark.parametrize("value", [-1, 1.5, "five"])
def test_a_limit_that_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(SearchError, match="stop_after_failures"):
        _search(stop_after_failures=value)


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_trial_that_is_put_back_keeps_its_reason_and_changes_no_stored_batch(
    tmp_path: Path, ahead: int
) -> None:
    settings = {"predictor": "default", "ahead": ahead}
    search = _search(tmp_path, **settings)
    first = search.run(_failing(ValueError("a bug"), lambda number: number in (2, 7)))
    (failed, _) = [t for t in first.trials if t.state == "failed"]
    again = _search(tmp_path, **settings)
    again.retry(failed)
    assert [trial.number for trial in again.ask()] == [2]
    again.close()
    evaluated: list[int] = []

    def evaluate(trial: Trial) -> float:
        evaluated.append(trial.number)
        return _score(trial)

    result = _search(tmp_path, **settings).run(evaluate)
    assert evaluated == [2]
    (trial,) = [t for t in result.trials if t.number == 2]
    assert trial.state == "complete"
    assert trial.earlier_reasons == [failed.reason]
    assert [t.id for t in result.trials] == [t.id for t in first.trials]
    assert [c.trials for c in result.report_cards][-1] == [c.trials for c in first.report_cards][
        -1
    ] + 1
    reopened = _search(tmp_path, **settings).result()
    assert [str(card) for card in reopened.report_cards] == [
        str(card) for card in result.report_cards
    ]


def test_a_batch_that_was_cut_off_is_proposed_as_before_after_a_retry(tmp_path: Path) -> None:
    settings = {"predictor": "default", "batch_size": 8, "finalists": 0}
    expected = _search(**settings)
    expected.run(_failing(ValueError("a bug"), lambda number: number == 2))

    def stop_at_ten(trial: Trial) -> float:
        if trial.number == 10:
            raise KeyboardInterrupt
        return _failing(ValueError("a bug"), lambda number: number == 2)(trial)

    with pytest.raises(KeyboardInterrupt):
        _search(tmp_path, **settings).run(stop_at_ten)
    search = _search(tmp_path, **settings)
    assert [t.number for t in search.retry_failed("A BUG")] == [2]
    result = search.run(_score)
    assert [t.id for t in result.trials] == [t.id for t in expected.result().trials]
    assert all(t.state == "complete" for t in result.trials)


def test_failed_trials_are_chosen_by_their_reason(tmp_path: Path) -> None:
    def evaluate(trial: Trial) -> float:
        if trial.number in (1, 2):
            raise MemoryError if trial.number == 1 else ValueError("a bug")
        return _score(trial)

    search = _search(tmp_path)
    assert search.retry_failed() == []
    search.run(evaluate)
    with pytest.raises(SearchError, match="failed for a reason like 'disk'; reasons of the 2 fail"):
        search.retry_failed("disk")
    for odd in (None, 3):
        with pytest.raises(SearchError, match="is not allowed"):
            search.retry(odd)  # type: ignore[arg-type]
        with pytest.raises(SearchError, match="is not allowed; give a string"):
            search.retry_failed(odd)  # type: ignore[arg-type]
    with pytest.raises(SearchError, match="trial 0 has not failed"):
        search.retry(search.trials[0])
    assert [t.number for t in search.retry_failed("out of memory")] == [1]
    assert [t.number for t in search.retry_failed("")] == [2]
    assert [t.number for t in search.ask()] == [1, 2]


@pytest.mark.parametrize("ahead", [0, 3])
@pytest.mark.parametrize(
    ("retries", "iterations", "sizes"),
    [
        (True, 2, [6, 6, 2]),  # the batch of finalists was empty, since nothing had a score
        (True, 3, [6, 6, 6, 2]),
        (False, 3, [6, 6, 6, 2]),  # the failures stay
        (False, 2, [6, 6]),  # no finalist can be chosen without a score
    ],
)
def test_a_search_without_scores_goes_on(
    tmp_path: Path, ahead: int, retries: bool, iterations: int, sizes: list[int]
) -> None:
    options = {"ahead": ahead, "stop_after_failures": 0}
    _search(tmp_path, **options).run(_failing(ValueError("a bug"), lambda number: True))
    search = _search(tmp_path, iterations=iterations, **options)
    if retries:
        assert len(search.retry_failed()) == 12
    result = search.run(_score)
    assert [sum(t.batch == i for t in result.trials) for i in range(len(sizes))] == sizes
    assert len(result.trials) == sum(sizes)
    finals = [t.number for t in result.trials if t.stage == "fine"]
    assert len(finals) == (2 if len(sizes) == iterations + 1 else 0)
    failed = [t.number for t in result.trials if t.state == "failed"]
    assert failed == ([] if retries else list(range(12)))
    again = _search(tmp_path, iterations=iterations, **options)
    assert again.ask() == []
    assert _outcome(again) == _outcome(search)


def test_an_enqueued_candidate_takes_a_place_of_a_batch_that_was_empty(tmp_path: Path) -> None:
    _search(tmp_path, stop_after_failures=0).run(_failing(ValueError("x"), lambda number: True))
    search = _search(tmp_path, iterations=3)
    search.enqueue({"x": 0.25, "y": 0.75}, "a guess")
    trial = search.run(_score).trials[12]
    assert (trial.batch, trial.stage, trial.enqueued) == (2, "coarse", "a guess")
    assert _outcome(_search(tmp_path, iterations=3)) == _outcome(search)


def test_a_trial_may_fail_and_be_put_back_several_times(tmp_path: Path) -> None:
    for text in ("first", "second"):
        search = _search(tmp_path)
        search.retry_failed()
        search.run(_failing(ValueError(text), lambda number: number == 3))
    search = _search(tmp_path)
    search.retry_failed()
    search.run(_score)
    (trial,) = [t for t in _search(tmp_path).result().trials if t.number == 3]
    assert trial.state == "complete"
    assert [r.split(" (")[0] for r in trial.earlier_reasons] == [
        "ValueError: first",
        "ValueError: second",
    ]


def test_the_log_drops_batches_with_failures_that_were_put_back(tmp_path: Path) -> None:
    def write(search: JointNAS) -> None:
        log.write(search.trials, search.settings, search.order, None, search.identity)

    log = BatchLog(tmp_path / "log")
    search = _search(tmp_path)
    search.run(_failing(ValueError("a bug"), lambda number: number == 2))
    write(search)
    search.retry_failed()
    log.drop_outdated(search.earlier_failures)
    assert sorted(p.name[:9] for p in (tmp_path / "log").iterdir()) == ["batch_001", "batch_002"]
    search.run(_score)
    log.drop_outdated(search.earlier_failures)
    write(search)
    log.check(search.trials)
    (tmp_path / "restored").mkdir()
    restored = _search(tmp_path / "restored")
    restored.restore(log.read())
    assert _outcome(restored) == _outcome(search)
    assert restored.result().trials[2].earlier_reasons


def test_odd_records_of_retries_are_refused(tmp_path: Path) -> None:
    search = _search(tmp_path)
    search.run(_score)
    store = search._batches._store
    for value in (3, [[1, 2]], [["a", "b"]], [[True, "b"]], {"a": 1}):
        store.set_attr("retries_of_trial_2", json.loads(json.dumps(value)))
        with pytest.raises(SearchError, match="retries_of_trial_2"):
            _search(tmp_path).result()
