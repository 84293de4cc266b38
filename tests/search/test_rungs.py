"""Rungs: which candidates go on, the searches that they make, and their storage."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbnetv3.search import JointNAS, LocalWorkers, SearchError, SearchSettings, Trial
from fbnetv3.search.history import check_stored
from fbnetv3.search.predictors.final_scores import MIN_PAIRS
from fbnetv3.search.rungs import Ladder, as_rungs, expected_promotions
from fbnetv3.search.schedule import Schedule
from fbnetv3.search.storage.database import sqlite_url
from tests.search import problem

pytestmark = pytest.mark.usefixtures("short_training")
RUNGS = (2, 4, 10)


@pytest.mark.parametrize(
    "value",
    [
        *([3], [3, 3], [9, 3], [0, 3], [-1, 2], [1.5, 3], ["3", "9"], "39", 3, [True, 2], None),
        *({3: 9}, [3, 2**31]),
    ],
)
def test_other_rungs_are_refused(value: Any) -> None:
    with pytest.raises(SearchError, match="rungs"):
        SearchSettings(rungs=value)


@pytest.mark.parametrize("value", [[], (), [1, 2], (3, 9, 27), np.array([3, 9, 27])])
def test_rungs_are_kept_as_whole_numbers(value: Any) -> None:
    assert as_rungs(value) == tuple(int(epochs) for epochs in value)


def test_rungs_are_settings_of_a_search() -> None:
    space = problem.space()
    assert "rungs" not in SearchSettings().describe(space)  # as in storages of earlier versions
    assert SearchSettings(rungs=RUNGS).describe(space)["rungs"] == [2, 4, 10]


def _part(key: str, number: int, epochs: int, score: float | None) -> Trial:
    trial = Trial(key, number, 0, {}, max_epochs=epochs)
    trial.finish(score)
    return trial


@given(
    scores=st.lists(st.floats(-1e150, 1e150), min_size=1, max_size=60),
    failed=st.sets(st.integers(0, 59)),
    rounds=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_at_most_the_share_of_a_rung_goes_on_and_the_best_first(
    scores: list[float], failed: set[int], rounds: int
) -> None:
    trials = [_part(str(i), i, 2, None if i in failed else score) for i, score in enumerate(scores)]
    for _ in range(rounds):
        ladder = Ladder(RUNGS, trials)
        waiting = ladder.waiting()
        values = [float(t.final_score or 0) for t in waiting]
        chosen = ladder.promotions(values, 99)
        assert [epochs for _, epochs in chosen] == sorted((e for _, e in chosen), reverse=True)
        for trial, epochs in chosen:
            assert RUNGS.index(epochs) == RUNGS.index(int(trial.max_epochs or 0)) + 1
            left = [t for t in waiting if t.max_epochs == trial.max_epochs]
            left = [t for t in left if t not in [c for c, _ in chosen]]
            assert all((t.final_score or 0) <= (trial.final_score or 0) for t in left)
            trials.append(_part(trial.id, len(trials), epochs, trial.final_score))
        counts = Counter(t.max_epochs for t in trials if t.state == "complete")
        for low, high in pairwise(RUNGS):
            if ladder.first_rung <= RUNGS.index(low):
                assert counts[high] <= counts[low] * low // high
        assert len({(t.id, t.max_epochs) for t in trials}) == len(trials)


def test_a_candidate_left_behind_goes_on_later() -> None:
    first = [_part(f"a{i}", i, 2, float(i)) for i in range(4)]
    ladder = Ladder(RUNGS, first)
    assert [t.id for t, _ in _promotions(ladder)] == [
        "a3",
        "a2",
    ]
    trials = [*first, _part("a3", 4, 4, 9.0), _part("a2", 5, 4, 8.0)]
    trials += [_part(f"b{i}", 6 + i, 2, -1.0 - i) for i in range(2)]  # a worse batch
    ladder = Ladder(RUNGS, trials)
    on = _promotions(ladder)
    assert [(t.id, epochs) for t, epochs in on] == [("a1", 4)]


def _promotions(ladder: Ladder, most: int = 99) -> list[tuple[Trial, int]]:
    """Returns the trials that go on if they are ranked by their own scores."""
    return ladder.promotions([t.final_score or 0 for t in ladder.waiting()], most)


@pytest.mark.parametrize(
    ("most", "expected"),
    [(0, []), (1, [("3", 10)]), (2, [("3", 10), ("7", 4)]), (9, [("3", 10), ("7", 4), ("6", 4)])],
)
def test_those_with_most_epochs_and_then_the_best_go_on_first(
    most: int, expected: list[tuple[str, int]]
) -> None:
    trials = [_part(str(i), i, 2, float(i)) for i in range(8)]
    trials += [_part(str(i), 8 + i, 4, float(i)) for i in (1, 3)]
    trials += [_part("8", 12, 4, 1.5)]
    assert [(t.id, e) for t, e in _promotions(Ladder(RUNGS, trials), most)] == expected


def test_failed_parts_and_running_ones_do_not_go_on() -> None:
    trials = [_part(str(i), i, 2, float(i)) for i in range(6)]
    trials += [_part("5", 6, 4, None), Trial("4", 7, 1, {}, max_epochs=4)]
    ladder = Ladder(RUNGS, trials)
    assert sorted(t.id for t in ladder.waiting()) == ["0", "1", "2", "3"]
    # three of six may go on, and two did
    assert [t.id for t, _ in ladder.promotions([0.0, 1.0, 2.0, 3.0], 99)] == ["3"]


def test_rungs_whose_scores_mislead_are_left_out() -> None:
    random = np.random.default_rng(0)
    trials: list[Trial] = []
    for i in range(24):
        trials.append(_part(str(i), len(trials), 2, float(random.normal())))
    assert Ladder(RUNGS, trials).first_rung == 0  # nothing is known yet
    for i in range(12):
        trials.append(_part(str(i), len(trials), 4, float(random.normal())))
    ladder = Ladder(RUNGS, trials)
    assert ladder.first_rung == 1
    assert ladder.summary()[0].correlation == pytest.approx(0.0, abs=0.4)
    assert all(epochs == 10 for _, epochs in ladder.promotions([0.0] * len(ladder.waiting()), 99))


def _search(**changes: Any) -> JointNAS:
    options = {"rungs": RUNGS, "batch_size": 12, "iterations": 4, "pool_size": 256, **changes}
    return problem.search(**options)


def _rows(search: JointNAS) -> list[tuple[Any, ...]]:
    trials = search.result().trials
    return [(t.number, t.id, t.max_epochs, t.final_score, t.predicted, t.score) for t in trials]


@pytest.fixture(scope="module")
def whole() -> JointNAS:
    search = _search()
    search.run(problem.evaluate)
    return search


def test_a_search_trains_few_candidates_in_full(whole: JointNAS) -> None:
    result = whole.result()
    counts = Counter((t.stage, t.max_epochs) for t in result.trials)
    assert counts["coarse", 2] == 4 + 3 * 10  # of a batch of 12, two train in full; first eight
    assert counts["coarse", 4] == 12  # half of those of the first three batches
    assert counts["coarse", 10] == 8 + 3 * 2 + 2  # 4 of 10 of the first two halves
    assert counts["fine", 10] == 3
    assert len(result.trials) == whole.size
    assert result.best.max_epochs == 10
    assert all(t.max_epochs == 10 for t in result.complete)
    assert result.best.score == max(t.final_score for t in result.trials if t.max_epochs == 10)
    first, second, last = result.rungs
    assert (first.epochs, second.epochs, last.epochs) == RUNGS
    finals = {t.id for t in result.trials if t.stage == "fine"}
    stopped = {t.id for t in result.trials if t.stage == "coarse" and t.max_epochs == 2}
    assert first.promoted >= 12
    assert first.promoted <= 12 + len(finals & stopped)
    assert last.promoted == 0
    assert last.correlation == 1.0
    assert last.noise == 0.0
    assert result.early_stop is None


def test_expected_numbers_of_promotions(whole: JointNAS) -> None:
    assert expected_promotions(RUNGS, 12, 4) == 12 + 2
    assert expected_promotions((3, 9), 3, 5) == 1  # a third of the three that stopped at first
    assert expected_promotions((3, 9), 4, 2) == 0  # the first eight candidates train in full
    assert expected_promotions((), 12, 4) == 0


def test_candidates_that_promise_most_train_in_full_at_once(whole: JointNAS) -> None:
    for batch in range(4):
        new = [t for t in whole.result().trials if t.batch == batch]
        earlier = {t.id for t in whole.result().trials if t.batch < batch}
        new = [t for t in new if t.id not in earlier]
        in_full = 2 if batch else MIN_PAIRS
        assert [t.max_epochs for t in new] == [10] * in_full + [2] * (12 - in_full)


def test_the_first_candidates_train_in_full_however_small_the_batches() -> None:
    search = _search(batch_size=3, iterations=4, finalists=0)
    search.run(problem.evaluate)
    epochs = [t.max_epochs for t in search.result().trials]
    assert epochs[: MIN_PAIRS + 2] == [10] * MIN_PAIRS + [2, 10]
    assert max(epochs[MIN_PAIRS + 2 :]) < 10
    assert all(rung.correlation is not None for rung in search.result().rungs)


def test_failed_trainings_are_followed_by_others_in_full() -> None:
    def evaluate(trial: Trial) -> float | None:
        return problem.evaluate(trial) if trial.number % 4 else None

    search = _search(batch_size=8, iterations=2, finalists=0)
    search.run(evaluate)
    assert [t.max_epochs for t in search.result().trials] == [10] * 8 + [10] * 2 + [2] * 6


def test_trials_of_a_warm_start_count_as_trained_in_full(whole: JointNAS) -> None:
    search = _search(iterations=1, finalists=0, warm_start=whole.result().complete)
    search.run(problem.evaluate)
    epochs = [t.max_epochs for t in search.result().trials if t.batch == 0]
    assert epochs == [10, 10, *[2] * 10]


def test_a_candidate_goes_on_under_its_own_id_with_its_statistics(whole: JointNAS) -> None:
    by_id: dict[str, list[Trial]] = {}
    for trial in whole.result().trials:
        by_id.setdefault(trial.id, []).append(trial)
    longest = max(by_id.values(), key=len)
    assert [t.max_epochs for t in longest] == [2, 4, 10]
    assert len({str(sorted(t.statistics.items())) for t in longest}) == 1
    assert len({t.batch for t in longest}) == 3
    assert longest[1].predicted is not None


def test_the_number_of_workers_has_no_effect(whole: JointNAS) -> None:
    search = _search(executor=LocalWorkers(3))
    search.run(problem.evaluate)
    assert _rows(search) == _rows(whole)


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [0, 4])
def test_a_killed_search_ends_where_an_undisturbed_one_does(tmp_path: Path, ahead: int) -> None:
    def run(url: str, stops: set[int]) -> JointNAS:
        def stop(search: JointNAS, event: Any) -> None:
            if event.kind == "finish" and event.trial.number in stops:
                stops.remove(event.trial.number)
                raise KeyboardInterrupt

        while True:
            search = _search(storage=url, ahead=ahead)
            try:
                search.run(problem.evaluate, callbacks=[stop])
                return search
            except KeyboardInterrupt:
                search.close()

    undisturbed = run(sqlite_url(tmp_path / "a.db"), set())
    stops = {0, 7, 8, 12, 13, 17, 18, 30, 31, 45, 52, 60}
    killed = run(sqlite_url(tmp_path / "b.db"), stops)
    assert not stops
    assert _rows(killed) == _rows(undisturbed)


def test_no_batch_has_more_trials_than_a_storage_may_hold() -> None:
    search = _search(
        batch_size=8, rungs=(1, 3, 9), ahead=64, iterations=12, pool_size=128, predictor="random"
    )
    # With ahead, the results of many batches may come at once, and many candidates may then go on.
    while trials := search.ask():
        search.tell(trials, [problem.quality(t.config) for t in trials])
        assert len(search.finished_trials()) == len(search.trials)
    sizes = Counter(t.batch for t in search.trials)
    assert max(sizes.values()) == 8 * 3
    went_on = {t.batch for t in search.trials if t.max_epochs == 3}
    assert len(went_on) > 1  # the rest with the next batch


def test_parts_of_trainings_are_pruned_trials_for_optuna(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    search = _search(storage=url, iterations=3)
    search.run(problem.evaluate)
    study = optuna.load_study(study_name="jointnas", storage=url)
    states = Counter(t.state.name for t in study.trials)
    assert states["COMPLETE"] == len(search.result().complete)
    assert states["PRUNED"] == len(search.trials) - states["COMPLETE"]
    assert study.best_value == pytest.approx(search.result().best.score)


def test_a_storage_with_other_epochs_is_refused(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    search = _search(storage=url, iterations=2, finalists=0)
    search.run(problem.evaluate)
    with pytest.raises(SearchError, match=r"rungs was \[2, 4, 10\], is \[2, 5, 10\]"):
        _search(storage=url, iterations=2, finalists=0, rungs=(2, 5, 10))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"max_epochs": 2}, "its candidate is stored twice"),
        ({"max_epochs": None}, "its candidate is stored twice"),
        ({"max_epochs": 3}, "its number of epochs is none of the rungs"),
    ],
)
def test_a_stored_part_that_no_search_trains_is_refused(changes: dict[str, Any], text: str) -> None:
    search = _search(iterations=2, finalists=0)
    search.run(problem.evaluate)
    trials = search.finished_trials()
    schedule = Schedule(SearchSettings(rungs=RUNGS, batch_size=12, iterations=2, finalists=0))
    assert check_stored(trials, problem.space(), schedule)
    number = next(i for i, t in enumerate(trials) if t.max_epochs == 4)
    trials[number] = replace(trials[number], **changes)
    with pytest.raises(SearchError, match=text):
        check_stored(trials, problem.space(), schedule)


@pytest.mark.parametrize(
    "changes",
    [
        {"budgets": [problem.Constraint("macs", upper=300)]},
        {"objectives": ["score", "-macs"]},
        {"predictor": "paper"},
        {"predictor": "random"},
        {"direction": "minimize"},
    ],
    ids=str,
)
def test_rungs_go_with_other_settings(changes: dict[str, Any]) -> None:
    search = _search(**changes)
    sign = -1.0 if changes.get("direction") == "minimize" else 1.0

    def evaluate(trial: Trial) -> float:
        score = problem.evaluate(trial)
        reports, trial.reports = dict(trial.reports), {}
        for epoch, value in reports.items():
            trial.report(epoch, sign * value)
        return sign * score

    search.run(evaluate)
    counts = Counter(t.max_epochs for t in search.result().trials if t.stage == "coarse")
    assert counts[2] == 34
    assert counts[4] == 12
    if "budgets" in changes:
        bound = changes["budgets"][0]
        on = [t for t in search.result().trials if t.max_epochs == 4]
        assert sum(t.statistics["macs"] <= bound.upper for t in on) >= len(on) // 3


def test_several_scores_have_no_rungs() -> None:
    with pytest.raises(SearchError, match=r"rungs=\[2, 4, 10\] compare partial trainings by one"):
        _search(objectives=["accuracy", "-loss"])


def test_a_partly_trained_candidate_may_be_a_finalist() -> None:
    search = _search(finalists=8)
    search.run(problem.evaluate)
    trials = search.result().trials
    finals = [t for t in trials if t.stage == "fine"]
    seen = {t.id for t in trials if t.stage == "coarse"}
    whole = {t.id for t in trials if t.stage == "coarse" and t.max_epochs == 10}
    assert not whole & {t.id for t in finals}
    assert all(t.max_epochs == 10 for t in finals)
    assert seen & {t.id for t in finals} or len(finals) == 8


def test_a_failed_part_runs_again_after_a_retry(tmp_path: Path) -> None:
    broken = {"on"}

    def evaluate(trial: Trial) -> float:
        if trial.max_epochs == 4 and broken:
            broken.clear()
            raise RuntimeError("a cable came loose")
        return problem.evaluate(trial)

    url = sqlite_url(tmp_path / "a.db")
    search = _search(storage=url, iterations=2, finalists=0)
    search.run(evaluate)
    (failed,) = search.retry_failed("cable")
    assert failed.max_epochs == 4
    search.run(problem.evaluate)
    again = next(t for t in search.result().trials if t.number == failed.number)
    assert (again.state, again.max_epochs) == ("complete", 4)
    assert again.earlier_reasons
