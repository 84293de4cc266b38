"""A Gaussian process of labels as they are, or with the bad half squeezed: whichever explains them.

Trainings that diverged would be all that a standardised label tells; a smooth function is bent by
any squeezing, and its peak found less exactly. So both are fitted, and their evidence decides.
"""

from __future__ import annotations

import numpy as np

from fbnetv3.search.predictors.gp import GaussianProcess, thinned
from fbnetv3.search.predictors.networks import Floats, standardised

_WORST = 1e3
"""Labels farther below the median, in distances from it to the best, are taken to be there."""


def process_of_labels(x: Floats, labels: Floats, like: GaussianProcess) -> GaussianProcess:
    """Fits the process of higher evidence of the two; of many labels, on a part of them.

    Args:
        x: (n, d) features in [0, 1].
        labels: (n,).
        like: a process of the same features, whose lengthscales the fits start from.
    """
    squeezed, slopes = squeezed_below(labels)
    forms = [(labels, np.ones_like(labels))]
    if (slopes < 1).any():
        forms.append((squeezed, slopes))
    part = thinned(len(labels))
    found = [_fitted(x[part], form[part], slope[part], like) for form, slope in forms]
    best = int(np.argmax([density for density, _ in found]))
    if len(part) == len(labels):
        return found[best][1]
    return GaussianProcess(x, standardised(forms[best][0])[0], found[best][1])


def _fitted(
    x: Floats, labels: Floats, slopes: Floats, like: GaussianProcess
) -> tuple[float, GaussianProcess]:
    """Returns the log density of the labels before the warp, less a constant, and the process."""
    y, _, deviation = standardised(labels)
    process = GaussianProcess(x, y, like)
    return process.log_evidence + float(np.log(slopes / deviation).sum()), process


def squeezed_below(labels: Floats) -> tuple[Floats, Floats]:
    """Returns labels with those below the median at the logarithm of their distance, and slopes.

    The warp is smooth: at the median, where it begins, its slope is 1. Its unit is the distance
    from the median to the best. The slopes are its derivatives at the labels.
    """
    middle, best = np.median(labels), labels.max()
    unit = best - middle
    if not unit > 0:
        return labels, np.ones_like(labels)
    below = np.clip((middle - labels) / unit, 0.0, _WORST)
    squeezed = np.where(labels < middle, middle - unit * np.log1p(below), labels)
    return squeezed, 1 / (1 + below)
