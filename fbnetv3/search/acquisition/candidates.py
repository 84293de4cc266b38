"""Candidates for a batch: the pool, the best candidates trained so far, and their children."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fbnetv3.search.acquisition.score_bounds import ScoreBounds
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.constraints import Mask
from fbnetv3.search.space.encoding import Encoding, Features
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.genetic import children_of, mutate
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.space import SearchSpace, unique_rows

ELITE = 32
"""Number of the best trained candidates (at most) that :meth:`Candidates.starts` mutates."""
_NUM_STARTS = 2048
"""Largest number of starts from the pool, and number of mutants drawn from the elite."""
_CROSSOVER_RATE = 0.5
"""Probability that a child is crossed with a father before it is mutated."""


@dataclass(frozen=True)
class Candidates:
    """A feasible space with the candidates from which the search for a batch starts.

    Attributes:
        feasible_space: Space and constraints.
        encoding: Encoding of the space's candidates as features.
        pool: Feasible candidates.
        elite: (candidates, variables) levels (indices of values) of the best candidates trained so
            far, best first.
        bounds: Model of the bounds on scores; None: scores have no bounds.
    """

    feasible_space: FeasibleSpace
    encoding: Encoding
    pool: Pool
    elite: Levels
    bounds: ScoreBounds | None = None

    @property
    def space(self) -> SearchSpace:
        """The search space without its constraints."""
        return self.feasible_space.space

    def encode(self, levels: Levels) -> Features:
        """Returns features, (candidates, width)."""
        return self.encoding.encode(levels)

    def feasible(self, levels: Levels) -> Mask:
        """Returns which candidates meet the constraints, (candidates,)."""
        return self.feasible_space.are_feasible(levels)

    def may_win(self, levels: Levels) -> Mask:
        """Returns which candidates meet the constraints and probably the bounds, (candidates,)."""
        mask = self.feasible(levels)
        return mask if self.bounds is None else mask & ~self.bounds.are_violated(levels)

    def with_statistics(self, levels: Levels) -> Pool:
        """Returns candidates with their statistics."""
        return self.feasible_space.with_statistics(levels)

    def starts(self, random: np.random.Generator) -> Levels:
        """Draws distinct feasible candidates: a part of the pool, and mutants of the elite."""
        part = self.pool.levels[random.permutation(len(self.pool))[:_NUM_STARTS]]
        if not len(self.elite):
            return part
        parents = self.elite[random.integers(0, len(self.elite), _NUM_STARTS)]
        mutants = mutate(self.space, parents, self.mutation_rates(_NUM_STARTS, random), random)
        starts = np.concatenate([part, mutants[self.feasible(mutants)]])
        return starts[unique_rows(starts)]

    def children(
        self, parents: Levels, mothers: np.ndarray, random: np.random.Generator
    ) -> tuple[Levels, np.ndarray]:
        """Returns feasible children, and the index of each child's mother.

        Args:
            parents: (parents, variables) levels; fathers are drawn from all of them.
            mothers: (children,) indices into ``parents``.
            random: Source of all draws.
        """
        rates = self.mutation_rates(len(mothers), random)
        children = children_of(self.space, parents, mothers, _CROSSOVER_RATE, rates, random)
        mask = self.feasible(children)
        return children[mask], mothers[mask]

    def mutation_rates(self, count: int, random: np.random.Generator) -> Floats:
        """Draws mutation rates, (count,).

        They are log-uniform between 1 / (number of variables), at which one variable of a candidate
        changes on average, and 0.5. With a single variable, all are 1.
        """
        least = 1 / len(self.space)
        return np.exp(random.uniform(np.log(least), np.log(max(least, 0.5)), count))
