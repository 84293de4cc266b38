"""The levels of trials (indices of the values of variables), each computed only once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial


class TrialLevels:
    """Levels by trial id.

    Args:
        space: Space of the trials.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._rows: dict[str, Levels] = {}

    def add(self, ids: Sequence[str], levels: Levels) -> None:
        """Adds candidates whose levels are known.

        Args:
            ids: Ids of the candidates' trials.
            levels: (candidates, variables) levels.
        """
        self._rows |= zip(ids, levels, strict=True)

    def of(self, trials: Sequence[Trial]) -> Levels:
        """Returns the levels of trials, (trials, variables)."""
        new = [t for t in trials if t.id not in self._rows]
        if new:
            self.add([t.id for t in new], self._space.levels([t.config for t in new]))
        rows = [self._rows[t.id] for t in trials]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self._space))
