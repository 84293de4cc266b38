"""The comparison of predictors with and without a pre-trained encoder."""

from __future__ import annotations

import math

import pytest

from fbnetv3.search import Choice, IntRange, JointNAS, SearchSpace
from fbnetv3.search.predictors.predictor import fit_function
from fbnetv3.search.report.pretraining import Comparison, compare_pretraining
from tests.search import problem


def test_predictors_are_compared_on_the_same_trials() -> None:
    search = problem.search()
    result = search.run(problem.evaluate)
    fit = fit_function("paper")  # reads architectures through the encoder alone
    rows = compare_pretraining(search.space, search.plan.pool, result.trials, fit, 0)
    assert rows[-1].trials == len(result.trials)
    assert [r.trials for r in rows] == sorted({r.trials for r in rows})
    assert all(-1 <= r.plain <= 1 and -1 <= r.pretrained <= 1 for r in rows)
    assert rows[-1].pretrained != rows[-1].plain


def test_chance_is_a_quantile_of_tau_under_random_predictions() -> None:
    # Kendall (1938): the standard deviation of tau for n = 10.
    assert Comparison(10, 0, 0).chance == pytest.approx(1.645 * math.sqrt(50 / 810))


def test_without_statistics_there_is_nothing_to_compare() -> None:
    space = SearchSpace([IntRange("a", 0, 30), Choice("b", ("x", "y", "z"))])
    search = JointNAS(space, pool_size=50, batch_size=6, iterations=2, finalists=0)
    result = search.run(lambda trial: float(trial.config["a"]))
    fit = fit_function("paper")
    assert compare_pretraining(space, search.plan.pool, result.trials, fit, 0) == []
