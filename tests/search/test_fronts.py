"""Searches for a Pareto front."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from botorch.utils.multi_objective.pareto import is_non_dominated

from fbnetv3.search import Constraint, InProcess, JointNAS, LocalWorkers, SearchError, Trial
from fbnetv3.search.acquisition.hypervolume import hypervolume
from fbnetv3.search.trial import trial_from_json, trial_to_json
from tests.search import problem

FRONT = ("score", "-macs")
WARM = {
    "depth": 2,
    "kernel": 3,
    **dict.fromkeys(problem.WIDTHS, 32),
    "lr": 0.01,
    "decay": 0.5,
    "optim": "sgd",
}


def _search(**changes: Any) -> JointNAS:
    return problem.search(**{"objectives": FRONT, "early_stop_threshold": None, **changes})


def _ids(result: Any) -> list[str]:
    return [trial.id for trial in result.trials]


def _loss(trial: Trial) -> float:
    return -problem.quality(trial.config)


def _score(trial: Trial) -> float:
    return problem.quality(trial.config)


def several(trial: Trial) -> dict[str, float]:
    """Returns two scores that contradict each other."""
    return {"top1": _score(trial), "error": _score(trial) - math.log10(trial.config["lr"])}


def test_the_result_has_the_front_by_rising_cost() -> None:
    result = _search().run(_score)
    front = result.pareto()
    points = result.objectives.points(result.feasible)
    expected = is_non_dominated(torch.tensor(points)).sum()
    assert len(front) == expected > 1
    costs = [t.statistics["macs"] for t in front]
    assert costs == sorted(costs)
    assert max(costs) <= problem.UPPER
    assert result.best in front
    assert len(result.trials) == 19
    assert {t.stage for t in result.trials} == {"coarse", "fine"}


def test_the_hypervolume_grows_with_each_batch() -> None:
    result = _search().run(_score)
    volumes, reference = result.hypervolumes, result.reference_point
    assert list(volumes) == [0, 1, 2]
    assert list(volumes.values()) == sorted(volumes.values())
    points = np.array([[t.score, -t.statistics["macs"]] for t in result.feasible])
    at = np.array([reference["score"], -reference["macs"]])
    assert volumes[2] == pytest.approx(hypervolume(points, at))
    pool = _search().plan.pool.statistics["macs"]
    spread = pool.max() - min(points[:, 1].max() * -1, pool.max())
    assert reference["macs"] == pytest.approx(pool.max() + 0.1 * spread)


@pytest.mark.slow
def test_a_search_for_the_front_finds_a_larger_hypervolume_than_random_candidates() -> None:
    ratios = []
    for seed in range(3):
        sizes = {"batch_size": 12, "iterations": 3, "finalists": 6, "seed": seed}
        ours, random = (
            _search(predictor=name, **sizes).run(_score) for name in ("default", "random")
        )
        reference = np.array([0.0, -1.1 * problem.UPPER])
        volumes = [hypervolume(r.objectives.points(r.feasible), reference) for r in (ours, random)]
        ratios.append(volumes[0] / volumes[1])
    assert np.mean(ratios) > 1.05


def test_the_objective_score_alone_is_the_search_for_the_best_score() -> None:
    plain = problem.search().run(problem.evaluate)
    assert problem.summary(problem.search(objectives=None).run(problem.evaluate)) == (
        problem.summary(plain)
    )
    assert "objectives" not in problem.search(objectives=["score"]).settings
    with pytest.raises(SearchError, match="one objective; give a statistic"):
        plain.pareto()
    assert plain.hypervolumes == plain.reference_point == {}


def test_the_front_of_losses_is_that_of_scores() -> None:
    score, loss = _search().run(_score), _search(direction="minimize").run(_loss)
    assert _ids(loss) == _ids(score)
    assert [t.id for t in loss.pareto()] == [t.id for t in score.pareto()]
    assert loss.hypervolumes == pytest.approx(score.hypervolumes)
    assert loss.reference_point["score"] == pytest.approx(-score.reference_point["score"])


def test_more_costs_and_costs_to_maximise() -> None:
    result = _search(objectives=["score", "-macs", "params"]).run(_score)
    assert [str(o) for o in result.objectives.all] == [
        "score (maximize)", "macs (minimize)", "params (maximize)",
    ]  # fmt: skip
    assert result.reference_point["params"] < min(t.statistics["params"] for t in result.feasible)


def test_the_first_batch_is_spread_over_the_logarithm_of_the_first_cost() -> None:
    search = _search(batch_size=16)
    costs = np.log([t.statistics["macs"] for t in search.ask()])
    pool = np.log(search.plan.pool.statistics["macs"])
    counts, _ = np.histogram(costs, 4, (pool.min(), pool.max()))
    assert counts.min() >= 3  # 4 each, but for bins without candidates


@pytest.mark.parametrize("predictor", ["paper", "random"])
def test_predictors_without_a_posterior_fill_the_bins_of_the_first_cost(predictor: str) -> None:
    result = _search(predictor=predictor).run(_score)
    costs = [t.statistics["macs"] for t in result.trials if t.batch == 1]
    assert np.ptp(costs) > 0.5 * np.ptp(_search().plan.pool.statistics["macs"])


def test_several_scores_are_learned_and_kept(tmp_path: Path) -> None:
    objectives, url = ["top1", "-error", "-macs"], f"sqlite:///{tmp_path / 'a.db'}"
    result = _search(objectives=objectives, storage=url).run(several)
    assert all(t.scores["top1"] == t.score == t.final_score for t in result.trials)
    again = _search(objectives=objectives, storage=url).run(lambda trial: 1 / 0)
    assert [t.scores for t in again.trials] == [t.scores for t in result.trials]
    points = np.array(
        [[t.scores["top1"], -t.scores["error"], -t.statistics["macs"]] for t in result.feasible]
    )
    assert (result.objectives.points(result.feasible) == points).all()
    assert len(result.pareto()) == is_non_dominated(torch.tensor(points)).sum()
    with pytest.raises(SearchError, match="objectives was"):
        _search(objectives=["top1", "-macs"], storage=url)


def test_stored_trials_that_lack_a_score_are_refused(tmp_path: Path) -> None:
    changes = {"objectives": ["top1", "-error"], "iterations": 1, "finalists": 0}
    changes["storage"] = f"sqlite:///{tmp_path / 'a.db'}"
    _search(**changes).run(several)
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute(
            "UPDATE trial_user_attributes SET value_json = replace(value_json, 'error', 'other')"
        )
    with pytest.raises(
        SearchError, match="not written by this search: it has no value of an objective"
    ):
        _search(**changes).result()


def test_workers_send_several_scores() -> None:
    sizes = {"batch_size": 3, "iterations": 1, "finalists": 0, "objectives": ["top1", "-error"]}
    ours, plain = (
        _search(executor=executor, **sizes).run(several)
        for executor in (LocalWorkers(1), InProcess())
    )
    assert [t.scores for t in ours.trials] == [t.scores for t in plain.trials]


@pytest.mark.slow
def test_a_killed_search_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    url, whole = f"sqlite:///{tmp_path / 'a.db'}", _search().run(_score)

    def stop(search: JointNAS, event: Any) -> None:
        if event.kind == "finish" and event.trial.number == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _search(storage=url).run(_score, callbacks=[stop])
    assert problem.summary(_search(storage=url).run(_score)) == problem.summary(whole)


@pytest.mark.slow
def test_failed_candidates_and_batches_ahead() -> None:
    def evaluate(trial: Trial) -> float:
        if trial.number % 4 == 0:
            raise RuntimeError("CUDA out of memory")
        return _score(trial)

    result = _search(ahead=3, iterations=3, batch_size=10).run(evaluate)
    assert len(result.trials) == 33
    assert sum(t.state == "failed" for t in result.trials) == 9


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (1.0, "returned 1.0, not a mapping of scores by name; the objectives need top1, error"),
        ({"top1": 1.0}, r"returned the scores \['top1'\]; the objectives also need error"),
        ({"top1": 1.0, "error": math.nan}, "error: the score is nan"),
        ({"top1": "a", "error": 1.0}, "top1: the score is 'a', not a number"),
        (None, "no score was returned"),
    ],
)
def test_wrong_scores_fail_a_candidate(returned: Any, reason: str) -> None:
    search = _search(objectives=["top1", "-error"], stop_after_failures=0, iterations=1)
    result = search.run(lambda trial: returned)
    assert {t.state for t in result.trials} == {"failed"}
    with pytest.raises(SearchError, match=reason):
        _ = result.best


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": "score"}, r"objectives='score' is not allowed; allowed: a list of names"),
        ({"objectives": []}, r"objectives=\[\] lacks a name"),
        ({"objectives": ["score", "-"]}, r"lacks a name; allowed"),
        ({"objectives": ["score", "-macs", "macs"]}, "has 'macs' twice; keep one"),
        ({"objectives": ["-score", "-macs"]}, "'-score' is not allowed; write 'score', and direct"),
        ({"objectives": ["- score", "-macs"]}, "'-score' is not allowed"),
        ({"objectives": ["score", "- macs", "-macs"]}, "has 'macs' twice; keep one"),
        ({"objectives": ["-macs"]}, "are statistics alone, which need no search; add 'score'"),
        ({"objectives": ["score", "-mac"]}, "no statistic 'mac'; .* macs, params.*macs"),
        ({"objectives": ["-loss", "-macs"]}, r"loss \(minimize\), contradicts direction='maximize"),
        ({"objectives": ["top1"], "direction": "minimize"}, "or write '-top1'"),
        (
            {"objectives": FRONT, "budgets": [Constraint("macs", upper=300.0)]},
            "budgets=.*drop one",
        ),
        (
            {"objectives": ["a", "b"], "predictor": "paper"},
            "predictor='paper' .* has a, b",
        ),
        (
            {"objectives": ["a", "b"], "warm_start": [(WARM, 1.0)]},
            "warm_start has one score for a candidate, but the search needs a, b; leave out",
        ),
    ],
)
def test_wrong_objectives_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        problem.search(**changes)


def test_json_keeps_all_scores_and_refuses_wrong_ones() -> None:
    trial = Trial("a", 0, 0, {}, score_names=("top1", "error"))
    trial.finish({"top1": 2, "error": np.float32(0.5), "time": "long"})
    again = trial_from_json(trial_to_json(trial))
    assert again.scores == {"top1": 2.0, "error": 0.5}
    assert again.score == 2.0
    plain = Trial("a", 0, 0, {})
    plain.finish(1.0)
    assert "scores" not in trial_to_json(plain)
    assert "score_names" not in trial_to_json(trial)
    with pytest.raises(SearchError, match="bad value of scores"):
        trial_from_json(trial_to_json(trial).replace("0.5", "NaN"))
