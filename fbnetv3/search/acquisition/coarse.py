"""Stage 1, the paper's coarse-grained search: the first batch, and the choice of later batches.

The paper describes it in Section 3.1, step 2, and Appendix A.2.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.encoding import Features
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.scaling import to_unit

Index = npt.NDArray[np.int64]
_SHORTLIST_BATCHES = 8
"""Size of the shortlist of :func:`paper_batch`, as a multiple of the batch size."""


def first_batch(pool: Pool, count: int, statistic: str | None, *, log: bool = False) -> Index:
    """Returns a batch that is spread over the space; no scores are needed.

    Args:
        pool: Candidates in the order of their quasi-Monte Carlo sequence.
        count: Number of candidates to choose.
        statistic: Statistic whose range is divided into ``count`` bins. The first candidate of each
            bin is chosen. If some bins are empty, the second candidates of the other bins follow,
            then the third, until there are ``count``. If None, the head of the sequence is chosen,
            which is spread out by construction.
        log: Whether bins have equal widths in the logarithm of the statistic, if all its values
            are positive.

    Returns:
        Indices into the pool; fewer than ``count`` if the pool is smaller.
    """
    if statistic is None:
        return np.arange(min(count, len(pool)))
    bins = bins_of(_axis(pool.statistics[statistic], log), count)
    earlier_is_better = -np.arange(len(pool), dtype=np.float64)
    return best_by_bin(earlier_is_better, bins, count)


def paper_batch(
    pool: Pool,
    features: Features,
    scores: Floats,
    count: int,
    statistic: str | None,
    *,
    log: bool = False,
) -> Index:
    """Returns the paper's batch: the best predicted score in each bin of a statistic (A.2).

    Args:
        pool: Candidates to choose from.
        features: (candidates, width) features of the candidates.
        scores: (candidates,) predicted scores; higher is better.
        count: Number of candidates to choose.
        statistic: Statistic whose range is divided into ``count`` bins. If None, the batch is
            spread out within a shortlist of the candidates with the highest predicted scores.
        log: Whether bins have equal widths in the logarithm of the statistic, if all its values
            are positive.

    Returns:
        Indices into the pool; fewer than ``count`` if the pool is smaller.
    """
    if statistic is not None:
        bins = bins_of(_axis(pool.statistics[statistic], log), count)
        return best_by_bin(scores, bins, count)
    shortlist = np.argsort(-scores, kind="stable")[: _SHORTLIST_BATCHES * count]
    return shortlist[spread_out(features[shortlist], count)]


def _axis(values: Floats, log: bool) -> Floats:
    return np.log(values) if log and values.min() > 0 else values


def bins_of(values: Floats, count: int) -> Index:
    """Returns the bin of each value; ``count`` bins of equal width divide their range."""
    scaled = to_unit(values)  # magnitudes of at most 1, so that their difference cannot overflow
    low, high = float(scaled.min()), float(scaled.max())
    if high == low:
        return np.zeros(len(values), dtype=np.int64)
    positions = (scaled - low) / (high - low) * count
    return np.minimum(positions.astype(np.int64), count - 1)


def best_by_bin(scores: Floats, bins: Index, count: int) -> Index:
    """Returns the indices of the best candidate of each bin, then the second best, and so on.

    There are ``count`` indices, or fewer if there are fewer candidates.

    Args:
        scores: (candidates,) scores; higher is better.
        bins: (candidates,) index of each candidate's bin.
        count: Number of candidates to choose.
    """
    order = np.argsort(-scores, kind="stable")
    rank_in_bin = np.empty(len(scores), dtype=np.int64)
    next_rank: Counter[int] = Counter()
    for i in order.tolist():
        rank_in_bin[i] = next_rank[int(bins[i])]
        next_rank[int(bins[i])] += 1
    return np.lexsort((-scores, rank_in_bin))[:count]


def spread_out(features: Features, count: int, first: int = 0) -> Index:
    """Returns indices of candidates far apart (farthest-point sampling).

    Each further candidate is the one whose nearest chosen candidate is farthest away.

    Args:
        features: (candidates, width) features.
        count: Number of candidates to choose.
        first: Index of the first chosen candidate.
    """
    chosen = [first]
    # to the nearest chosen candidate; -1 for candidates that are chosen themselves
    squared_distance = np.square(features - features[first]).sum(1)
    while len(chosen) < min(count, len(features)):
        squared_distance[chosen[-1]] = -1.0
        farthest = int(squared_distance.argmax())
        chosen.append(farthest)
        squared_distance = np.where(
            squared_distance < 0,
            -1.0,
            np.minimum(squared_distance, np.square(features - features[farthest]).sum(1)),
        )
    return np.array(chosen, dtype=np.int64)
