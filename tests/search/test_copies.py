"""Nothing that an evaluation, a callback or a caller does to a trial reaches the search."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest

from fbnetv3.search import Choice, FloatRange, JointNAS, SearchError, SearchSpace, Trial
from fbnetv3.search.trial import Event

SPACE = SearchSpace([FloatRange("x", 0.0, 1.0), Choice("c", ("a", "b"))])


def _search(**changes: Any) -> JointNAS:
    settings = {"pool_size": 256, "batch_size": 4, "iterations": 1, "finalists": 0}
    return JointNAS(SPACE, **{**settings, **changes})


def _pop(trial: Trial) -> None:
    trial.config.pop("c")


def _cast(trial: Trial) -> None:
    trial.config["x"] = np.float32(trial.config["x"])


def _clear(trial: Trial) -> None:
    trial.config.clear()
    trial.reports.clear()
    trial.statistics["macs"] = np.nan


def _decide(trial: Trial) -> None:
    trial.finish(99.0)
    trial.id, trial.number, trial.batch = "other", 77, 9


def _forge_reports(trial: Trial) -> None:
    trial.reports[-3] = "text"  # type: ignore[assignment, index]


@pytest.mark.parametrize("change", [_pop, _cast, _clear, _decide, _forge_reports])
def test_changes_of_a_trial_have_no_effect(change: Any) -> None:
    def quality(trial: Trial) -> float:
        trial.report(1, 0.5)
        return -float(trial.config["x"])

    def evaluate(trial: Trial) -> float:
        score = quality(trial)
        change(trial)
        return score

    def callback(search: JointNAS, event: Event) -> None:
        change(event.trial)
        for trial in search.trials:
            change(trial)

    plain = _search().run(quality)
    changed = _search()
    result = changed.run(evaluate, callbacks=[callback])
    assert [vars(t) for t in result.trials] == [vars(t) for t in plain.trials]
    change(result.trials[0])
    assert [vars(t) for t in changed.result().trials] == [vars(t) for t in plain.trials]


def test_ask_returns_copies_and_tell_reads_only_their_reports() -> None:
    search = _search()
    asked = search.ask()
    for trial in asked:
        trial.report(1, 0.25)
        trial.config["x"] = 7.0
    search.tell(asked, [1.0, 2.0, None, 4.0])
    stored = search.result().trials
    assert all(0.0 <= t.config["x"] <= 1.0 for t in stored)
    assert [t.reports for t in stored] == [{1: 0.25}] * 4
    assert [t.state for t in asked] == ["complete", "complete", "failed", "complete"]


def test_trials_that_were_sent_to_another_process_can_be_told() -> None:
    search = _search()
    trials = pickle.loads(pickle.dumps(search.ask()))
    search.tell(trials, [1.0] * 4)
    assert search.result().best.score == 1.0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (lambda t: ([t[0], t[0]], [1.0, 2.0]), "twice"),
        (lambda t: ([t[0], copy.deepcopy(t[0])], [1.0, 2.0]), "twice"),
        (lambda t: ([t[0]], [1.0, 2.0]), "equal length"),
        (lambda t: (t[0], 1.0), "tell: trials"),
        (lambda t: ([t[0].id], [1.0]), "trials that ask"),
        (lambda t: ([t[0]], 1.0), "tell: scores"),
        (lambda t: ([t[0]], [1.0], ["a", "b"]), "equal length"),
        (lambda t: ([t[0]], [None], [3]), "texts or None"),
        (lambda t: ([Trial("other", 0, 0, {})], [1.0]), "not waiting"),
        (lambda t: ([Trial(t[0].id, 0, 0, {}, reports={1: "a"})], [1.0]), "report: score"),
    ],
)
def test_wrong_results_are_refused_before_anything_is_stored(arguments: Any, text: str) -> None:
    search = _search()
    trials = search.ask()
    with pytest.raises(SearchError, match=text) as error:
        search.tell(*arguments(trials))
    assert "\n" not in str(error.value)
    assert search.result().trials == []
    search.tell(trials, [1.0] * 4)  # the search goes on


def test_late_reports_of_a_thread_have_no_effect() -> None:
    trials: list[Trial] = []

    def evaluate(trial: Trial) -> float:
        trials.append(trial)
        trial.report(1, 0.5)
        return 1.0

    search = _search()
    result = search.run(evaluate)
    threads = [threading.Thread(target=t.report, args=(2, 0.1)) for t in trials]
    for thread in threads:
        thread.start()
        thread.join()
    assert [t.reports for t in search.result().trials] == [t.reports for t in result.trials]


@pytest.mark.parametrize(
    ("epoch", "score"),
    [
        *((1.5, 0.1), ("1", 0.1), (-1, 0.1), (True, 0.1), (1, "a"), (1, None)),
        *((2**31, 0.1), (3_000_000_000, 0.1)),
    ],
)
def test_reports_that_are_no_numbers_fail_the_trial(epoch: Any, score: Any) -> None:
    def evaluate(trial: Trial) -> float:
        trial.report(epoch, score)
        return 1.0

    trials = _search().run(evaluate).trials
    assert {t.state for t in trials} == {"failed"}
    assert all("SearchError: report:" in str(t.reason) for t in trials)


def test_numbers_of_numpy_and_torch_can_be_reported() -> None:
    import torch

    trial = Trial("t", 0, 0, {})
    trial.report(np.int64(1), np.float32(0.5))  # type: ignore[arg-type]
    trial.report(torch.tensor(2), torch.tensor(0.25))  # type: ignore[arg-type]
    assert trial.reports == {1: 0.5, 2: 0.25}
    assert {type(k) for k in trial.reports} | {type(v) for v in trial.reports.values()} == {
        int,
        float,
    }


@pytest.mark.parametrize("copied", [lambda r: pickle.loads(pickle.dumps(r)), copy.deepcopy])
def test_results_can_be_pickled_and_copied(copied: Any) -> None:
    search = _search(batch_size=6, iterations=2)
    result = search.run(lambda trial: trial.config["x"], callbacks=[lambda s, e: None])
    again = copied(result)
    assert [vars(t) for t in again.trials] == [vars(t) for t in result.trials]
    assert again.best.id == result.best.id
    assert again.predictor is not None
