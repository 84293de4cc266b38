"""Searches with bounds on scores that are known only after an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fbnetv3.search import Constraint, JointNAS, LocalWorkers, SearchError, Trial
from fbnetv3.search.bounded_scores import excesses_of
from tests.search import problem

pytestmark = pytest.mark.usefixtures("short_training")
LIMIT = Constraint("memory", upper=20.0)


def evaluate(trial: Trial) -> dict[str, float]:
    """Returns a score that rises with the multiply-adds, and a memory that does too."""
    macs = problem.statistics([trial.config])["macs"][0]
    return {"score": problem.quality(trial.config), "memory": float(np.sqrt(macs)) + 1}


def _search(**changes: Any) -> JointNAS:
    return problem.search(**{"score_constraints": [LIMIT], **changes})


def _meets(trial: Trial) -> bool:
    return trial.scores["memory"] <= 20.0


def test_the_best_trial_meets_the_bound_and_more_candidates_do() -> None:
    result, free = _search().run(evaluate), problem.search().run(_score_alone)
    assert _meets(result.best)
    assert result.best.score == max(t.score for t in result.trials if _meets(t))
    unbounded = [np.sqrt(t.statistics["macs"]) + 1 <= 20 for t in free.trials if t.batch > 0]
    bounded = [_meets(t) for t in result.trials if t.batch > 0]
    assert np.mean(bounded) > np.mean(unbounded) + 0.25  # the best candidates lie on the bound
    assert np.sqrt(free.best.statistics["macs"]) + 1 > 20


def _score_alone(trial: Trial) -> float:
    return problem.quality(trial.config)


def test_trials_keep_both_scores_and_the_first_is_compared() -> None:
    trial = _search().run(evaluate).trials[0]
    assert trial.score_names == ("score", "memory")
    assert trial.score == trial.scores["score"]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_both_ends_of_a_bound_count(direction: str) -> None:
    sign = 1.0 if direction == "maximize" else -1.0

    def signed(trial: Trial) -> dict[str, float]:
        return evaluate(trial) | {"score": sign * problem.quality(trial.config)}

    bound = Constraint("memory", lower=12.0, upper=16.0)
    result = _search(score_constraints=[bound], direction=direction).run(signed)
    assert 12 <= result.best.scores["memory"] <= 16
    assert all(12 <= t.scores["memory"] <= 16 for t in result.feasible)


def test_a_front_has_only_trials_that_meet_the_bound() -> None:
    search = _search(objectives=["score", "-macs"], score_constraints=[LIMIT])
    front = search.run(evaluate).pareto()
    assert len(front) > 1
    assert all(map(_meets, front))


def test_a_score_of_a_front_may_be_bounded() -> None:
    low = Constraint("score", lower=1.5)
    search = _search(objectives=["score", "-macs"], score_constraints=[low])
    result = search.run(_score_alone)
    assert result.pareto()
    assert min(t.score for t in result.pareto()) >= 1.5
    assert min(t.score for t in result.complete) < 1.5


def test_candidates_come_closer_to_a_bound_that_none_meets_at_first() -> None:
    tight = Constraint("memory", upper=6.5)
    result = _search(score_constraints=[tight], iterations=4).run(evaluate)
    by_batch = [
        np.median([t.scores["memory"] for t in result.trials if t.batch == batch])
        for batch in range(4)
    ]
    assert by_batch[-1] < 0.7 * by_batch[0]


def test_a_bound_that_none_meets_is_named() -> None:
    result = _search(score_constraints=[Constraint("memory", upper=0.5)]).run(evaluate)
    with pytest.raises(SearchError, match=r"none of 19 trials .* meets .* memory <= 0.5"):
        _ = result.best


def test_workers_propose_the_same(tmp_path: Path) -> None:
    alone = _search().run(evaluate)
    executor = LocalWorkers(2)
    shared = _search(executor=executor, storage=f"sqlite:///{tmp_path / 's.db'}").run(evaluate)
    assert [t.id for t in shared.trials] == [t.id for t in alone.trials]
    assert [t.scores for t in shared.trials] == [t.scores for t in alone.trials]


def test_a_storage_refuses_another_bound(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    _search(storage=url).run(evaluate)
    again = _search(storage=url)
    assert len(again.finished_trials()) == 19
    with pytest.raises(SearchError, match="score_constraints"):
        _search(storage=url, score_constraints=[Constraint("memory", upper=30)])


def test_candidates_of_evolve_probably_meet_the_bound() -> None:
    search = _search()
    search.run(evaluate)
    macs = [c.statistics["macs"] for c in search.evolve()]
    assert np.mean(np.sqrt(macs) + 1 <= 20.5) > 0.8


def test_a_search_that_is_told_a_number_fails_the_trial() -> None:
    trial = _search().ask()[0]
    trial.finish(1.0)
    assert trial.state == "failed"
    assert "memory" in (trial.reason or "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score_constraints": [Constraint("macs", upper=9)]}, "'macs' is a statistic"),
        ({"score_constraints": [Constraint("score", upper=9)]}, "only objective"),
        ({"score_constraints": ["memory <= 9"]}, "score_constraints"),
        ({"score_constraints": [LIMIT, LIMIT]}, "two upper bounds"),
        ({"rungs": [1, 3]}, "leave out rungs"),
        ({"predictor": "paper"}, "predictor='paper'"),
        ({"warm_start": [(problem.space().configs(np.zeros((1, 9), int))[0], 1.0)]}, "warm_start"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        _search(**changes)


def test_the_excess_is_positive_where_a_bound_is_violated() -> None:
    trials = [
        Trial("a", 0, 0, {}, state="complete", final_score=3.0, scores={"m": 5.0}),
        Trial("b", 1, 0, {}, state="complete", final_score=3.0, scores={}),
    ]
    bounds = [Constraint("m", lower=1, upper=4), Constraint("score", upper=2.5)]
    np.testing.assert_equal(
        excesses_of(bounds, trials), [[1.0, -4.0, np.nan], [np.nan, np.nan, 0.5]]
    )
