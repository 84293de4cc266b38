"""Expected improvement of a normal random variable, as a logarithm.

Notation:

    mean, std  mean and standard deviation of the variable
    best       threshold: the value to improve on
    z          (mean - best) / std
    phi, Phi   density and distribution function of the standard normal distribution

Expected improvement underflows far below the threshold; its logarithm does not (Ament et al., 2023,
"Unexpected Improvements to Expected Improvement for Bayesian Optimization", Eqs. 8 and 9):

    log EI = log h(z) + log std,    h(z) = phi(z) + z Phi(z)

    log h(z) = log(phi(z) + z Phi(z))                                      if z > -1
    log h(z) = log phi(z) + log(1 + z sqrt(pi / 2) erfcx(-z / sqrt(2)))    if -1e5 < z <= -1
    log h(z) ~ log phi(z) - 2 log |z|                                      if z <= -1e5
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import erfcx, ndtr

from fbnetv3.search.predictors.networks import Floats

_ASYMPTOTE = 1e5
"""For z <= -1e5, the asymptote of log h is exact to double precision."""
_SQRT_2PI = math.sqrt(2 * math.pi)


def log_expected_improvement(mean: Floats, std: Floats, best: float | Floats) -> Floats:
    """Returns the natural logarithm of the expected improvement over ``best``.

    Args:
        mean: Posterior means, of any shape.
        std: Posterior standard deviations, of a shape that broadcasts with that of the means.
        best: Value to improve on, of a shape that broadcasts with that of the means.
    """
    z = (mean - best) / std
    log_phi = -(z**2) / 2.0 - math.log(_SQRT_2PI)
    # faster than scipy.stats.norm, which spends most of its time on checking arguments
    near = np.maximum(z, -1.0)
    h = np.exp(-(near**2) / 2.0) / _SQRT_2PI + near * ndtr(near)
    below = np.clip(z, -_ASYMPTOTE, -1.0)
    ratio = np.log1p(below * (math.sqrt(math.pi / 2) * erfcx(-below / math.sqrt(2))))
    asymptote = -2 * np.log(np.maximum(np.abs(z), 1.0))
    log_ratio = np.where(z > -_ASYMPTOTE, ratio, asymptote)
    log_h = np.where(z > -1.0, np.log(h), log_phi + log_ratio)
    return np.asarray(log_h + np.log(std))
