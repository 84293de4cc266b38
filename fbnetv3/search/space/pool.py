"""Candidates with their statistics, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fbnetv3.search.space.constraints import Columns
from fbnetv3.search.space.parameters import Levels


@dataclass(frozen=True)
class Pool:
    """Some candidates of a space and their statistics.

    Attributes:
        levels: (candidates, variables) canonical levels.
        statistics: {name: (candidates,)} values of each statistic.
    """

    levels: Levels
    statistics: Columns

    def __len__(self) -> int:
        return len(self.levels)

    def take(self, index: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Pool:
        """Returns the candidates at some indices, or where a mask is true."""
        return Pool(self.levels[index], {k: v[index] for k, v in self.statistics.items()})

    def joined(self, other: Pool) -> Pool:
        """Returns these candidates followed by another pool's."""
        return Pool(
            np.concatenate([self.levels, other.levels]),
            {k: np.concatenate([v, other.statistics[k]]) for k, v in self.statistics.items()},
        )

    def row(self, index: int) -> dict[str, float]:
        """Returns the statistics of one candidate by name."""
        return {name: float(values[index]) for name, values in self.statistics.items()}
