"""Moves the continuous variables of a candidate to where a smooth value of it is highest.

Genetic operators find the peak; on a smooth one the last digits are a gradient's work.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from fbnetv3.search.candidates import Candidates
from fbnetv3.search.networks import Floats
from fbnetv3.search.parameters import Levels

ValueAndGradient = Callable[[Floats], tuple[float, Floats]]
"""Features of one candidate, (d,) -> a value and its gradient, (d,)."""
_STEPS = 30
_SHARES = np.array([1.0, 0.9, 0.75, 0.5, 0.25, 0.1, 0.03])
"""Of the way to the peak: where a constraint bars the peak, the farthest allowed is next to it."""


def polished(candidates: Candidates, start: Levels, value: ValueAndGradient) -> Levels:
    """Returns feasible candidates on the way from one to the peak nearby; none is the start itself.

    Args:
        candidates: their space; no continuous variables: nothing is returned.
        start: (variables,), feasible.
        value: to be climbed.
    """
    variables, columns = candidates.encoding.continuous(start)
    if not len(variables):
        return start[None][:0]
    features = candidates.encode(start[None])[0].astype(np.float64)

    def falling(units: Floats) -> tuple[float, Floats]:
        here = features.copy()
        here[columns] = units
        found, gradient = value(here)
        return -found, -gradient[columns]

    units = features[columns]
    bounds = [(0.0, 1.0)] * len(columns)
    peak = minimize(
        falling, units, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS}
    ).x
    way = units + _SHARES[:, None] * (peak - units)
    found = np.repeat(start[None], len(way), axis=0)
    found[:, variables] = np.rint(way * (candidates.space.sizes[variables] - 1))
    return found[candidates.feasible(found) & (found != start).any(axis=1)]
