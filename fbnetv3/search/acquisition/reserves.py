"""Untried candidates that complete a batch for which too few were chosen."""

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
    """Candidates of the pool and, if the pool has too few, of larger samples of the space.

    Args:
        pool: Pool of the search.
        seed: Random seed of the samples.
    """

    def __init__(self, pool: Pool, seed: int) -> None:
        self._pool, self._seed = pool, seed
        # requested size and sample of each part of the space, by the part's constraints
        self._samples: dict[tuple[Constraint, ...], tuple[int, Pool]] = {}

    def complete(
        self, batch: Pool, part: FeasibleSpace, count: int, tried: set[bytes], score: Score | None
    ) -> Pool:
        """Adds candidates to a batch until it has ``count``, or no further untried ones are found.

        Args:
            batch: Candidates chosen so far.
            part: Part of the space from which candidates are added.
            count: Number of candidates in the completed batch.
            tried: Keys of candidates that may not be chosen, as :func:`keys_of` returns them.
            score: Function from levels to predicted scores, by which the best candidates are added.
                If None, they are added in the order in which they were sampled.
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
        """Yields the pool's candidates in a part of the space, then a sample of that part.

        The sample has at least ``size`` candidates, or all that :meth:`FeasibleSpace.sample` finds.
        """
        yield part.select(self._pool)
        requested, sample = self._samples.get(part.constraints, (0, self._pool))
        is_exhausted = 0 < len(sample) < requested
        if size > requested and not is_exhausted:
            requested, sample = size, part.sample(size, self._seed)
            self._samples[part.constraints] = requested, sample
        yield sample
