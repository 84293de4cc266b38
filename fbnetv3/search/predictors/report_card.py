"""Rank correlations of a predictor: cross-validated, and on the batch that it chose."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.scaling import binary_exponent, scaled

_log = logging.getLogger(__name__)
_SIGNIFICANCE = 0.05
"""The predictor ranks better than chance if the p-value of its Kendall's tau is below this."""
_MIN_VALUES = 3
"""Smallest number of values whose rank correlation is computed."""
_MIN_TRIALS = 24
"""Number of trials at which a Kendall's tau of 0.3 is significant."""


@dataclass(frozen=True)
class ReportCard:
    """Rank correlations of predicted and true scores after a batch.

    ``kendall``, ``spearman`` and ``p_value`` are NaN for fewer than 3 trials, and if all
    predictions or all scores are equal.

    Attributes:
        trials: Number of trials that the predictor was fitted to.
        kendall: Kendall's tau of the cross-validated predictions, in [-1, 1].
        spearman: Spearman's rho of the cross-validated predictions, in [-1, 1].
        rmse: Root mean squared error of the cross-validated predictions, in units of the score.
        p_value: Probability that random predictions have a Kendall's tau at least as extreme.
        batch: (predicted, true) score of each trial of the last batch that has both. The score was
            predicted when the trial was proposed.
        batch_kendall: Kendall's tau of ``batch``; NaN for fewer than 3 trials, and if all
            predictions or all scores are equal.
        held_out: (cross-validated prediction, true score) of each trial; [] if they were not kept.
    """

    trials: int
    kendall: float
    spearman: float
    rmse: float
    p_value: float
    batch: list[tuple[float, float]]
    batch_kendall: float
    held_out: list[tuple[float, float]] = field(default_factory=list, repr=False)

    @property
    def problem(self) -> str:
        """Why the predictor cannot be relied on; empty if its ranking is better than chance."""
        if self.kendall > 0 and self.p_value < _SIGNIFICANCE:
            return ""
        if math.isnan(self.kendall) and self.trials >= _MIN_VALUES:
            return "all scores or all predictions are equal"
        return "too few trials to tell" if self.trials < _MIN_TRIALS else "no better than chance"

    def summary(self) -> dict[str, Any]:
        """Returns the summary numbers by name, without the scores of single trials."""
        return {k: v for k, v in vars(self).items() if k not in ("batch", "held_out")}

    def __str__(self) -> str:
        return (
            f"predictor on {self.trials} trials, cross-validated: Kendall "
            f"{_correlation(self.kendall)}, Spearman {_correlation(self.spearman)}, RMSE "
            f"{self.rmse:.3g}; last batch: Kendall {_correlation(self.batch_kendall)}"
        )


def _correlation(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2f}"


def make_card(predicted: Floats, labels: Floats, batch: list[tuple[float, float]]) -> ReportCard:
    """Returns the report card of predictions; logs the problem if they cannot be relied on.

    Args:
        predicted: (trials,) cross-validated predictions.
        labels: (trials,) true scores.
        batch: (predicted, true) score of each trial of the last batch.
    """
    tau, p_value = kendall(predicted, labels)
    pairs = np.array(batch, dtype=np.float64).reshape(len(batch), 2)
    card = ReportCard(
        trials=len(labels),
        kendall=tau,
        spearman=_spearman(predicted, labels),
        rmse=_rmse(predicted, labels),
        p_value=p_value,
        batch=batch,
        batch_kendall=kendall(pairs[:, 0], pairs[:, 1])[0],
        held_out=list(zip(predicted.tolist(), labels.tolist(), strict=True)),
    )
    _log_problem(card)
    return card


def _log_problem(card: ReportCard) -> None:
    if card.problem == "no better than chance":
        _log.warning(
            "the predictor ranks no better than chance (Kendall %.2f on %d trials): the scores "
            "may be mostly noise, or more trials are needed",
            card.kendall,
            card.trials,
        )
    elif card.problem == "too few trials to tell":
        _log.info(
            "too few trials to tell whether the predictor ranks better than chance (Kendall %.2f "
            "on %d trials)",
            card.kendall,
            card.trials,
        )
    elif card.problem:
        _log.warning(
            "%s (%d trials): the predictor has nothing to rank by; candidates may be trained too "
            "briefly, or the score may be too coarse",
            card.problem,
            card.trials,
        )


def kendall(a: Floats, b: Floats) -> tuple[float, float]:
    """Returns Kendall's tau of a and b, (n,), and its p-value.

    Both are NaN for fewer than 3 values, and if all values of a or all values of b are equal.
    """
    if len(a) < _MIN_VALUES or _are_equal(a) or _are_equal(b):
        return math.nan, math.nan
    test = kendalltau(a, b)
    return float(test.statistic), float(test.pvalue)


def _spearman(a: Floats, b: Floats) -> float:
    if len(a) < _MIN_VALUES or _are_equal(a) or _are_equal(b):
        return math.nan
    return float(spearmanr(a, b).statistic)


def _are_equal(values: Floats) -> bool:
    return bool(values.min() == values.max())  # compared, since a difference may overflow


def _rmse(predicted: Floats, labels: Floats) -> float:
    exponent = binary_exponent(predicted, labels)
    errors = scaled(predicted, -exponent) - scaled(labels, -exponent)
    return float(scaled(np.sqrt(np.mean(errors**2)), exponent))
