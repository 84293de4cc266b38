"""Stage 1: which candidates of the pool to train next (paper, 3.1 step 2 and A.2)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.encoding import Features
from fbnetv3.search.space.pool import Pool

Index = npt.NDArray[np.int64]
_SHORTLIST = 8
"""Where no statistic is constrained, a batch is spread within so many times its size."""


def bins_of(values: Floats, count: int) -> Index:
    """Divides the range of a statistic into ``count`` equal bins; returns the bin of each value."""
    low, high = float(values.min()), float(values.max())
    if high == low:
        return np.zeros(len(values), dtype=np.int64)
    scaled = (values - low) / (high - low) * count
    return np.minimum(scaled.astype(np.int64), count - 1)


def best_by_bin(scores: Floats, bins: Index, count: int) -> Index:
    """Returns the best of each bin, then, where bins are empty, the best of what is left.

    The second best of each bin come before the third best of any: empty bins do not crowd the
    rest of the batch into one place.
    """
    order = np.argsort(-scores, kind="stable")
    place = np.empty(len(scores), dtype=np.int64)
    seen: dict[int, int] = {}
    for i in order.tolist():
        place[i] = seen[int(bins[i])] = seen.get(int(bins[i]), -1) + 1
    rank = np.lexsort((-scores, place))
    return rank[:count]


def spread_out(features: Features, count: int, first: int = 0) -> Index:
    """Returns ``count`` indices, each the farthest from those before it, from ``first`` on."""
    chosen = [first]
    distance = np.square(features - features[first]).sum(1)
    while len(chosen) < min(count, len(features)):
        distance[chosen[-1]] = -1.0
        following = int(distance.argmax())
        chosen.append(following)
        distance = np.where(
            distance < 0,
            -1.0,
            np.minimum(distance, np.square(features - features[following]).sum(1)),
        )
    return np.array(chosen, dtype=np.int64)


def first_batch(pool: Pool, count: int, statistic: str | None) -> Index:
    """Returns a batch that is spread over the space, before anything is known.

    One candidate from each bin of the constrained statistic; without one the head of the quasi
    Monte-Carlo sequence, which is spread out by construction.
    """
    if statistic is None:
        return np.arange(min(count, len(pool)))
    bins = bins_of(pool.statistics[statistic], count)
    return best_by_bin(-np.arange(len(pool), dtype=np.float64), bins, count)


def paper_batch(
    pool: Pool, features: Features, scores: Floats, count: int, statistic: str | None
) -> Index:
    """Returns the paper's batch: the best predicted score in each bin of the statistic (A.2).

    Without a constrained statistic: spread out within a shortlist of the best predicted.
    """
    if statistic is not None:
        return best_by_bin(scores, bins_of(pool.statistics[statistic], count), count)
    shortlist = np.argsort(-scores, kind="stable")[: _SHORTLIST * count]
    return shortlist[spread_out(features[shortlist], count)]
