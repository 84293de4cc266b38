"""The architectures whose statistics are known, for statistics that take long to compute."""

from __future__ import annotations

import numpy as np

from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.space import SearchSpace, keys_of, unique_rows


class KnownArchitectures:
    """A set of architectures, each with a level for every variable of the part ``architecture``.

    Args:
        space: Space of the candidates.
        levels: (candidates, variables) levels whose architectures make up the set; at least one.
    """

    def __init__(self, space: SearchSpace, levels: Levels) -> None:
        self._space, self._columns = space, space.indices_of_part("architecture")
        architectures = levels[:, self._columns]
        self._rows = architectures[unique_rows(architectures)]
        self._keys = set(keys_of(self._rows))

    def has(self, levels: Levels) -> np.ndarray:
        """Returns which candidates have one of the architectures, (candidates,)."""
        keys = keys_of(levels[:, self._columns])
        return np.fromiter((key in self._keys for key in keys), bool, len(keys))

    def given_to(self, levels: Levels, first: int) -> Levels:
        """Gives the candidates the architectures of the set, one after the other.

        Args:
            levels: (candidates, variables) levels; those of the recipe are kept.
            first: Position of the first candidate's architecture in the set, modulo the size of the
                set.

        Returns:
            (candidates, variables) new levels, in which inactive variables have their first level.
        """
        changed = levels.copy()
        turns = (first + np.arange(len(levels))) % len(self._rows)
        changed[:, self._columns] = self._rows[turns]
        return self._space.canonical(changed)
