"""Scores, statistics and ranges of any magnitude."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fbnetv3.search import Choice, Constraint, FloatRange, JointNAS, SearchSpace, Trial
from fbnetv3.search.acquisition.coarse import bins_of
from fbnetv3.search.acquisition.early_stopping import find_early_stop
from fbnetv3.search.acquisition.fine import adaptive_rates
from fbnetv3.search.history import History, score_trials
from fbnetv3.search.predictors.encoder import Pretrained
from fbnetv3.search.predictors.predictor import fit_function
from fbnetv3.search.predictors.report_card import make_card
from fbnetv3.search.predictors.score_unit import ScorePredictor, ScoreUnit

pytestmark = pytest.mark.usefixtures("short_training")

SPACE = SearchSpace([FloatRange("x", 0.0, 1.0), FloatRange("y", 0.0, 1.0), Choice("c", ("a", "b"))])
MAX = float(np.finfo(np.float64).max)


def _quality(config: dict[str, Any]) -> float:
    return -((config["x"] - 0.3) ** 2) - (config["y"] - 0.6) ** 2


def _proposals(factor: float, shift: float, **changes: Any) -> list[str]:
    arguments = {"pool_size": 128, "batch_size": 6, "iterations": 2, "finalists": 2, **changes}
    search = JointNAS(SPACE, **arguments)
    result = search.run(lambda t: factor * _quality(t.config) + shift)
    assert all(t.predicted is None or math.isfinite(t.predicted) for t in result.trials)
    return [t.id for t in result.trials] + [c.id for c in search.evolve(top_k=2)]


@pytest.fixture(scope="module")
def proposals() -> list[str]:
    return _proposals(1.0, 0.0)


@pytest.mark.parametrize(
    ("factor", "shift"),
    [(2.0**-44, 0.0), (1e160, 0.0), (1e-300, 0.0), (2.0**1020, 0.0), (100.0, 70.0), (1.0, -1024.0)],
)
def test_the_unit_of_the_scores_changes_no_proposal(
    proposals: list[str], factor: float, shift: float
) -> None:
    assert _proposals(factor, shift) == proposals


SCORES = np.random.default_rng(0).normal(70.0, 3.0, 24).round(3)


@pytest.mark.parametrize("name", ["default", "paper"])
@pytest.mark.parametrize("exponent", [-1060, -44, 3, 520, 1017])
def test_predictions_scale_with_powers_of_two_bit_for_bit(name: str, exponent: int) -> None:
    features = np.random.default_rng(1).random((24, 3)).astype(np.float32)
    fit = fit_function(name)
    factor = 2.0**exponent
    plain, large = (
        ScorePredictor(fit, features, scores, Pretrained([]), 0)
        for scores in (SCORES, SCORES * factor)
    )
    if exponent > -1000:  # below, digits of the scores are lost
        assert (large.predict(features) == plain.predict(features) * factor).all()
        assert (large.cross_validated() == plain.cross_validated() * factor).all()
    assert np.corrcoef(large.predict(features) / factor, plain.predict(features))[0, 1] > 0.99


@pytest.mark.parametrize("name", ["default", "paper", "random"])
@pytest.mark.parametrize(
    "special",
    [
        [1e300],
        [-1e300],
        [MAX],
        [-MAX, MAX],
        [MAX] * 24,
        [0.0] * 24,
        [5e-324, 1e-323],
        [0.1 + 0.2, 0.3] * 12,
    ],
)
def test_special_scores_give_finite_predictions(name: str, special: list[float]) -> None:
    scores = np.array([*special, *SCORES])[:24]
    features = np.random.default_rng(1).random((24, 3)).astype(np.float32)
    predictor = ScorePredictor(fit_function(name), features, scores, Pretrained([]), 0)
    predicted, cross_validated = predictor.predict(features), predictor.cross_validated()
    assert np.isfinite(predicted).all()
    assert np.isfinite(cross_validated).all()
    card = make_card(cross_validated, scores, [])
    assert math.isfinite(card.rmse)


@pytest.mark.parametrize(
    "scores", [[1.0], [3.0, 3.0], [0.0, 0.0], [-MAX, 0.0, MAX], [1e-320, 2e-320], [1e9, 1e9 + 1]]
)
def test_a_unit_maps_back_to_the_scores(scores: list[float]) -> None:
    values = np.array(scores)
    unit = ScoreUnit.of(values)
    units = unit.from_scores(values)
    assert np.abs(units).max() <= 2.0
    assert unit.to_scores(units) == pytest.approx(values, rel=1e-12)
    assert (np.diff(units) >= 0).all()


@pytest.mark.parametrize("factor", [1e-300, 1e-12, 1.0, 1e250])
def test_rates_and_bins_do_not_depend_on_the_unit(factor: float) -> None:
    values = np.array([1.0, 2.0, 4.0, 7.0])
    plain, scaled = (adaptive_rates(v, v, 5) for v in (values, values * factor))
    for a, b in zip(plain, scaled, strict=True):
        assert b == pytest.approx(a, rel=1e-12)
    assert bins_of(values * factor, 3).tolist() == bins_of(values, 3).tolist() == [0, 0, 1, 2]
    assert bins_of(np.array([-MAX, 0.0, MAX]), 2).tolist() == [0, 1, 1]


@pytest.mark.parametrize("factor", [1e-300, 1e290])
def test_statistics_of_any_magnitude(factor: float) -> None:
    def statistics(configs: list[dict[str, Any]]) -> dict[str, list[float]]:
        return {
            "macs": [factor * (1 + c["x"]) for c in configs],
            "signed": [factor * (c["y"] - 0.5) for c in configs],
        }

    search = JointNAS(
        SPACE,
        statistics=statistics,
        constraints=[Constraint("macs", upper=1.5 * factor), Constraint("signed", lower=0.0)],
        pool_size=128,
        batch_size=6,
        iterations=2,
        finalists=1,
    )
    result = search.run(lambda t: t.config["x"])
    assert 0.2 < result.best.config["x"] <= 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_reports_that_are_not_finite_count_as_missing(bad: float) -> None:
    curves = [[float(i), 10.0 + i, 20.0 + i] for i in range(4)]
    stop = find_early_stop([dict(enumerate(curve, 1)) for curve in curves], 0.9)
    assert stop is not None
    assert stop.epoch == 1
    curves[2][0] = bad
    stop = find_early_stop([dict(enumerate(curve, 1)) for curve in curves], 0.9)
    assert stop is not None
    assert (stop.epochs, stop.epoch) == ([2, 3], 2)


def _trial(number: int, batch: int, *curve: float) -> Trial:
    trial = Trial(f"t{number}", number, batch, {})
    trial.reports = dict(enumerate(curve, 1))
    trial.finish(20.0 + number)
    return trial


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_at_the_early_stop_are_finite(bad: float) -> None:
    first = [_trial(i, 0, 10.0 + i, 20.0 + i) for i in range(4)]
    known = score_trials(History.of([first, [_trial(4, 1, bad)]]), [], 0.9)
    assert known.epochs_of("coarse", is_whole=False) == 1
    assert known.scores == {0: 10.0, 1: 11.0, 2: 12.0, 3: 13.0, 4: 24.0}


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [
        (-1e308, 1e308, False),
        (-MAX, MAX, False),
        (0.0, MAX, False),
        (0.0, 1e-320, False),
        (1e-300, 1e300, True),
        (5e-324, 1e10, True),
        (5e-324, MAX, True),
        (1.0, 1.0 + 1e-12, True),
    ],
)
def test_values_of_wide_ranges_are_finite_and_have_their_level(
    low: float, high: float, log: bool
) -> None:
    parameter = FloatRange("x", low, high, log=log)
    levels = np.linspace(0, parameter.size - 1, 101).astype(int).tolist()
    values = [parameter.value(level) for level in levels]
    assert all(math.isfinite(value) and low <= value <= high for value in values)
    assert values == sorted(values)
    for value in values:
        assert parameter.value(parameter.level(value)) == pytest.approx(value, rel=1e-6, abs=0.0)
    middle = math.sqrt(low) * math.sqrt(high) if log else low / 2 + high / 2
    assert values[50] == pytest.approx(middle, rel=0.01, abs=1e-323)


def test_many_variables_and_columns_of_one_value() -> None:
    wide = SearchSpace([FloatRange(f"x{i}", 0.0, 1.0) for i in range(80)])
    assert len(JointNAS(wide, pool_size=128, batch_size=4).ask()) == 4
    flat = [Choice(f"c{i}", ("only",)) for i in range(80)]
    small = SearchSpace([Choice("a", (1, 2, 3)), *flat, Choice("b", (1, 2))])
    assert len(JointNAS(small, pool_size=128, batch_size=4).plan.pool) == 6
