"""Stage 2 of a search for a Pareto front: NSGA-II on predicted scores and known costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fbnetv3.search.acquisition import fine
from fbnetv3.search.acquisition.hypervolume import (
    hypervolume,
    hypervolume_improvement,
    non_dominated,
    non_dominated_cells,
)
from fbnetv3.search.acquisition.nsga2 import Index, survivors
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.pool import Pool

PointsOf = Callable[[Pool], Floats]
"""Function from candidates to predicted gains of scores and gains of costs, (n, objectives).

A gain is a score or cost, negated if lower is better.
"""
_LEAST_GROWTH = 1e-3
"""Smallest growth of the hypervolume that counts as progress, as a share of the hypervolume."""


@dataclass(frozen=True)
class EvolvedFront:
    """The last generation of an evolution.

    Attributes:
        pool: Candidates, best first: by rank, then by crowding distance.
        points: (candidates, objectives) predicted gains of scores, and gains of costs.
        history: Hypervolume of each generation, starting with the first one.
    """

    pool: Pool
    points: Floats
    history: list[float]


def evolve_front(
    feasible: FeasibleSpace,
    first: Pool,
    points_of: PointsOf,
    reference: Floats,
    settings: fine.EvolutionSettings,
    random: np.random.Generator,
) -> EvolvedFront:
    """Evolves candidates until the hypervolume of their front saturates.

    The evolution also ends after ``settings.max_generations``. Children are drawn as in
    :func:`fine.evolve`, but by a candidate's position in the order of NSGA-II instead of its score.
    The evolution has saturated after ``settings.patience`` generations in a row without progress. A
    generation is progress if the hypervolume grows by more than 0.1 %, or by more than the share
    ``settings.epsilon`` if that is larger.

    Args:
        feasible: Space and constraints; children that violate a constraint are discarded.
        first: First generation; all of its candidates are feasible.
        points_of: Function to predicted gains of scores and gains of costs.
        reference: (objectives,) reference point of the hypervolume.
        settings: Sizes and stopping rule.
        random: Source of all draws.
    """
    points = points_of(first)
    order = survivors(points, len(first))
    population, points = first.take(order), points[order]
    history, stale = [hypervolume(points, reference)], 0
    least = max(_LEAST_GROWTH, settings.epsilon)
    while stale < settings.patience and len(history) <= settings.max_generations:
        places = -np.arange(len(population), dtype=np.float64)
        children = fine.children_of_generation(feasible, population, places, settings, random)
        population = population.joined(children)
        points = np.concatenate([points, points_of(children)])
        order = survivors(points, settings.top)
        population, points = population.take(order), points[order]
        volume = hypervolume(points, reference)
        stale = 0 if volume > history[-1] * (1 + least) else stale + 1
        history.append(volume)
    return EvolvedFront(population, points, history)


def spread_over_front(points: Floats, known: Floats, reference: Floats, count: int) -> Index:
    """Returns the indices of points that extend a front most, chosen one after the other, (count,).

    Each chosen point adds the largest hypervolume to the known points and those chosen before it.
    Once no point adds any, the remaining points follow in the order of NSGA-II.

    Args:
        points: (n, objectives) points to choose from.
        known: (m, objectives) known points.
        reference: (objectives,) reference point of the hypervolume.
        count: Number of points to choose; fewer are returned if there are fewer.
    """
    front, chosen = known[non_dominated(known)], np.zeros(0, dtype=np.int64)
    while len(chosen) < min(count, len(points)):
        gains = hypervolume_improvement(points, non_dominated_cells(front, reference))
        gains[chosen] = 0.0
        best = int(gains.argmax())
        if not gains[best] > 0:
            break
        chosen = np.append(chosen, best)
        front = np.concatenate([front, points[best : best + 1]])
        front = front[non_dominated(front)]
    rest = survivors(points, len(points))
    rest = rest[~np.isin(rest, chosen)]
    return np.concatenate([chosen, rest])[:count]
