"""Output warping of a Gaussian process: labels are log-warped below the median, or left unchanged.

The labels of diverged trainings lie so far below all others that standardisation would leave the
others nearly equal. A warp repairs that, but it also bends smooth functions, and their peak is then
located less precisely. So both forms of the labels are fitted, and the one with the higher evidence
is kept. With m the median of the labels and u the distance from it to the best label, the warp is

    w(t) = t                                  if t >= m
    w(t) = m - u log(1 + (m - t) / u)         if t < m
    w'(t) = 1 / (1 + (m - t) / u)             if t < m, else 1

The evidence of the labels t follows by the change of variables y = (w(t) - mean) / std (Snelson et
al., 2004, "Warped Gaussian Processes"):

    log p(t) = log p(y) + sum_i log(w'(t_i) / std)

The maximum of log p(y | X, theta) + log p(theta) over the hyperparameters theta
(``hyperparameters.py``) stands in for log p(y).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fbnetv3.search.predictors.gp import GaussianProcess
from fbnetv3.search.predictors.hyperparameters import (
    MapEstimate,
    evenly_spaced,
    find_map_estimate,
    fit_gp,
)
from fbnetv3.search.predictors.networks import Floats, standardise

_FARTHEST = 1e3
"""Labels are clipped at this many times u below the median before they are warped."""


def fit_warped_gp(
    X: Floats, labels: Floats, init_from: Floats, errors: Floats | None = None
) -> GaussianProcess:
    """Fits a GP to the labels or to the warped labels, whichever has the higher evidence.

    If there are more than FIT_POINTS labels (see ``hyperparameters.py``), the evidence is compared
    on FIT_POINTS of them, with evenly spaced indices.

    Args:
        X: (n, d) features in [0, 1].
        labels: (n,) labels; higher is better.
        init_from: (d + 2,) log hyperparameters from which the fits start.
        errors: (n,) standard deviation of each label's own error, before the warp; None: 0.
            Errors of warped labels are, to first order, these times the slope w' at the label.
    """
    warped, slopes = log_below_median(labels)
    forms = [_Form(labels, np.ones_like(labels), errors)]
    if (slopes < 1).any():
        forms.append(_Form(warped, slopes, None if errors is None else errors * slopes))
    part = evenly_spaced(len(labels))
    fits = [_fit(X[part], form.part(part), init_from) for form in forms]
    best = int(np.argmax([evidence for evidence, _ in fits]))
    y, _, std = standardise(forms[best].labels)
    stds = forms[best].in_units_of(std)
    if len(part) == len(labels):
        return GaussianProcess(X, y, fits[best][1].theta, stds)
    return fit_gp(X, y, fits[best][1].theta, stds)


class _Form(NamedTuple):
    """Labels, slopes of the warp at them (1 without a warp), and their errors, (n,) each."""

    labels: Floats
    slopes: Floats
    errors: Floats | None

    def part(self, rows: npt.NDArray[np.int64]) -> _Form:
        errors = None if self.errors is None else self.errors[rows]
        return _Form(self.labels[rows], self.slopes[rows], errors)

    def in_units_of(self, std: float) -> Floats | None:
        """Returns the errors of the labels divided by ``std``, (n,); None: 0."""
        return None if self.errors is None else self.errors / std


def _fit(X: Floats, form: _Form, init_from: Floats) -> tuple[float, MapEstimate]:
    """Returns the log evidence of the labels before the warp, up to a constant, and the fit."""
    y, _, std = standardise(form.labels)
    estimate = find_map_estimate(X, y, init_from, form.in_units_of(std))
    return estimate.log_posterior + float(np.log(form.slopes / std).sum()), estimate


def log_below_median(labels: Floats) -> tuple[Floats, Floats]:
    """Returns warped labels and the slopes of the warp at the labels, (n,) each.

    Args:
        labels: (n,) labels; higher is better.
    """
    median, best = np.median(labels), labels.max()
    unit = best - median
    if not unit > 0:
        return labels, np.ones_like(labels)
    distance = np.clip((median - labels) / unit, 0.0, _FARTHEST)
    warped = np.where(labels < median, median - unit * np.log1p(distance), labels)
    return warped, 1 / (1 + distance)
