"""Untried candidates that complete a batch for which its own method finds too few."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from fbnetv3.search.acquisition.fine import best_candidates
from fbnetv3.search.space.constraints import Constraint, cost_order
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.space import keys_of, unique_rows

Score = Callable[[Levels], npt.NDArray[np.float64]]


class Reserves:
    """Candidates of the pool and, where these do not suffice, of larger samples.

    Args:
        pool: Pool of the search.
        seed: Random seed of the samples.
    """

    def __init__(self, pool: Pool, seed: int) -> None:
        self._pool, self._seed = pool, seed
        # size asked for and sample, by the constraints of the part of the space
        self._samples: dict[tuple[Constraint, ...], tuple[int, Pool]] = {}

    def complete(
        self, batch: Pool, part: FeasibleSpace, count: int, tried: set[bytes], score: Score | None
    ) -> Pool:
        """Adds untried candidates to a batch until it has ``count``, or there are no others.

        Args:
            batch: Candidates chosen so far.
            part: Part of the space from which candidates are added.
            count: Number of candidates.
            tried: Keys of candidates that may not be chosen.
            score: Function from levels to predicted scores, by which the best candidates are added.
                If None, they are added in the order of their sequence.
        """
        if len(batch) >= count:
            return batch
        for pool in self._pools(part, len(tried) + count):
            taken = tried | set(keys_of(batch.levels))
            rest = pool.take(unique_rows(pool.levels, taken))
            if score is not None and len(rest):
                order = cost_order(part.constraints, rest.statistics)
                rest, _ = best_candidates(rest, score(rest.levels), count, order)
            batch = batch.joined(rest.take(np.arange(len(rest))[: count - len(batch)]))
            if len(batch) == count:
                break
        return batch

    def _pools(self, part: FeasibleSpace, size: int) -> Iterator[Pool]:
        """Yields the pool's part, then at least ``size`` candidates or all that there are."""
        yield part.select(self._pool)
        asked, sample = self._samples.get(part.constraints, (0, self._pool))
        is_exhausted = 0 < len(sample) < asked
        if size > asked and not is_exhausted:
            asked, sample = size, part.sample(size, self._seed)
            self._samples[part.constraints] = asked, sample
        yield sample
