"""Candidates with their statistics, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fbnetv3.search.space.constraints import Columns
from fbnetv3.search.space.parameters import Levels


@dataclass(frozen=True)
class Pool:
    """Candidates of a space with their statistics.

    Attributes:
        levels: (candidates, variables) levels, the indices of the variables' values; inactive
            variables have their first value.
        statistics: {name: (candidates,)} values of each statistic.
    """

    levels: Levels
    statistics: Columns

    def __len__(self) -> int:
        return len(self.levels)

    def take(self, index: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Pool:
        """Returns the candidates that an array of indices or a boolean mask selects."""
        return Pool(self.levels[index], {k: v[index] for k, v in self.statistics.items()})

    def joined(self, other: Pool) -> Pool:
        """Returns the candidates of this pool, followed by those of another."""
        return Pool(
            np.concatenate([self.levels, other.levels]),
            {k: np.concatenate([v, other.statistics[k]]) for k, v in self.statistics.items()},
        )

    def row(self, index: int) -> dict[str, float]:
        """Returns the statistics of one candidate by name."""
        return {name: float(values[index]) for name, values in self.statistics.items()}
