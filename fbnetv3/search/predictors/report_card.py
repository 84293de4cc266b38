"""How well the predictor ranks: by cross-validation, and against the batch it proposed."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import kendalltau, spearmanr

from fbnetv3.search.predictors.networks import Floats

_log = logging.getLogger(__name__)
_CHANCE = 0.05


@dataclass(frozen=True)
class ReportCard:
    """Rank correlations of one round.

    Attributes:
        trials: that the predictor was fitted on.
        kendall, spearman, rmse: of scores predicted without their own label, and true ones.
        p_value: of Kendall's tau under chance.
        batch: (predicted, outcome) of the batch proposed before, where it was predicted.
        batch_kendall: tau of these, NaN where there are fewer than 3.
        held_out: (predicted without its own label, score) of each trial.
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
    def no_better_than_chance(self) -> bool:
        """Whether the predictor might as well be guessing."""
        return not (self.kendall > 0 and self.p_value < _CHANCE)

    def __str__(self) -> str:
        return (
            f"predictor on {self.trials} trials, cross-validated: Kendall {self.kendall:.2f}, "
            f"Spearman {self.spearman:.2f}, RMSE {self.rmse:.3g}; last batch: Kendall "
            f"{self.batch_kendall:.2f}"
        )


def make_card(predicted: Floats, labels: Floats, batch: list[tuple[float, float]]) -> ReportCard:
    """Compares predictions with outcomes, and warns of a predictor that guesses.

    Args:
        predicted: (n,) cross-validated predictions.
        labels: (n,) scores.
        batch: see ReportCard.
    """
    tau, p_value = kendall(predicted, labels)
    pairs = np.array(batch, dtype=np.float64).reshape(len(batch), 2)
    card = ReportCard(
        trials=len(labels),
        kendall=tau,
        spearman=_spearman(predicted, labels),
        rmse=float(np.sqrt(np.mean((predicted - labels) ** 2))),
        p_value=p_value,
        batch=batch,
        batch_kendall=kendall(pairs[:, 0], pairs[:, 1])[0],
        held_out=list(zip(predicted.tolist(), labels.tolist(), strict=True)),
    )
    if card.no_better_than_chance:
        _log.warning(
            "the predictor ranks no better than chance (Kendall %.2f on %d trials): scores may "
            "be noise, or more trials are needed",
            tau,
            len(labels),
        )
    return card


def kendall(a: Floats, b: Floats) -> tuple[float, float]:
    """Returns Kendall's tau and its p-value under chance, NaN where there is no order."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan, math.nan
    found = kendalltau(a, b)
    return float(found.statistic), float(found.pvalue)


def _spearman(a: Floats, b: Floats) -> float:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(spearmanr(a, b).statistic)
