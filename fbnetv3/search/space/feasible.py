"""The feasible part of a search space, and quasi-Monte Carlo samples from it (paper, 3.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import qmc

from fbnetv3.search.errors import SearchError
from fbnetv3.search.space.constraints import Constraint, Costs, Mask, merge_bounds
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.space import SearchSpace, keys_of, unique_rows

_SOBOL_STREAM, _SAMPLE_STREAM = 11, 12  # separate the uses of one seed
_BLOCK = 2**15
"""Largest number of points of the Sobol sequence that are drawn at a time."""
_MAX_DRAWS = 2**22
"""Largest number of points that are drawn for a pool, even if the pool is not full by then."""
_ENUMERATE = 2**16
"""Spaces of at most this many level combinations are enumerated if one block is not enough."""
_SLOW_BLOCK, _SLOW_ENUMERATE = 2**7, 2**9
"""The values of _BLOCK and _ENUMERATE for statistics that take long to compute."""
_KNOWN_MAX_DRAWS, _SLOW_DRAWS = 2**16, 16
"""Limits in place of _MAX_DRAWS for statistics that take long to compute.

If the costs are limited to known architectures, the limit is _KNOWN_MAX_DRAWS. Otherwise, it is
_SLOW_DRAWS for each candidate of the pool, and for a pool of fewer than _SLOW_BLOCK candidates the
same as for _SLOW_BLOCK.
"""


@dataclass(frozen=True)
class FeasibleSpace:
    """A search space, the statistics of its candidates, and bounds on the statistics.

    Attributes:
        costs: Statistics of the candidates.
        constraints: Bounds that all feasible candidates meet, one for each bounded statistic;
            empty by default.

    Raises:
        SearchError: Two bounds on a statistic contradict or repeat each other.
    """

    costs: Costs
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "constraints", merge_bounds(self.constraints))

    @property
    def space(self) -> SearchSpace:
        """The search space without its constraints."""
        return self.costs.space

    def with_constraints(self, constraints: Sequence[Constraint]) -> FeasibleSpace:
        """Returns the same space with the given constraints in place of its own.

        Raises:
            SearchError: A constraint is on an unknown statistic, or two bounds on a statistic
                contradict or repeat each other.
        """
        self.costs.check(constraints)
        return replace(self, constraints=tuple(constraints))

    def with_added_constraints(self, constraints: Sequence[Constraint]) -> FeasibleSpace:
        """Returns the part of this space that also meets the given constraints.

        Raises:
            SearchError: A constraint is on an unknown statistic or contradicts another one, or the
                given constraints have two lower or two upper bounds on a statistic.
        """
        self.costs.check(constraints)
        part = self
        for constraint in merge_bounds(constraints):
            part = part.within(constraint)
        return part

    def without(self, names: Sequence[str]) -> FeasibleSpace:
        """Returns the same space without the constraints on the named statistics.

        Raises:
            SearchError: A named statistic has no constraint.
        """
        bounded = [c.name for c in self.constraints]
        for name in names:
            if name not in bounded:
                raise SearchError(
                    f"there is no constraint on {name!r} to drop; the search has constraints on: "
                    f"{', '.join(bounded) or 'nothing'}"
                )
        return replace(self, constraints=tuple(c for c in self.constraints if c.name not in names))

    def within(self, budget: Constraint) -> FeasibleSpace:
        """Returns the part of this space that also meets a budget.

        Raises:
            SearchError: The budget contradicts a constraint on the same statistic.
        """
        names = [c.name for c in self.constraints]
        if budget.name not in names:
            return replace(self, constraints=(*self.constraints, budget))
        tightened = (c.tightened(budget) if c.name == budget.name else c for c in self.constraints)
        return replace(self, constraints=tuple(tightened))

    def with_statistics(self, levels: Levels) -> Pool:
        """Returns candidates, feasible or not, with their statistics."""
        return Pool(levels, self.costs(levels))

    def are_feasible(self, levels: Levels) -> Mask:
        """Returns which candidates exist (see :meth:`mask`) and meet the constraints, (n,)."""
        if not self.constraints and not self.costs.may_refuse:
            return np.ones(len(levels), dtype=bool)
        return self.mask(self.with_statistics(levels))

    def select(self, pool: Pool) -> Pool:
        """Returns the candidates of a pool for which :meth:`mask` is True."""
        return pool.take(self.mask(pool))

    def mask(self, pool: Pool) -> Mask:
        """Returns which candidates of a pool exist and meet the constraints, (candidates,).

        A candidate does not exist if a statistic is NaN and the costs have ``may_refuse``.
        """
        mask = np.ones(len(pool), dtype=bool)
        if self.costs.may_refuse:
            for values in pool.statistics.values():
                mask &= ~np.isnan(values)
        for constraint in self.constraints:
            mask &= constraint.is_met_by(pool.statistics[constraint.name])
        return mask

    def draws(self, seed: int, block: int) -> Iterator[Levels]:
        """Yields blocks of candidates, feasible or not, from a scrambled Sobol sequence.

        If the costs are limited to known architectures, each candidate gets one of them, in turn.

        Args:
            seed: Random seed of the scrambling.
            block: Number of candidates in a block; a power of two.
        """
        known, first = self.costs.known, 0
        for levels in sobol_levels(self.space, seed, block):
            yield levels if known is None else known.given_to(levels, first)
            first += len(levels)

    def sample(self, size: int, seed: int) -> Pool:
        """Draws distinct feasible candidates from a scrambled Sobol sequence.

        Args:
            size: Number of candidates; fewer are returned if the space has fewer, or if the
                first 2**22 points of the sequence contain fewer. If statistics take long, the limit
                is 16 points per candidate (at least 2**11), or 2**16 with known architectures.
            seed: Random seed of the scrambling.

        Returns:
            The candidates in the order of the sequence, so that the first n are spread out over
            the space for every n. In a space of at most 2**16 combinations of levels (2**9 if
            statistics take long), the candidates that the first block of the sequence lacks follow
            in random order.
        """
        slow = self.costs.is_slow
        limit = _SLOW_ENUMERATE if slow else _ENUMERATE
        is_small = math.prod(self.space.sizes.tolist()) <= limit
        block_size = _SLOW_BLOCK if slow else min(_BLOCK, _power_of_two(size))
        sampled = self.with_statistics(np.zeros((0, len(self.space)), dtype=np.int64))
        seen: set[bytes] = set()
        drawn = 0
        for levels in self.draws(seed, block_size):
            block = self.select(self.with_statistics(levels))
            block = block.take(unique_rows(block.levels, seen))
            seen.update(keys_of(block.levels))
            sampled, drawn = sampled.joined(block), drawn + len(levels)
            if len(sampled) >= size or drawn >= self._max_draws(size):
                break
            if is_small:
                sampled = sampled.joined(self._unseen(seen, seed))
                break
        return sampled.take(np.arange(min(size, len(sampled))))

    def _max_draws(self, size: int) -> int:
        """Returns the largest number of points that are drawn for a sample."""
        if not self.costs.is_slow:
            return _MAX_DRAWS
        is_limited = self.costs.known is not None
        return _KNOWN_MAX_DRAWS if is_limited else _SLOW_DRAWS * max(size, _SLOW_BLOCK)

    def _unseen(self, seen: set[bytes], seed: int) -> Pool:
        """Enumerates the feasible candidates that are not in ``seen``, in random order.

        Candidates that the distributions of the variables make more probable tend to come first.
        """
        grid = self.space.grid()
        random = np.random.default_rng([seed, _SAMPLE_STREAM])
        if any(p.log_integers is not None for p in self.space.parameters):
            # Weighted sampling without replacement (Efraimidis and Spirakis, 2006).
            order = np.argsort(random.exponential(size=len(grid)) / self.space.probabilities(grid))
            levels = self.space.canonical(grid[order])
        else:
            levels = self.space.canonical(random.permutation(grid))
        return self.select(self.with_statistics(levels[unique_rows(levels, seen)]))


def sobol_levels(space: SearchSpace, seed: int, block: int) -> Iterator[Levels]:
    """Yields blocks of canonical levels from one scrambled Sobol sequence of 2**30 points.

    Args:
        space: Space of the candidates.
        seed: Random seed of the scrambling.
        block: Number of candidates in a block; a power of two.
    """
    sampler = qmc.Sobol(len(space), scramble=True, rng=np.random.default_rng([seed, _SOBOL_STREAM]))
    while True:
        unit = sampler.random(block)  # (block, variables) in [0, 1)
        yield space.canonical(space.levels_at(unit))


def _power_of_two(n: int) -> int:
    """Returns the smallest power of two that is at least ``n`` and at least 256."""
    return max(256, 1 << (n - 1).bit_length())
