"""Random search, Sobol points, regularised evolution and a random forest.

These methods discard infeasible candidates themselves, before they propose a batch.
"""

from __future__ import annotations

import numpy as np

from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.genetic import mutate
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.space import keys_of, unique_rows
from projects.search_quality.methods.method import Budget
from projects.search_quality.problem import Configs, Floats, Problem, random_levels


class RandomSearch:
    """Uniform random samples of the feasible candidates."""

    def __init__(self, problem: Problem, seed: int, budget: Budget) -> None:
        self._problem, self._random = problem, np.random.default_rng([seed, 1])

    def ask(self, count: int) -> Configs:
        return self._problem.space.configs(random_levels(self._problem, count, self._random))

    def tell(self, configs: Configs, scores: Floats) -> None:
        return


class Sobol:
    """The feasible points of a scrambled Sobol sequence."""

    def __init__(self, problem: Problem, seed: int, budget: Budget) -> None:
        costs = Costs(problem.space, problem.statistics)
        pool = FeasibleSpace(costs, tuple(problem.constraints)).sample(budget.total, seed)
        self._configs = iter(problem.space.configs(pool.levels))

    def ask(self, count: int) -> Configs:
        return [c for c, _ in zip(self._configs, range(count), strict=False)]

    def tell(self, configs: Configs, scores: Floats) -> None:
        return


class Evolution:
    """Regularised evolution (Real et al., 2019) in batches.

    The population has the size of one batch instead of the paper's 100, which would be half of the
    usual budget; tournaments have 10 candidates.
    """

    _SAMPLE = 10

    def __init__(self, problem: Problem, seed: int, budget: Budget) -> None:
        self._problem, self._size = problem, budget.batch
        self._random = np.random.default_rng([seed, 2])
        self._population: list[tuple[float, Levels]] = []

    def ask(self, count: int) -> Configs:
        space = self._problem.space
        if not self._population:
            return space.configs(random_levels(self._problem, count, self._random))
        children: list[Levels] = []
        while len(children) < count:
            picked = self._random.choice(len(self._population), self._SAMPLE, replace=False)
            parent = max((self._population[i] for i in picked), key=lambda pair: pair[0])[1]
            child = self._mutant(parent[None])
            if self._problem.allowed(child)[0]:
                children.append(child[0])
        return space.configs(np.array(children))

    def _mutant(self, levels: Levels) -> Levels:
        """Returns a copy in which one random variable has another value."""
        space, child = self._problem.space, levels.copy()
        column = self._random.choice(np.flatnonzero(space.sizes > 1))
        shift = 1 + self._random.integers(space.sizes[column] - 1)
        child[0, column] = (child[0, column] + shift) % space.sizes[column]
        return space.canonical(child)

    def tell(self, configs: Configs, scores: Floats) -> None:
        levels = self._problem.space.levels(configs)
        self._population += list(zip(scores.tolist(), levels, strict=True))
        self._population = self._population[-self._size :]


class Forest:
    """scikit-learn's random forest with its default settings, and expected improvement.

    A batch consists of the candidates with the highest expected improvement among random candidates
    and mutants of the best ones. The predicted variance is that between the trees, as in SMAC.
    """

    _RANDOM, _MUTANTS, _PARENTS = 2000, 2000, 16

    def __init__(self, problem: Problem, seed: int, budget: Budget) -> None:
        self._problem, self._seed = problem, seed
        self._random = np.random.default_rng([seed, 3])
        self._encoding = Encoding(problem.space)
        self._levels = np.zeros((0, len(problem.space)), dtype=np.int64)
        self._scores = np.zeros(0)

    def ask(self, count: int) -> Configs:
        from scipy.stats import norm
        from sklearn.ensemble import RandomForestRegressor

        space, random = self._problem.space, self._random
        if not len(self._scores):
            return space.configs(random_levels(self._problem, count, random))
        forest = RandomForestRegressor(random_state=self._seed)
        forest.fit(self._encoding.encode(self._levels), self._scores)
        best = self._levels[np.argsort(-self._scores)[: self._PARENTS]]
        parents = best[random.integers(0, len(best), self._MUTANTS)]
        mutants = mutate(space, parents, 2 / len(space), random)
        drawn = random_levels(self._problem, self._RANDOM, random)
        pool = np.concatenate([mutants[self._problem.allowed(mutants)], drawn])
        pool = pool[unique_rows(pool, keys_of(self._levels))]
        features = self._encoding.encode(pool)
        trees = np.stack([tree.predict(features) for tree in forest.estimators_])
        mean, deviation = trees.mean(0), trees.std(0) + 1e-9
        z = (mean - self._scores.max()) / deviation
        improvement = deviation * (z * norm.cdf(z) + norm.pdf(z))
        return space.configs(pool[np.argsort(-improvement, kind="stable")[:count]])

    def tell(self, configs: Configs, scores: Floats) -> None:
        self._levels = np.concatenate([self._levels, self._problem.space.levels(configs)])
        self._scores = np.concatenate([self._scores, scores])
