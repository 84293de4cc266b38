"""The log-uniform distribution of evenly spaced whole numbers.

The values are low, low + step, ..., high. A real number is log-uniform between lower, which is
low - step / 2, and upper, which is high + step / 2. It is rounded to the nearest value, as Optuna's
IntDistribution(log=True) does for steps of 1. The probability of a value v is then close to
proportional to 1 / v:

    P(v) = log((v + step / 2) / (v - step / 2)) / log(upper / lower)

If low is below the step, low - step / 2 may be negative. Instead, lower is then
(low + step / 2) exp(-step / low), with which P(low) is proportional to 1 / low, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LogIntegers:
    """Log-uniform levels 0 to ``size - 1``, which stand for the values low, low + step, ...

    Attributes:
        low: Smallest value; above 0.
        step: Distance between neighbouring values; at least 1.
        size: Number of values; at least 2.
    """

    low: int
    step: int
    size: int

    @property
    def _log_ends(self) -> tuple[float, float]:
        """The logarithms of lower and upper; see the top of this file."""
        low, half = float(self.low), self.step / 2
        is_far_from_0 = self.low >= self.step
        log_lower = math.log(low - half) if is_far_from_0 else math.log(low + half) - 2 * half / low
        return log_lower, math.log(low + half + float(self.size - 1) * self.step)

    def levels_at(self, quantiles: Floats) -> Levels:
        """Returns the levels, (n,), at quantiles (n,) in [0, 1]."""
        lower, upper = self._log_ends
        values = np.exp(lower + quantiles * (upper - lower))
        levels = np.rint((values - self.low) / self.step).astype(np.int64)
        return np.clip(levels, 0, self.size - 1)

    def cumulative(self, levels: Levels) -> tuple[Floats, Floats]:
        """Returns P(level < l) and P(level <= l) for each given level l, (n,) each."""
        lower, upper = self._log_ends
        edges = self.low + (np.stack([levels, levels + 1]) - 0.5) * self.step
        is_lowest = levels <= 0
        edges[0] = np.where(is_lowest, 1.0, edges[0])  # above 0; its logarithm is not used
        shares = np.clip((np.log(edges) - lower) / (upper - lower), 0.0, 1.0)
        below = np.where(is_lowest, 0.0, shares[0])
        return below, np.where(levels >= self.size - 1, 1.0, shares[1])

    def other_levels(self, levels: Levels, quantiles: Floats) -> Levels:
        """Returns levels other than the given ones, (n,).

        Args:
            levels: (n,) levels to leave out, one from each draw.
            quantiles: (n,) quantiles of the distribution without that level, in [0, 1).
        """
        below, up_to = self.cumulative(levels)
        left_out = up_to - below
        position = quantiles * (1.0 - left_out)
        drawn = self.levels_at(np.where(position < below, position, position + left_out))
        return np.where(drawn == levels, self._neighbours(levels, position >= below), drawn)

    def near_levels(self, levels: Levels, shifts: Floats, up: npt.NDArray[np.bool_]) -> Levels:
        """Returns levels near the given ones, at least one level away, within the range.

        Args:
            levels: (n,) present levels.
            shifts: (n,) signed distances in quantiles of the distribution.
            up: (n,) whether a level moves up, not down, if its shift is too small to change it.
        """
        middle = np.mean(self.cumulative(levels), axis=0)
        moved = self.levels_at(np.clip(middle + shifts, 0.0, 1.0))
        return np.where(moved == levels, self._neighbours(levels, up), moved)

    def _neighbours(self, levels: Levels, up: npt.NDArray[np.bool_]) -> Levels:
        """Returns the next levels up or down; at an end of the range, the only neighbour."""
        last = self.size - 1
        up = np.where(levels == 0, True, np.where(levels == last, False, up))
        return np.where(up, np.minimum(levels + 1, last), levels - 1)
