"""Calibration: the values of scikit-learn, and of the definition, written as a loop."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from fbnetv3.evaluation.calibration import calibration_of


def _reference(confidence: np.ndarray, is_right: np.ndarray, bins: int) -> tuple[float, float]:
    """Returns ECE and MCE after Guo et al. (2017), equations 3 and 5: bins ((m-1)/M, m/M]."""
    ece, mce = 0.0, 0.0
    for m in range(1, bins + 1):
        inside = [i for i, p in enumerate(confidence) if (m - 1) / bins < p <= m / bins]
        if inside:
            gap = abs(
                sum(bool(is_right[i]) for i in inside) / len(inside)
                - sum(float(confidence[i]) for i in inside) / len(inside)
            )
            ece += len(inside) / len(confidence) * gap
            mce = max(mce, gap)
    return ece, mce


@pytest.mark.parametrize(("seed", "bins"), [(0, 15), (1, 10), (2, 1), (3, 400)])
def test_the_errors_are_those_of_the_definition(seed: int, bins: int) -> None:
    generator = np.random.default_rng(seed)
    confidence = generator.beta(5, 2, 500)
    is_right = generator.random(500) < confidence**2
    made = calibration_of(confidence, is_right, bins)
    ece, mce = _reference(confidence, is_right, bins)
    assert made.expected_error == pytest.approx(ece, abs=1e-12)
    assert made.maximum_error == pytest.approx(mce, abs=1e-12)
    assert made.counts.sum() == 500
    accuracy, mean = calibration_curve(is_right, confidence, n_bins=bins, strategy="uniform")
    is_filled = made.counts > 0
    assert made.accuracy[is_filled] == pytest.approx(accuracy)
    assert made.confidence[is_filled] == pytest.approx(mean)


def test_edges_and_empty_bins() -> None:
    made = calibration_of(
        np.array([0.0, 0.5, 0.5000001, 1.0]), np.array([False, True, True, True]), 2
    )
    assert made.counts.tolist() == [2, 2]
    assert calibration_of(np.zeros(0), np.zeros(0, bool)).expected_error == 0
    assert np.isnan(calibration_of(np.ones(3), np.ones(3, bool)).accuracy[:-1]).all()
