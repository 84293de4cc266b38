"""Stage 2: evolution on predicted scores, without training (paper, 3.2 and Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3.search.checks import as_flag, as_real, as_whole
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import short
from fbnetv3.search.space.constraints import cost_order
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.genetic import crossover, mutate
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.scaling import binary_exponent, scaled
from fbnetv3.search.space.space import keys_of, unique_rows

Floats = npt.NDArray[np.float64]
ScoreFunction = Callable[[Levels], Floats]
"""Function from levels, (candidates, variables), to predicted scores, (candidates,).

A level is the index of the value of a variable.
"""


MOTHER, BETTER_PARENT = "mother", "better_parent"
CROSSOVER_FITNESS = (MOTHER, BETTER_PARENT)
"""Parents whose score may set the crossover rate."""
_MAX_DRAWS = 50
"""Largest number of times that children are drawn in a generation, with ``redraw``."""


@dataclass(frozen=True)
class EvolutionSettings:
    """Settings of stage 2. The defaults are the paper's (A.2), except for the last two settings.

    Attributes:
        best: Number of candidates in the first generation that are the best trained so far (p).
        random: Number of random candidates in the first generation (q).
        children: Number of children per candidate and generation.
        top: Number of candidates that survive a generation (K).
        epsilon: Growth of the best score that a generation must exceed to count as progress, as a
            share of the interquartile range of the scores in the first generation; at least 0.
        patience: Number of successive generations without progress after which evolution ends.
        max_generations: Largest number of generations after the first.
        crossover_fitness: Parent whose score sets the crossover rate: ``better_parent``
            (Srinivas and Patnaik, eq. 3) or ``mother``, with which poor mothers are crossed often,
            even with the best fathers (fathers are drawn from all candidates).
        redraw: Whether children that violate a constraint, or that exist already, are drawn again,
            in at most 50 draws, until each candidate has ``children`` children (Algorithm 1). If
            False, they are dropped.

    Raises:
        SearchError: A value is out of range or unknown.
    """

    best: int = 50
    random: int = 50
    children: int = 12
    top: int = 40
    epsilon: float = 1e-6
    patience: int = 1
    max_generations: int = 500
    crossover_fitness: str = MOTHER
    redraw: bool = False

    def __post_init__(self) -> None:
        for name in ("children", "top", "patience", "max_generations", "best", "random"):
            low = 0 if name in ("best", "random") else 1
            number = as_whole(f"evolution {name}", getattr(self, name), low)
            object.__setattr__(self, name, number)
        object.__setattr__(self, "epsilon", as_real("evolution epsilon", self.epsilon, low=0.0))
        object.__setattr__(self, "redraw", as_flag("evolution redraw", self.redraw))
        if self.crossover_fitness not in CROSSOVER_FITNESS:
            raise SearchError(
                f"evolution crossover_fitness={short(self.crossover_fitness)} is unknown; allowed: "
                f"{', '.join(CROSSOVER_FITNESS)}"
            )
        if self.best + self.random < 1:
            raise SearchError(
                f"evolution best={self.best} and random={self.random}: one of them must be at "
                "least 1"
            )

    def describe(self) -> dict[str, Any]:
        """Returns the settings as plain values.

        Settings that storages of earlier versions lack are left out if they have their defaults.
        """
        added = {"crossover_fitness": MOTHER, "redraw": False}
        return {k: v for k, v in vars(self).items() if k not in added or v != added[k]}


@dataclass(frozen=True)
class Evolved:
    """The outcome of an evolution.

    Attributes:
        pool: The top candidates, best first.
        scores: (candidates,) predicted scores; higher is better.
        history: Best predicted score of each generation, starting with the first generation.
    """

    pool: Pool
    scores: Floats
    history: list[float]

    def head(self, count: int) -> Evolved:
        """Returns the first ``count`` candidates."""
        index = np.arange(len(self.pool))[:count]
        return Evolved(self.pool.take(index), self.scores[:count], self.history)


def evolve(
    feasible: FeasibleSpace,
    first: Pool,
    score: ScoreFunction,
    settings: EvolutionSettings,
    random: np.random.Generator,
) -> Evolved:
    """Evolves candidates until the best predicted score saturates, or for ``max_generations``.

    Args:
        feasible: Space and constraints; children that violate a constraint are discarded.
        first: First generation; all of its candidates are feasible.
        score: Predictor of the scores; higher is better.
        settings: Sizes and stopping rule.
        random: Source of all draws.
    """
    order = cost_order(feasible.constraints, first.statistics)
    population, scores = best_candidates(first, score(first.levels), len(first), order)
    least_gain = settings.epsilon * _spread(scores)
    history, stale = [float(scores[0])], 0
    while stale < settings.patience and len(history) <= settings.max_generations:
        children = children_of_generation(feasible, population, scores, settings, random)
        if len(children):
            scores = np.concatenate([scores, score(children.levels)])
        population, scores = best_candidates(
            population.joined(children), scores, settings.top, order
        )
        stale = 0 if float(scores[0]) - history[-1] > least_gain else stale + 1
        history.append(float(scores[0]))
    population, scores = best_candidates(population, scores, settings.top, order)
    return Evolved(population, scores, history)


def children_of_generation(
    feasible: FeasibleSpace,
    population: Pool,
    scores: Floats,
    settings: EvolutionSettings,
    random: np.random.Generator,
) -> Pool:
    """Returns feasible children that differ from each other and from all of ``population``."""
    mothers = np.repeat(np.arange(len(population)), settings.children)
    seen, kept = keys_of(population.levels), population.take(np.zeros(0, dtype=np.int64))
    for _ in range(_MAX_DRAWS if settings.redraw else 1):
        levels = _offspring(feasible, population, scores, mothers, settings, random)
        new = unique_rows(levels, seen)
        children = feasible.with_statistics(levels[new])
        mask = feasible.mask(children)
        born = children.take(np.flatnonzero(mask))
        kept, seen = kept.joined(born), [*seen, *keys_of(born.levels)]
        mothers = np.delete(mothers, new[mask])  # mothers that still lack a child
        if not len(mothers):
            break
    return kept


def _offspring(
    feasible: FeasibleSpace,
    population: Pool,
    scores: Floats,
    mothers: npt.NDArray[np.int64],
    settings: EvolutionSettings,
    random: np.random.Generator,
) -> Levels:
    """Returns one child of each mother, feasible or not; fathers are drawn from all candidates."""
    fathers = random.integers(0, len(population), len(mothers))
    fitness = parents_fitness(scores, mothers, fathers, settings.crossover_fitness)
    crossing, _ = adaptive_rates(scores, fitness, len(feasible.space))
    _, mutation = adaptive_rates(scores, scores[mothers], len(feasible.space))
    levels = population.levels
    crossed = crossover(levels[mothers], levels[fathers], crossing, random)
    return mutate(feasible.space, crossed, mutation, random)


def parents_fitness(
    scores: Floats, mothers: npt.NDArray[np.int64], fathers: npt.NDArray[np.int64], of: str
) -> Floats:
    """Returns the score that sets the crossover rate of each child, (children,).

    Args:
        scores: (candidates,) scores of the generation.
        mothers: (children,) index of each child's mother.
        fathers: (children,) index of each child's father.
        of: ``better_parent`` or ``mother``.
    """
    if of == BETTER_PARENT:
        return np.maximum(scores[mothers], scores[fathers])
    return scores[mothers]


def adaptive_rates(scores: Floats, fitness: Floats, variables: int) -> tuple[Floats, Floats]:
    """Returns the crossover and mutation rate of each child (Srinivas & Patnaik, 1994, eqs. 3-4).

    Both rates fall linearly as f grows from the mean score to the best score, so that children of
    good parents change little.

    With f the fitness of a child's parents, k1 = k3 = 1 and k2 = k4 = 0.5, as Srinivas and Patnaik
    recommend::

        crossover = k1 * (f_max - f) / (f_max - f_mean)   for f >= f_mean, else k3
        mutation  = k2 * (f_max - f) / (f_max - f_mean)   for f >= f_mean, else k4

    In their paper, f is the score of the better parent for the crossover rate, and the score of the
    mutating individual for the mutation rate. A crossed child has no score yet, so the mutation
    rate depends on its mother's score.

    Args:
        scores: (candidates,) scores of the generation.
        fitness: (children,) f of each child, the score of a parent.
        variables: Number of variables. The mutation rate is at least 1 / variables, so that copies
            of the best candidate change too.
    """
    exponent = binary_exponent(scores, fitness)
    units, child_units = scaled(scores, -exponent), scaled(fitness, -exponent)
    best, mean = units.max(), units.mean()
    share = (best - child_units) / max(best - mean, 1e-12)
    falling = np.clip(share, 0.0, 1.0)
    return falling, np.maximum(0.5 * falling, 1.0 / variables)


def _spread(scores: Floats) -> float:
    """Returns the interquartile range of scores, which single outliers hardly change."""
    exponent = binary_exponent(scores)
    low, high = np.quantile(scaled(scores, -exponent), (0.25, 0.75))
    return float(scaled(high - low, exponent))


def best_candidates(
    pool: Pool, scores: Floats, count: int, statistics: Sequence[str]
) -> tuple[Pool, Floats]:
    """Returns the best candidates, best first; of equal scores, lower statistics come first."""
    costs = [pool.statistics[name] for name in reversed(statistics)]
    order = np.lexsort([*costs, -scores])[:count]  # the last key counts most
    return pool.take(order), scores[order]
