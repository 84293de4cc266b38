"""The unit in which predictors learn scores, and the conversion of predictions back to scores.

The unit of the scores hardly matters to a search: accuracies in percent or as fractions, losses to
minimise or negative losses to maximise. Predictors learn gains (``direction.py``) after a shift and
a division by a power of two, and standardise these values or replace them by normal scores. The
division is exact unless a number underflows, and the shift is exact as long as float64 can
represent the differences. A change of the unit by a factor that is no power of two, such as from
fractions to percent, changes what is learned by rounding errors alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fbnetv3.search.direction import MAXIMIZE, gain
from fbnetv3.search.predictors.encoder import Pretrained
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.predictors.predictor import Fit, Predictor
from fbnetv3.search.space.encoding import Features
from fbnetv3.search.space.scaling import binary_exponent, scaled

_EQUAL = 2.0**-46
"""Scores whose range is at most this share of their magnitude differ by rounding alone."""


@dataclass(frozen=True)
class ScoreUnit:
    """The map from scores to values to learn: (gain / 2^outer - center) / 2^inner.

    Attributes:
        outer: Binary exponent of the largest magnitude of the gains.
        center: Lower median of the gains, divided by 2^outer.
        inner: Binary exponent of the largest magnitude of gain / 2^outer - center; 0 if the scores
            are equal up to rounding.
        direction: ``maximize``, where gains are scores, or ``minimize``.
    """

    outer: int
    center: float
    inner: int
    direction: str = MAXIMIZE

    @classmethod
    def of(cls, scores: Floats, direction: str = MAXIMIZE) -> ScoreUnit:
        """Returns the unit of scores, (n,).

        In this unit, the lower median of the gains is 0, and their largest magnitude is from 1/2
        to 1, unless the scores are equal up to rounding.
        """
        outer = binary_exponent(scores)
        shares = scaled(gain(scores, direction), -outer)
        # One of the scores, not a mean of two, which may need more bits than the scores have.
        center = float(np.sort(shares)[(len(shares) - 1) // 2])
        inner = 0 if np.ptp(shares) <= _EQUAL else binary_exponent(shares - center)
        return cls(outer, center, inner, direction)

    def from_scores(self, scores: Floats) -> Floats:
        """Returns scores in this unit, (n,)."""
        gains = gain(scores, self.direction)
        return scaled(scaled(gains, -self.outer) - self.center, -self.inner)

    def from_differences(self, differences: Floats) -> Floats:
        """Returns differences of scores, such as standard deviations, in this unit, (n,)."""
        return scaled(scaled(differences, -self.outer), -self.inner)

    def to_scores(self, units: Floats) -> Floats:
        """Returns the scores, (n,), of values in this unit, clipped to the range of float64."""
        gains = scaled(scaled(units, self.inner) + self.center, self.outer)
        return gain(gains, self.direction)


class ScorePredictor:
    """A fitted predictor, with predictions in the unit of the scores.

    Args:
        fit: Function that fits the predictor.
        features: (n, width) features.
        scores: (n,) finite scores of any magnitude.
        pretrained: Encoder of the architecture.
        seed: Random seed of the fit.
        direction: ``maximize`` or ``minimize``.
        errors: (n,) standard deviation of each score around the final score; None: 0.

    Attributes:
        unit: Unit in which the predictor has learned the scores.
        fitted: Fitted predictor; its predictions are values in this unit, higher is better.
    """

    def __init__(
        self,
        fit: Fit,
        features: Features,
        scores: Floats,
        pretrained: Pretrained,
        seed: int,
        direction: str = MAXIMIZE,
        errors: Floats | None = None,
    ) -> None:
        self.unit = ScoreUnit.of(scores, direction)
        labels = self.unit.from_scores(scores)
        if errors is not None and errors.any():
            self.fitted: Predictor = fit(
                features, labels, pretrained, seed, self.unit.from_differences(errors)
            )
        else:
            self.fitted = fit(features, labels, pretrained, seed)

    def predict(self, features: Features) -> Floats:
        """Returns predicted scores, (m,), at features (m, width)."""
        return self.unit.to_scores(self.fitted.predict(features))

    def cross_validated(self) -> Floats:
        """Returns a cross-validated prediction of each score, (n,)."""
        return self.unit.to_scores(self.fitted.cross_validated())
