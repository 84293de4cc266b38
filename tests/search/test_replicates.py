"""Finalists that are trained with several seeds."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fbnetv3.search import Constraint, JointNAS, LocalWorkers, SearchError, SearchSettings, Trial
from fbnetv3.search.history import check_stored
from fbnetv3.search.replicates import Spread, mean_scores, mean_scores_by_name, replicated
from fbnetv3.search.schedule import Schedule
from fbnetv3.search.storage.database import sqlite_url
from fbnetv3.search.trial import trial_from_json, trial_to_json
from tests.search import problem

pytestmark = pytest.mark.usefixtures("short_training")


def _evaluate(trial: Trial) -> float:
    """Returns a score with noise that depends on the seed of the training."""
    score = problem.evaluate(trial)
    digest = hashlib.sha256(trial.name.encode()).digest()
    return score + 0.1 * float(np.random.default_rng(digest[0]).standard_normal())


def _search(**changes: Any) -> JointNAS:
    options = {"pool_size": 128, "finalists": 3, "final_seeds": 3, "early_stop_threshold": None}
    return problem.search(**{**options, **changes})


@pytest.fixture(scope="module")
def search() -> JointNAS:
    search = _search()
    search.run(_evaluate)
    return search


def test_each_finalist_has_a_training_per_seed(search: JointNAS) -> None:
    result = search.result()
    finals = [t for t in result.trials if t.stage == "fine"]
    assert [t.replicate for t in finals] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    ids = [t.id for t in finals[:3]]
    assert [t.id for t in finals] == ids * 3
    assert len({t.name for t in finals}) == 9
    assert [t.number for t in result.trials] == list(range(len(result.trials)))
    assert len(result.trials) == search.size


def test_finalists_are_compared_by_their_means(search: JointNAS) -> None:
    result = search.result()
    assert len(result.spreads) == 3
    for key, spread in result.spreads.items():
        own = [t for t in result.trials if t.id == key]
        scores = [t.final_score for t in own]
        assert spread.scores == tuple(scores)
        assert spread.mean == pytest.approx(np.mean(scores))
        assert spread.std == pytest.approx(np.std(scores, ddof=1))
        assert [t.score for t in own] == pytest.approx([spread.mean] * 3)
    best = max(t.score for t in result.trials if t.score is not None)
    assert result.best.score == best
    assert result.best.replicate == 0


def test_without_replicates_the_candidates_are_the_same(search: JointNAS) -> None:
    once = _search(final_seeds=1)
    result = once.run(_evaluate)
    assert "final_seeds" not in once.settings  # as in storages of earlier versions
    assert not result.spreads
    first = [t.id for t in search.result().trials if not t.replicate]
    assert [t.id for t in result.trials] == first


@pytest.mark.slow
def test_killed_and_with_workers_it_ends_the_same(search: JointNAS, tmp_path: Path) -> None:
    stops = {16, 18, 20, 24}

    def stop(search: JointNAS, event: Any) -> None:
        if event.kind == "finish" and event.trial.number in stops:
            stops.remove(event.trial.number)
            raise KeyboardInterrupt

    while True:
        again = _search(storage=sqlite_url(tmp_path / "a.db"), executor=LocalWorkers(2))
        try:
            again.run(_evaluate, callbacks=[stop])
            break
        except KeyboardInterrupt:
            again.close()
    assert not stops
    assert [vars(t) for t in again.result().trials] == [vars(t) for t in search.result().trials]


def test_a_failed_replicate_leaves_the_others() -> None:
    def evaluate(trial: Trial) -> float:
        if trial.replicate == 1:
            raise RuntimeError("out of luck")
        return _evaluate(trial)

    result = _search().run(evaluate)
    assert {len(s.scores) for s in result.spreads.values()} == {2}


def test_with_rungs_finalists_have_seeds_too() -> None:
    search = _search(rungs=(2, 10), batch_size=12, iterations=3)
    result = search.run(_evaluate)
    finals = [t for t in result.trials if t.stage == "fine"]
    assert [t.replicate for t in finals] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(t.max_epochs == 10 for t in finals)
    assert len(result.spreads) == 3
    for key, spread in result.spreads.items():
        own = [t.score for t in finals if t.id == key]
        assert own == pytest.approx([spread.mean] * 3)


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True])
def test_other_numbers_of_seeds_are_refused(value: Any) -> None:
    with pytest.raises(SearchError, match="final_seeds"):
        SearchSettings(final_seeds=value)


def test_stored_replicates_that_no_search_trains_are_refused(search: JointNAS) -> None:
    trials = search.finished_trials()
    settings = SearchSettings(batch_size=8, iterations=2, finalists=3, final_seeds=3)
    assert check_stored(trials, problem.space(), Schedule(settings))
    for place, changes in ((0, {"replicate": 1}), (-1, {"replicate": 3})):
        other = list(trials)
        other[place] = replace(other[place], **changes)
        with pytest.raises(SearchError, match="only finalists train with other seeds"):
            check_stored(other, problem.space(), Schedule(settings))
    twice = [*trials[:-1], replace(trials[-1], replicate=1)]
    with pytest.raises(SearchError, match="stored twice"):
        check_stored(twice, problem.space(), Schedule(settings))


def test_replicates_in_storages() -> None:
    trial = replicated([Trial("a", 4, 1, {}, stage="fine")], 2)[1]
    trial.finish(1.0)
    assert (trial.number, trial.replicate, trial.name) == (5, 1, "a_seed1")
    assert trial_from_json(trial_to_json(trial)).replicate == 1
    assert '"replicate"' not in trial_to_json(replace(trial, replicate=0))
    with pytest.raises(SearchError, match="bad value of replicate"):
        trial_from_json(trial_to_json(replace(trial, replicate=-1)))


def _tell_all(search: JointNAS, score: Any) -> None:
    while trials := search.ask():
        search.tell(trials, [score(t) for t in trials])


def test_ask_and_tell_take_all_seeds_at_once(search: JointNAS) -> None:
    again = _search()
    _tell_all(again, _evaluate)
    assert [vars(t) for t in again.result().trials] == [vars(t) for t in search.result().trials]


def test_a_replicate_that_is_told_twice_is_named() -> None:
    search = _search(iterations=1, first_parts=1)
    first = search.ask()
    search.tell(first, [problem.evaluate(t) for t in first])
    finals = search.ask()
    for twice in (finals[0], finals[-1]):
        with pytest.raises(SearchError, match=f"tell was given trial {twice.name} twice; give"):
            search.tell([*finals, twice], [1.0] * 10)
    search.tell(finals, [1.0] * 9)
    with pytest.raises(SearchError, match=f"trial {finals[-1].name} is not waiting for a result"):
        search.tell(finals[-1:], [1.0])


def _luck(trial: Trial) -> float:
    """Returns -1, 0 or 1 for the seeds of a finalist; the mean is 0."""
    return trial.replicate - 1.0 if trial.stage == "fine" else 0.0


_BOUND = Constraint("memory", upper=16.5)
_TWO_SCORES: list[dict[str, Any]] = [
    {"objectives": ["score", "-macs"]},
    {"objectives": ["top1", "-memory"]},
    {"objectives": ["top1", "-memory", "-macs"]},
    {"score_constraints": [_BOUND]},
    {"objectives": ["top1"], "score_constraints": [_BOUND]},
    {"objectives": ["score", "-macs"], "score_constraints": [Constraint("score", lower=1.0)]},
    {"objectives": ["top1", "-memory"], "score_constraints": [_BOUND]},
]


@pytest.mark.parametrize("changes", _TWO_SCORES, ids=str)
def test_bounds_and_fronts_are_those_of_the_means(changes: dict[str, Any]) -> None:
    def without_luck(trial: Trial) -> Any:
        score = problem.quality(trial.config) + 5.0 * (trial.stage == "fine")
        memory = float(np.sqrt(trial.statistics["macs"])) + 1
        return (score, memory) if trial.score_names else score

    def by_name(trial: Trial, luck: float) -> Any:
        value = without_luck(trial)
        if not trial.score_names:
            return value + luck
        values = (value[0] + luck, value[1] - 9 * luck)  # the best score and the lowest memory
        first = trial.score_names[0]
        return {name: values[name != first] for name in trial.score_names}

    small = {"batch_size": 4, "iterations": 1, **changes}
    lucky, fair = _search(**small), _search(**small)
    _tell_all(lucky, lambda trial: by_name(trial, _luck(trial)))
    _tell_all(fair, lambda trial: by_name(trial, 0.0))
    result, expected = lucky.result(), fair.result()
    for mean, trial in zip(result.trials, expected.trials, strict=True):
        assert (mean.id, mean.replicate) == (trial.id, trial.replicate)
        assert mean.score == pytest.approx(trial.score)
        assert mean.scores == pytest.approx(trial.scores)
    assert [t.number for t in result.feasible] == [t.number for t in expected.feasible]
    assert result.best.number == expected.best.number
    if result.objectives.are_several:
        assert [t.number for t in result.pareto()] == [t.number for t in expected.pareto()]
    single = [t.scores for t in lucky.finished_trials()]
    assert (single != [t.scores for t in result.trials]) == any(single)


def test_means_by_name() -> None:
    def trial(key: str, number: int, **scores: float) -> Trial:
        return Trial(key, number, 0, {}, scores=scores)

    trials = [trial("a", 0, x=1.0, y=4.0), trial("a", 1, x=3.0, y=6.0), trial("b", 2, x=9.0, y=9.0)]
    means = {"x": 2.0, "y": 5.0}
    assert mean_scores_by_name(trials) == {0: means, 1: means}
    assert mean_scores_by_name(replace(t, scores={}) for t in trials) == {}
    assert mean_scores_by_name([trials[0], trial("a", 1, x=2.0)]) == {
        0: {"x": 1.5, "y": 4.0},
        1: {"x": 1.5},
    }


def test_means_and_spreads() -> None:
    trials = [Trial(key, i, 0, {}) for i, key in enumerate("aabc")]
    assert mean_scores(trials, {0: 1.0, 1: 2.0, 2: 5.0}) == {0: 1.5, 1: 1.5, 2: 5.0}
    assert str(Spread((1.0, 2.0, 3.0))) == "mean of 3 seeds, standard deviation 1"
