"""Calibration: whether 80% of the predictions with a confidence of 80% are right.

The expected calibration error is that of Guo et al. (2017), On Calibration of Modern Neural
Networks: with M bins (a, b] of equal width, sum over bins of n_m / n |accuracy_m - confidence_m|,
where n_m of the n predictions are in bin m, and have this accuracy and this mean confidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
BINS = 15
"""Default number of bins."""


@dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy by bin of confidence.

    Attributes:
        edges: (bins + 1,) edges of the bins, from 0 to 1.
        counts: (bins,) number of predictions in each bin.
        confidence: (bins,) mean confidence of these predictions; NaN in an empty bin.
        accuracy: (bins,) share of these predictions that is right; NaN in an empty bin.
    """

    edges: Floats
    counts: npt.NDArray[np.int64]
    confidence: Floats
    accuracy: Floats

    @property
    def _gaps(self) -> Floats:
        return np.abs(self.accuracy - self.confidence)[self.counts > 0]

    @property
    def expected_error(self) -> float:
        """Expected calibration error (ECE), from 0 to 1; 0 without predictions."""
        counts = self.counts[self.counts > 0]
        return float((counts * self._gaps).sum() / counts.sum()) if counts.size else 0.0

    @property
    def maximum_error(self) -> float:
        """Largest |accuracy - confidence| of a bin, from 0 to 1; 0 without predictions."""
        return float(self._gaps.max(initial=0.0))


def calibration_of(
    confidence: Floats, is_right: npt.NDArray[np.bool_], bins: int = BINS
) -> Calibration:
    """Returns confidence and accuracy by bin.

    Args:
        confidence: (n,) probability of each prediction, in [0, 1].
        is_right: (n,) whether each prediction is right.
        bins: Number of bins of equal width, at least 1.
    """
    edges = np.linspace(0, 1, bins + 1)
    indices = np.searchsorted(edges[1:-1], confidence, side="left")
    counts = np.bincount(indices, minlength=bins)
    with np.errstate(invalid="ignore"):  # empty bins
        means = [
            np.bincount(indices, weights=values, minlength=bins) / counts
            for values in (confidence, is_right.astype(np.float64))
        ]
    return Calibration(edges, counts.astype(np.int64), *means)
