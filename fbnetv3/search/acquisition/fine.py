"""Stage 2: evolution by the predictor, without training (paper, 3.2 and Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fbnetv3.search.errors import SearchError
from fbnetv3.search.space.constraints import Constraint, Costs, feasible
from fbnetv3.search.space.genetic import children_of
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool, priced
from fbnetv3.search.space.space import SearchSpace, unique_rows

Floats = npt.NDArray[np.float64]
Score = Callable[[Levels], Floats]


@dataclass(frozen=True)
class EvolutionSettings:
    """How stage 2 runs; the defaults are the paper's (A.2).

    Attributes:
        best: best-performing candidates in the first generation (p).
        random: random ones in it (q).
        children: of each candidate, per generation.
        top: candidates that stay (K).
        epsilon: the evolution ends when the best score gains no more than this ...
        patience: ... in so many generations in a row.
        max_generations: at most so many.
    """

    best: int = 50
    random: int = 50
    children: int = 12
    top: int = 40
    epsilon: float = 1e-6
    patience: int = 1
    max_generations: int = 500

    def __post_init__(self) -> None:
        for name in ("children", "top", "patience", "max_generations"):
            if getattr(self, name) < 1:
                raise SearchError(f"evolution {name}={getattr(self, name)} must be at least 1")
        if self.best < 0 or self.random < 0 or self.best + self.random < 1:
            raise SearchError("evolution needs best >= 0, random >= 0 and one candidate at least")


def adaptive_rates(scores: Floats, child_scores: Floats, variables: int) -> tuple[Floats, Floats]:
    """Returns crossover and mutation probabilities (Srinivas & Patnaik, 1994, eqs. 3-4).

    Both fall linearly from the average score to the best: good candidates are kept nearly as
    they are, others are disrupted. k1 = k3 = 1, k2 = k4 = 0.5 as there.

    Args:
        scores: of the generation.
        child_scores: of each child's better parent, from which it takes its rates.
        variables: the mutation rate is at least one in so many, so that copies of the best move.
    """
    best, mean = scores.max(), scores.mean()
    share = (best - child_scores) / max(best - mean, 1e-12)
    falling = np.clip(share, 0.0, 1.0)
    return falling, np.maximum(0.5 * falling, 1.0 / variables)


@dataclass(frozen=True)
class Evolved:
    """What stage 2 found.

    Attributes:
        pool: the top candidates, best first.
        scores: their predicted scores.
        history: best predicted score of each generation, the first one included.
    """

    pool: Pool
    scores: Floats
    history: list[float]

    def head(self, count: int) -> Evolved:
        """Returns the first ``count`` candidates."""
        return Evolved(
            self.pool.take(np.arange(len(self.pool))[:count]), self.scores[:count], self.history
        )


def evolve(
    space: SearchSpace,
    costs: Costs,
    constraints: Sequence[Constraint],
    first: Pool,
    score: Score,
    settings: EvolutionSettings,
    random: np.random.Generator,
) -> Evolved:
    """Evolves a generation until the best predicted score saturates.

    Args:
        space, costs, constraints: children that break a constraint are thrown away.
        first: the first generation, feasible.
        score: predicts; higher is better.
        settings: see EvolutionSettings.
        random: source of all draws.
    """
    scores = score(first.levels)
    population, scores = _top(first, scores, len(first))
    history, waited = [float(scores[0])], 0
    while waited < settings.patience and len(history) <= settings.max_generations:
        born = _generation(space, costs, constraints, population, scores, settings, random)
        joined = np.concatenate([scores, score(born.levels)]) if len(born) else scores
        population, scores = _top(population.joined(born), joined, settings.top)
        waited = 0 if scores[0] - history[-1] > settings.epsilon else waited + 1
        history.append(float(scores[0]))
    population, scores = _top(population, scores, settings.top)
    return Evolved(population, scores, history)


def _generation(
    space: SearchSpace,
    costs: Costs,
    constraints: Sequence[Constraint],
    population: Pool,
    scores: Floats,
    settings: EvolutionSettings,
    random: np.random.Generator,
) -> Pool:
    """Returns the new, distinct, feasible children of a generation."""
    mothers = np.repeat(np.arange(len(population)), settings.children)
    crossing, mutation = adaptive_rates(scores, scores[mothers], len(space))
    levels = children_of(space, population.levels, mothers, crossing, mutation, random)
    known = [row.tobytes() for row in population.levels]
    fresh = priced(costs, levels[unique_rows(levels, known)])
    return fresh.take(feasible(fresh.statistics, constraints, len(fresh)))


def _top(pool: Pool, scores: Floats, count: int) -> tuple[Pool, Floats]:
    order = np.argsort(-scores, kind="stable")[:count]
    return pool.take(order), scores[order]
