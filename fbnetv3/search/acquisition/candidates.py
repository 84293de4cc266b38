"""Where the candidates of a batch come from: the pool, the best trained ones, their children."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.constraints import Constraint, Costs, feasible
from fbnetv3.search.space.encoding import Encoding, Features
from fbnetv3.search.space.genetic import children_of, mutate
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool, priced
from fbnetv3.search.space.space import SearchSpace, unique_rows

_STARTS = 2048


@dataclass(frozen=True)
class Candidates:
    """A constrained space with what is known of it.

    Attributes:
        space, encoding, costs, constraints: the problem.
        pool: feasible candidates.
        elite: the best trained candidates, best first, (n, variables).
    """

    space: SearchSpace
    encoding: Encoding
    costs: Costs
    constraints: Sequence[Constraint]
    pool: Pool
    elite: Levels

    def encode(self, levels: Levels) -> Features:
        """Returns features, (candidates, width)."""
        return self.encoding.encode(levels)

    def feasible(self, levels: Levels) -> np.ndarray:
        """Returns which candidates meet the constraints."""
        if not self.constraints:
            return np.ones(len(levels), dtype=bool)
        return feasible(self.costs(levels), self.constraints, len(levels))

    def starts(self, random: np.random.Generator) -> Levels:
        """Returns part of the pool and as many mutants of the elite, feasible and distinct."""
        part = self.pool.levels[random.permutation(len(self.pool))[:_STARTS]]
        if not len(self.elite):
            return part
        parents = self.elite[random.integers(0, len(self.elite), _STARTS)]
        born = mutate(self.space, parents, self.many_rates(_STARTS, random), random)
        both = np.concatenate([part, born[self.feasible(born)]])
        return both[unique_rows(both)]

    def children(
        self, parents: Levels, mothers: np.ndarray, random: np.random.Generator
    ) -> tuple[Levels, np.ndarray]:
        """Returns feasible children, and for each the index of its mother.

        Args:
            parents: (n, variables); fathers are drawn from all of them.
            mothers: indices into them, one a child.
            random: source of all draws.
        """
        rates = self.many_rates(len(mothers), random)
        born = children_of(self.space, parents, mothers, 0.5, rates, random)
        allowed = self.feasible(born)
        return born[allowed], mothers[allowed]

    def many_rates(self, count: int, random: np.random.Generator) -> Floats:
        """Draws mutation rates between one variable and half of them, evenly in the logarithm."""
        least = 1 / len(self.space)
        return np.exp(random.uniform(np.log(least), np.log(max(least, 0.5)), count))

    def priced(self, levels: Levels) -> Pool:
        """Returns candidates with their statistics."""
        return priced(self.costs, levels)
