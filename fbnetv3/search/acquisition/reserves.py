"""Untried candidates that complete a batch if the method that chooses it finds too few."""

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
    """Candidates of the pool and, if the pool does not suffice, of larger samples.

    Args:
        pool: Pool of the search.
        seed: Random seed of the samples.
    """

    def __init__(self, pool: Pool, seed: int) -> None:
        self._pool, self._seed = pool, seed
        # requested size and sample of each part of the space, by its constraints
        self._samples: dict[tuple[Constraint, ...], tuple[int, Pool]] = {}

    def complete(
        self, batch: Pool, part: FeasibleSpace, count: int, tried: set[bytes], score: Score | None
    ) -> Pool:
        """Adds untried candidates to a batch until it has ``count``, or there are no others.

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
        """Yields the part of the pool, then a sample of the part: at least ``size``, or all."""
        yield part.select(self._pool)
        asked, sample = self._samples.get(part.constraints, (0, self._pool))
        is_exhausted = 0 < len(sample) < asked
        if size > asked and not is_exhausted:
            asked, sample = size, part.sample(size, self._seed)
            self._samples[part.constraints] = asked, sample
        yield sample
