"""Genetic operators on whole populations of levels; both stages use them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.space import SearchSpace

Rates = float | npt.NDArray[np.float64]
_LOCAL = 0.5
"""Share of the mutations of ordered variables that are a step nearby, not a new draw."""
_WIDTHS = (0.002, 0.2)
"""A step's deviation, as a share of the range, is drawn between these, evenly in the logarithm:
coarse steps find the region of an optimum, fine ones its place."""


def crossover(
    mothers: Levels, fathers: Levels, rates: Rates, random: np.random.Generator
) -> Levels:
    """Returns children that have each variable from either parent, evenly.

    Args:
        mothers, fathers: (children, variables); a child that isn't crossed is its mother.
        rates: probability of crossing, one for all or one a child.
    """
    crossed = random.random(len(mothers)) < rates
    from_father = random.random(mothers.shape) < 0.5
    return np.where(from_father & crossed[:, None], fathers, mothers)


def mutate(space: SearchSpace, levels: Levels, rates: Rates, random: np.random.Generator) -> Levels:
    """Returns canonical copies in which some variables have other values.

    Args:
        space: of the candidates.
        levels: (candidates, variables).
        rates: probability that a variable changes, one for all or one a candidate.
    """
    rate = np.broadcast_to(np.asarray(rates, dtype=np.float64), len(levels))
    changed = random.random(levels.shape) < rate[:, None]
    anew = _other_levels(space, levels, random)
    near = _near_levels(space, levels, random)
    is_local = random.random(levels.shape) < _LOCAL * _ordered(space)
    return space.canonical(np.where(changed, np.where(is_local, near, anew), levels))


def _ordered(space: SearchSpace) -> npt.NDArray[np.float64]:
    return np.array([float(p.is_ordered and p.size > 2) for p in space.parameters])


def _other_levels(space: SearchSpace, levels: Levels, random: np.random.Generator) -> Levels:
    """Returns levels drawn evenly from all but the present one."""
    others = np.maximum(space.sizes - 1, 1)
    shift = 1 + (random.random(levels.shape) * others).astype(np.int64)
    return (levels + shift) % space.sizes


def _near_levels(space: SearchSpace, levels: Levels, random: np.random.Generator) -> Levels:
    """Returns levels some steps away, at least one; beyond an end is that end, or inside of it."""
    low, high = np.log(_WIDTHS)
    width = np.exp(random.uniform(low, high, levels.shape))
    step = np.rint(random.standard_normal(levels.shape) * width * space.sizes).astype(np.int64)
    sign = np.where(random.random(levels.shape) < 0.5, -1, 1)
    step = np.where(step == 0, sign, step)
    last = space.sizes - 1
    moved = np.clip(levels + step, 0, last)  # optima lie on ends often: they must be reachable
    return np.where(moved == levels, np.clip(levels - step, 0, last), moved)


def children_of(
    space: SearchSpace,
    parents: Levels,
    mothers: npt.NDArray[np.int64],
    crossing: Rates,
    mutation: Rates,
    random: np.random.Generator,
) -> Levels:
    """Returns one child for each index in ``mothers``; fathers are drawn evenly."""
    fathers = random.integers(0, len(parents), len(mothers))
    crossed = crossover(parents[mothers], parents[fathers], crossing, random)
    return mutate(space, crossed, mutation, random)
