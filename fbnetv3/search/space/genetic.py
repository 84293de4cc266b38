"""Genetic operators on populations of candidates, for both stages of a search.

A candidate is a row of levels; a level is the index of the value of a variable.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.space import SearchSpace

Rates = float | npt.NDArray[np.float64]
_LOCAL_SHARE = 0.5
"""Share of the mutations of ordered variables that move to a nearby level."""
_LOCAL_WIDTHS = (0.002, 0.2)
"""Bounds of the standard deviation of a move to a nearby level, as a share of the range.

The standard deviation is drawn log-uniformly: wide moves find the region of an optimum, narrow
moves find the optimum in it.
"""


def crossover(
    mothers: Levels, fathers: Levels, rates: Rates, random: np.random.Generator
) -> Levels:
    """Returns children that take each variable from one of their parents at random.

    Args:
        mothers: (children, variables) levels of each child's mother.
        fathers: (children, variables) levels of each child's father.
        rates: Probability that a child is crossed, a scalar or (children,). A child that is not
            crossed is a copy of its mother.
        random: Source of all draws.
    """
    crossed = random.random(len(mothers)) < rates
    from_father = random.random(mothers.shape) < 0.5
    return np.where(from_father & crossed[:, None], fathers, mothers)


def mutate(space: SearchSpace, levels: Levels, rates: Rates, random: np.random.Generator) -> Levels:
    """Returns mutated copies, in which the inactive variables have their first level.

    Args:
        space: Space of the candidates.
        levels: (candidates, variables) levels.
        rates: Probability that a variable changes, a scalar or (candidates,).
        random: Source of all draws.
    """
    rate = np.broadcast_to(np.asarray(rates, dtype=np.float64), len(levels))
    changed = random.random(levels.shape) < rate[:, None]
    other = _other_levels(space, levels, random)
    near = _near_levels(space, levels, random)
    is_local = random.random(levels.shape) < _LOCAL_SHARE * _is_ordered(space)
    return space.canonical(np.where(changed, np.where(is_local, near, other), levels))


def _is_ordered(space: SearchSpace) -> npt.NDArray[np.float64]:
    """Returns 1 for each ordered variable with more than two levels, and 0 for all others."""
    return np.array([float(p.is_ordered and p.size > 2) for p in space.parameters])


def _other_levels(space: SearchSpace, levels: Levels, random: np.random.Generator) -> Levels:
    """Replaces each level by a draw from its variable's distribution without the present level."""
    others = np.maximum(space.sizes - 1, 1)
    quantiles = random.random(levels.shape)
    other = (levels + 1 + (quantiles * others).astype(np.int64)) % space.sizes
    for i, distribution in space.log_integers:
        other[:, i] = distribution.other_levels(levels[:, i], quantiles[:, i])
    return other


def _near_levels(space: SearchSpace, levels: Levels, random: np.random.Generator) -> Levels:
    """Replaces each level by a different one nearby, within the range of its variable.

    Distances are drawn as shares of the variable's distribution; the whole range is 1.
    """
    low, high = np.log(_LOCAL_WIDTHS)
    width = np.exp(random.uniform(low, high, levels.shape))
    shift = random.standard_normal(levels.shape) * width
    step = np.rint(shift * space.sizes).astype(np.int64)
    sign = np.where(random.random(levels.shape) < 0.5, -1, 1)
    step = np.where(step == 0, sign, step)
    last = space.sizes - 1
    moved = np.clip(levels + step, 0, last)  # Clipped, because the ends are often optimal.
    near = np.where(moved == levels, np.clip(levels - step, 0, last), moved)
    for i, distribution in space.log_integers:
        near[:, i] = distribution.near_levels(levels[:, i], shift[:, i], sign[:, i] > 0)
    return near


def children_of(
    space: SearchSpace,
    parents: Levels,
    mothers: npt.NDArray[np.int64],
    crossing: Rates,
    mutation: Rates,
    random: np.random.Generator,
) -> Levels:
    """Returns children of a population by crossover and mutation.

    Args:
        space: Space of the candidates.
        parents: (parents, variables) levels; fathers are drawn uniformly from all of them.
        mothers: (children,) indices into ``parents``.
        crossing: Probability that a child is crossed, a scalar or (children,).
        mutation: Probability that a variable changes, a scalar or (children,).
        random: Source of all draws.
    """
    fathers = random.integers(0, len(parents), len(mothers))
    crossed = crossover(parents[mothers], parents[fathers], crossing, random)
    return mutate(space, crossed, mutation, random)
