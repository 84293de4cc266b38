"""Stage 1: which candidates of the pool to train next (paper, 3.1 step 2 and A.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fbnetv3.search.constraints import Constraint, Costs, feasible
from fbnetv3.search.encoding import Encoding, Features
from fbnetv3.search.genetic import children_of, mutate
from fbnetv3.search.networks import Floats
from fbnetv3.search.parameters import Levels
from fbnetv3.search.pool import Pool, priced
from fbnetv3.search.space import SearchSpace, keys_of, unique_rows

Index = npt.NDArray[np.int64]
_SHORTLIST = 8
"""Where no statistic is constrained, a batch is spread within so many times its size."""
_STARTS, _SURVIVORS, _GENERATIONS = 2048, 16, 8


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


def thompson_batch(
    space: SearchSpace,
    encoding: Encoding,
    costs: Costs,
    constraints: Sequence[Constraint],
    pool: Pool,
    best: Levels,
    draws: Callable[[Features], Floats],
    count: int,
    tried: set[bytes],
    random: np.random.Generator,
) -> Pool:
    """Returns a batch in which each function drawn from the posterior has its own best candidate.

    Each function is climbed by the genetic operators of stage 2, from the pool and from mutants
    of the best trained candidates, so that candidates are not limited to the pool.

    Args:
        space, encoding, costs, constraints: the problem.
        pool: feasible candidates.
        best: the best trained candidates, best first, (n, variables).
        draws: features -> (candidates, count): ``count`` functions.
        count: size of the batch.
        tried: keys of candidates that may not be chosen.
        random: source of all draws.
    """
    start = _starts(space, costs, constraints, pool, best, random)
    values = draws(encoding.encode(start.levels))  # candidates, count
    top = np.argsort(-values, axis=0, kind="stable")[:_SURVIVORS]  # survivors, count
    groups = np.repeat(np.arange(values.shape[1]), len(top))
    chosen = top.T.reshape(-1)
    levels, scores = start.levels[chosen], values[chosen, groups]
    for _ in range(_GENERATIONS):
        levels, scores, groups = _climb(
            space, encoding, costs, constraints, draws, levels, scores, groups, random
        )
    return _one_each(costs, start, values, levels, scores, groups, count, tried)


def _starts(
    space: SearchSpace,
    costs: Costs,
    constraints: Sequence[Constraint],
    pool: Pool,
    best: Levels,
    random: np.random.Generator,
) -> Pool:
    """Returns part of the pool and mutants of the best."""
    part = random.permutation(len(pool))[:_STARTS]
    if not len(best):
        return pool.take(part)
    parents = random.integers(0, len(best), _STARTS)
    rates = _many_rates(space, _STARTS, random)
    born = priced(costs, mutate(space, best[parents], rates, random))
    born = born.take(feasible(born.statistics, constraints, len(born)))
    both = pool.take(part).joined(born)
    return both.take(unique_rows(both.levels))


def _many_rates(space: SearchSpace, count: int, random: np.random.Generator) -> Floats:
    """Draws mutation rates between one variable and half of them, evenly in the logarithm."""
    least = 1 / len(space)
    return np.exp(random.uniform(np.log(least), np.log(max(least, 0.5)), count))


def _climb(
    space: SearchSpace,
    encoding: Encoding,
    costs: Costs,
    constraints: Sequence[Constraint],
    draws: Callable[[Features], Floats],
    levels: Levels,
    scores: Floats,
    groups: Index,
    random: np.random.Generator,
) -> tuple[Levels, Floats, Index]:
    """One generation of every function's own population; parents stay."""
    mothers = np.repeat(np.arange(len(levels)), 2)
    rates = _many_rates(space, len(mothers), random)
    born = priced(costs, children_of(space, levels, mothers, 0.5, rates, random))
    allowed = feasible(born.statistics, constraints, len(born))
    fresh, owners = born.levels[allowed], groups[mothers[allowed]]
    values = draws(encoding.encode(fresh))[np.arange(len(fresh)), owners]
    levels = np.concatenate([levels, fresh])
    scores, groups = np.concatenate([scores, values]), np.concatenate([groups, owners])
    kept = _survivors(levels, scores, groups)
    return levels[kept], scores[kept], groups[kept]


def _survivors(levels: Levels, scores: Floats, groups: Index) -> Index:
    """Returns the best distinct candidates of each group."""
    kept, seen, sizes = [], set(), dict.fromkeys(groups.tolist(), 0)
    keys = keys_of(levels)
    for i in np.argsort(-scores, kind="stable").tolist():
        group = int(groups[i])
        if sizes[group] < _SURVIVORS and (group, keys[i]) not in seen:
            seen.add((group, keys[i]))
            sizes[group] += 1
            kept.append(i)
    return np.array(kept, dtype=np.int64)


def _one_each(
    costs: Costs,
    start: Pool,
    values: Floats,
    levels: Levels,
    scores: Floats,
    groups: Index,
    count: int,
    tried: set[bytes],
) -> Pool:
    """Gives each function its best candidate that is new; then the pool's, where it has none."""
    taken = set(tried)
    rows: list[Levels] = []
    keys, start_keys = keys_of(levels), keys_of(start.levels)
    for group in range(values.shape[1]):
        own = np.flatnonzero(groups == group)
        ranked = [(keys[i], levels[i]) for i in own[np.argsort(-scores[own], kind="stable")]]
        fallback = np.argsort(-values[:, group], kind="stable")
        found = next((row for key, row in ranked if key not in taken), None)
        if found is None:
            found = next((start.levels[i] for i in fallback if start_keys[i] not in taken), None)
        if found is not None and len(rows) < count:
            taken.add(found.tobytes())
            rows.append(found)
    return priced(costs, np.array(rows, dtype=np.int64).reshape(len(rows), levels.shape[1]))
