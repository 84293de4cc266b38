"""Stage 2: evolution on predicted scores, without training (paper, 3.2 and Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fbnetv3.search.checks import as_real, as_whole
from fbnetv3.search.errors import SearchError
from fbnetv3.search.space.constraints import cost_order
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.genetic import children_of
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.scaling import binary_exponent, scaled
from fbnetv3.search.space.space import keys_of, unique_rows

Floats = npt.NDArray[np.float64]
ScoreFunction = Callable[[Levels], Floats]
"""Function from levels, (candidates, variables), to predicted scores, (candidates,).

A level is the index of the value of a variable.
"""


@dataclass(frozen=True)
class EvolutionSettings:
    """Settings of stage 2. The defaults are the paper's (A.2).

    Attributes:
        best: Number of the best candidates trained so far in the first generation (p).
        random: Number of random candidates in the first generation (q).
        children: Number of children per candidate and generation.
        top: Number of candidates that survive a generation (K).
        epsilon: The best score must grow by more than this in a generation to count as progress;
            relative to the interquartile range of the scores in the first generation; at least 0.
        patience: Number of generations in a row without progress that end the evolution.
        max_generations: Largest number of generations after the first.

    Raises:
        SearchError: A number is out of range.
    """

    best: int = 50
    random: int = 50
    children: int = 12
    top: int = 40
    epsilon: float = 1e-6
    patience: int = 1
    max_generations: int = 500

    def __post_init__(self) -> None:
        for name in ("children", "top", "patience", "max_generations", "best", "random"):
            low = 0 if name in ("best", "random") else 1
            number = as_whole(f"evolution {name}", getattr(self, name), low)
            object.__setattr__(self, name, number)
        object.__setattr__(self, "epsilon", as_real("evolution epsilon", self.epsilon, low=0.0))
        if self.best + self.random < 1:
            raise SearchError(
                f"evolution best={self.best} and random={self.random}: one of them must be at "
                "least 1"
            )


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
    """Evolves candidates until the best predicted score saturates.

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
        children = _children(feasible, population, scores, settings, random)
        if len(children):
            scores = np.concatenate([scores, score(children.levels)])
        population, scores = best_candidates(
            population.joined(children), scores, settings.top, order
        )
        stale = 0 if float(scores[0]) - history[-1] > least_gain else stale + 1
        history.append(float(scores[0]))
    population, scores = best_candidates(population, scores, settings.top, order)
    return Evolved(population, scores, history)


def _children(
    feasible: FeasibleSpace,
    population: Pool,
    scores: Floats,
    settings: EvolutionSettings,
    random: np.random.Generator,
) -> Pool:
    """Returns feasible children that differ from each other and from their parents' generation."""
    mothers = np.repeat(np.arange(len(population)), settings.children)
    crossing, mutation = adaptive_rates(scores, scores[mothers], len(feasible.space))
    levels = children_of(feasible.space, population.levels, mothers, crossing, mutation, random)
    new = unique_rows(levels, keys_of(population.levels))
    return feasible.select(feasible.price(levels[new]))


def adaptive_rates(scores: Floats, mother_scores: Floats, variables: int) -> tuple[Floats, Floats]:
    """Returns the crossover and mutation rate of each child (Srinivas & Patnaik, 1994, eqs. 3-4).

    Both rates fall linearly between the mean score and the best score, so that children of good
    parents change little.

    With f the score of the child's mother, k1 = k3 = 1 and k2 = k4 = 0.5, as Srinivas and Patnaik
    recommend::

        crossover = k1 * (f_max - f) / (f_max - f_mean)   for f >= f_mean, else k3
        mutation  = k2 * (f_max - f) / (f_max - f_mean)   for f >= f_mean, else k4

    Args:
        scores: (candidates,) scores of the generation.
        mother_scores: (children,) score of each child's mother.
        variables: Number of variables. The mutation rate is at least 1 / variables, so that copies
            of the best candidate change too.
    """
    exponent = binary_exponent(scores, mother_scores)
    units, mother_units = scaled(scores, -exponent), scaled(mother_scores, -exponent)
    best, mean = units.max(), units.mean()
    share = (best - mother_units) / max(best - mean, 1e-12)
    falling = np.clip(share, 0.0, 1.0)
    return falling, np.maximum(0.5 * falling, 1.0 / variables)


def _spread(scores: Floats) -> float:
    """Returns the interquartile range, which single outliers do not change."""
    exponent = binary_exponent(scores)
    low, high = np.quantile(scaled(scores, -exponent), (0.25, 0.75))
    return float(scaled(high - low, exponent))


def best_candidates(
    pool: Pool, scores: Floats, count: int, statistics: Sequence[str]
) -> tuple[Pool, Floats]:
    """Returns the candidates with the highest scores; of equal scores, the cheapest ones."""
    costs = [pool.statistics[name] for name in reversed(statistics)]
    order = np.lexsort([*costs, -scores])[:count]  # the last key counts most
    return pool.take(order), scores[order]
