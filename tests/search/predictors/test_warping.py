from __future__ import annotations

import numpy as np
import pytest
from scipy.differentiate import derivative

from fbnetv3.search.predictors.hyperparameters import fit_gp
from fbnetv3.search.predictors.networks import standardise
from fbnetv3.search.predictors.warping import fit_warped_gp, log_below_median


def test_labels_above_the_median_stay_and_others_keep_their_order() -> None:
    labels = np.random.default_rng(0).normal(70, 3, 101)
    warped, slopes = log_below_median(labels)
    above = labels >= np.median(labels)
    assert (warped[above] == labels[above]).all()
    assert (np.argsort(warped) == np.argsort(labels)).all()
    assert (warped >= labels).all()
    assert (slopes[above] == 1).all()


def test_slopes_are_the_derivative_of_the_warp() -> None:
    labels = np.random.default_rng(0).normal(70, 3, 101)
    _, slopes = log_below_median(labels)
    worst = int(np.argmin(labels))

    def warp_worst(values: np.ndarray) -> np.ndarray:
        """Returns the warped labels of the worst candidate if its label had these values."""
        results = []
        for value in np.ravel(values):
            changed = labels.copy()
            changed[worst] = value
            results.append(log_below_median(changed)[0][worst])
        return np.reshape(results, np.shape(values))

    numerical = derivative(warp_worst, labels[worst], initial_step=0.1).df
    assert slopes[worst] == pytest.approx(numerical, rel=1e-6)


def test_equal_labels_are_not_warped() -> None:
    warped, slopes = log_below_median(np.full(5, 3.0))
    assert warped.tolist() == [3.0] * 5
    assert slopes.tolist() == [1.0] * 5


def _labels_of_fit(X: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the labels that the process is fitted to, warped or not, standardised."""
    theta = fit_gp(X, standardise(labels)[0]).theta
    return fit_warped_gp(X, labels, init_from=theta).y.numpy()


def test_labels_of_a_smooth_function_are_not_warped() -> None:
    X = np.random.default_rng(0).random((60, 2))
    labels = -(((X - 0.4) ** 2) @ np.array([50.0, 10.0]))
    assert _labels_of_fit(X, labels) == pytest.approx(standardise(labels)[0])


@pytest.mark.parametrize("failed", [-1e6, -1e30])
def test_diverged_trainings_leave_the_other_labels_apart(failed: float) -> None:
    X = np.random.default_rng(0).random((60, 2))
    labels = 75 - 5 * ((X - 0.4) ** 2).sum(1)
    labels[::9] = failed
    y = _labels_of_fit(X, labels)
    others = np.delete(y, np.s_[::9])
    assert np.ptp(others) > 0.05 * np.ptp(y)
