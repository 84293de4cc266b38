"""A genetic search that evolves several populations ("islands") side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fbnetv3.search.acquisition.candidates import Candidates
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.space import keys_of

Index = npt.NDArray[np.int64]
Score = Callable[[Levels, Index], Floats]
"""Maps candidates, (n, variables), and the index of each one's island, (n,), to scores, (n,).

A candidate is scored by the objective of its island.
"""
_CHILDREN = 2
"""Number of children drawn for each candidate in a generation; feasible ones are kept."""


class Population(NamedTuple):
    """Candidates of all islands.

    Attributes:
        levels: (n, variables) candidates.
        scores: (n,) scores by the objective of each candidate's island.
        islands: (n,) index of each candidate's island.
    """

    levels: Levels
    scores: Floats
    islands: Index

    def take(self, index: Index) -> Population:
        """Returns the candidates of the given indices."""
        return Population(self.levels[index], self.scores[index], self.islands[index])

    def joined(self, other: Population) -> Population:
        """Returns the candidates of this population, followed by those of another."""
        return Population(
            np.concatenate([self.levels, other.levels]),
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.islands, other.islands]),
        )


def evolve_islands(
    candidates: Candidates,
    score: Score,
    population: Population,
    random: np.random.Generator,
    *,
    survivors: int,
    generations: int,
) -> Population:
    """Maximises a score on each island.

    A mother and her children live on the same island, whose candidates all compete for survival.
    Fathers come from all islands, so that good traits spread from one island to the next.

    Args:
        candidates: Constrained space, whose operators make feasible children.
        score: Objective of each island.
        population: First generation with its scores.
        random: Source of all random numbers.
        survivors: Largest number of candidates that stay on an island after each generation.
        generations: Number of generations, at least 1.

    Returns:
        The last generation, best scores first.
    """
    for _ in range(generations):
        mothers = np.repeat(np.arange(len(population.levels)), _CHILDREN)
        children, mothers = candidates.children(population.levels, mothers, random)
        islands = population.islands[mothers]
        born = Population(children, score(children, islands), islands)
        population = population.joined(born)
        population = population.take(_survivors(population, survivors))
    return population


def _survivors(population: Population, count: int) -> Index:
    """Returns the indices of each island's ``count`` best distinct candidates, best first."""
    kept, seen, sizes = [], set(), dict.fromkeys(population.islands.tolist(), 0)
    keys = keys_of(population.levels)
    for i in np.argsort(-population.scores, kind="stable").tolist():
        island = int(population.islands[i])
        if sizes[island] < count and (island, keys[i]) not in seen:
            seen.add((island, keys[i]))
            sizes[island] += 1
            kept.append(i)
    return np.array(kept, dtype=np.int64)
