"""Non-dominated sorting and crowding distance of NSGA-II.

Deb et al., 2002, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", Sections III-A and
III-B. All objectives are maximised.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fbnetv3.search.acquisition.hypervolume import non_dominated
from fbnetv3.search.predictors.networks import Floats

Index = npt.NDArray[np.int64]


def non_domination_ranks(points: Floats) -> Index:
    """Returns the rank of each point, (n,): 0 on the front of all points.

    Rank 1 is the front of the points without those of rank 0, and so on.

    Args:
        points: (n, m) values; higher is better.
    """
    ranks: Index = np.full(len(points), -1, dtype=np.int64)
    rank = 0
    while (left := np.flatnonzero(ranks < 0)).size:
        ranks[left[non_dominated(points[left])]] = rank
        rank += 1
    return ranks


def crowding_distances(points: Floats) -> Floats:
    """Returns the crowding distance of each point of one rank, (n,).

    For each objective, the points are sorted by its values. The distance is the sum over the
    objectives of the difference between the values of the next and the previous point, as a share
    of the range of the values. It is infinite for the first and last point of an objective.
    Objectives whose values are all equal are left out.

    Args:
        points: (n, m) values of points of one rank.
    """
    distances = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        span = ordered[-1] - ordered[0]
        if span > 0:
            distances[order[[0, -1]]] = np.inf
            distances[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    return distances


def survivors(points: Floats, count: int) -> Index:
    """Returns the indices of the ``count`` best points, best first.

    Points of a lower rank are better; of equal rank, those of larger crowding distance.

    Args:
        points: (n, m) values; higher is better.
        count: Number of points to keep.
    """
    ranks = non_domination_ranks(points)
    distances = np.empty(len(points))
    for rank in range(int(ranks.max(initial=-1)) + 1):
        members = ranks == rank
        distances[members] = crowding_distances(points[members])
    return np.lexsort((-distances, ranks))[:count]
