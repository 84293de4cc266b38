"""Normal scores: labels replaced by the normal quantiles of their ranks."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm, rankdata

from fbnetv3.search.predictors.networks import Floats


class NormalScores:
    """Normal scores of labels, and the inverse map from scores to labels.

    Args:
        labels: (n,) labels.

    Attributes:
        scores: (n,) normal scores of the labels, scaled to standard deviation 1; equal labels have
            equal scores. If all labels are equal, the scores are 0.
    """

    def __init__(self, labels: Floats) -> None:
        quantiles = norm.ppf((rankdata(labels) - 0.5) / len(labels))
        std = quantiles.std()
        self._unit = float(std) if std > 0 else 1.0
        self.scores: Floats = quantiles / self._unit
        self._knots, first = np.unique(np.sort(quantiles), return_index=True)
        self._labels = np.sort(labels)[first]

    def to_labels(self, scores: Floats) -> Floats:
        """Returns the labels, (m,), of scores (m,).

        Between the scores of neighbouring labels, the map is linear. Above the highest score it
        continues with the mean slope of the upper half of the scores, and below the lowest score
        with the mean slope of the lower half. If all labels are equal, every score maps to that
        label.
        """
        x, y = self._knots, self._labels
        quantiles = scores * self._unit
        inside = np.interp(quantiles, x, y)
        above, below = np.maximum(quantiles - x[-1], 0), np.minimum(quantiles - x[0], 0)
        return inside + _slope(x, y, -1) * above + _slope(x, y, 0) * below


def _slope(x: Floats, y: Floats, end: int) -> float:
    """Returns the mean slope of ascending points between the middle one and an end.

    Args:
        x: (n,) distinct abscissas, ascending.
        y: (n,) ordinates.
        end: Index of the end, 0 or -1.

    Returns:
        The mean slope: for two points the slope between them, for a single point 0.
    """
    middle = len(x) // 2
    run = x[end] - x[middle] if len(x) > 2 else x[-1] - x[0]
    rise = y[end] - y[middle] if len(x) > 2 else y[-1] - y[0]
    return float(rise / run) if run else 0.0
