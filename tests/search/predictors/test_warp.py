from __future__ import annotations

import numpy as np
import pytest
from scipy.differentiate import derivative

from fbnetv3.search.predictors.gp import GaussianProcess
from fbnetv3.search.predictors.networks import standardised
from fbnetv3.search.predictors.warp import process_of_labels, squeezed_below


def test_better_labels_stay_and_worse_keep_their_order() -> None:
    labels = np.random.default_rng(0).normal(70, 3, 101)
    squeezed, slopes = squeezed_below(labels)
    above = labels >= np.median(labels)
    assert (squeezed[above] == labels[above]).all()
    assert (np.argsort(squeezed) == np.argsort(labels)).all()
    assert (squeezed >= labels).all()
    assert (slopes[above] == 1).all()


def test_slopes_are_the_derivative() -> None:
    labels = np.random.default_rng(0).normal(70, 3, 101)
    _, slopes = squeezed_below(labels)
    low = int(np.argmin(labels))

    def at(value: np.ndarray) -> np.ndarray:
        flat = []
        for v in np.ravel(value):
            changed = labels.copy()
            changed[low] = v
            flat.append(squeezed_below(changed)[0][low])
        return np.reshape(flat, np.shape(value))

    assert slopes[low] == pytest.approx(derivative(at, labels[low], initial_step=0.1).df, rel=1e-6)


def test_equal_labels_are_left_alone() -> None:
    squeezed, slopes = squeezed_below(np.full(5, 3.0))
    assert squeezed.tolist() == [3.0] * 5
    assert slopes.tolist() == [1.0] * 5


def _fit(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns what the process has for labels, standardised."""
    like = GaussianProcess(x, standardised(labels)[0])
    return process_of_labels(x, labels, like)._y.numpy()


def test_a_smooth_function_is_not_bent() -> None:
    x = np.random.default_rng(0).random((60, 2))
    labels = -(((x - 0.4) ** 2) @ np.array([50.0, 10.0]))
    assert _fit(x, labels) == pytest.approx(standardised(labels)[0])


@pytest.mark.parametrize("failed", [-1e6, -1e30])
def test_trainings_that_diverged_do_not_drown_the_rest(failed: float) -> None:
    x = np.random.default_rng(0).random((60, 2))
    labels = 75 - 5 * ((x - 0.4) ** 2).sum(1)
    labels[::9] = failed
    found = _fit(x, labels)
    good = np.delete(found, np.s_[::9])
    assert np.ptp(good) > 0.05 * np.ptp(found)
