"""Searchers of Syne Tune with their defaults: conformal quantile regression, and BORE."""

from __future__ import annotations

import warnings
from itertools import count as counter
from typing import Any

import numpy as np

from fbnetv3.search import FloatRange
from fbnetv3.search.space.parameters import Parameter
from projects.search_quality.methods.method import (
    Budget,
    config_from,
    is_continuous,
    is_feasible,
    random_configs,
    values_of,
    varied,
)
from projects.search_quality.problem import Configs, Floats, Problem

_MAX_PROPOSALS = 20
"""Number of proposals per requested candidate after which random candidates fill the batch."""


class SyneTune:
    """A searcher of Syne Tune, asked for batches; it is not told of infeasible proposals.

    Random candidates fill a batch after too many infeasible proposals.

    Args:
        searcher: Searcher that minimises.
        problem: Problem to solve.
        seed: Random seed of candidates that replace infeasible ones.
    """

    def __init__(self, searcher: Any, problem: Problem, seed: int) -> None:
        self._searcher, self._problem = searcher, problem
        self._random = np.random.default_rng([seed, 7])
        self._numbers = counter()
        self._waiting: list[dict[str, Any]] = []

    def ask(self, count: int) -> Configs:
        self._waiting, configs = [], []
        for _ in range(_MAX_PROPOSALS * count):
            values = self._searcher.suggest()
            config = config_from(self._problem.space, values)
            if is_feasible(self._problem, config):
                self._waiting.append(values)
                configs.append(config)
            if len(configs) == count:
                return configs
        extra = random_configs(self._problem, count - len(configs), self._random)
        self._waiting += [values_of(self._problem.space, config) for config in extra]
        return configs + extra

    def tell(self, configs: Configs, scores: Floats) -> None:
        for values, score in zip(self._waiting, scores.tolist(), strict=True):
            self._searcher.on_trial_complete(next(self._numbers), values, -score)


def domains(problem: Problem) -> dict[str, Any]:
    """Returns the domains of Syne Tune for the variables of a problem, by name."""
    return {p.name: _domain(p) for p in varied(problem.space)}


def _domain(parameter: Parameter) -> Any:
    """Returns Syne Tune's domain of a variable: a real range if continuous, else its levels."""
    from syne_tune.config_space import choice, loguniform, randint, uniform

    if isinstance(parameter, FloatRange) and is_continuous(parameter):
        make = loguniform if parameter.log else uniform
        return make(parameter.low, parameter.high)
    if parameter.is_ordered:
        return randint(0, parameter.size - 1)
    return choice(list(range(parameter.size)))


def cqr(problem: Problem, seed: int, budget: Budget) -> SyneTune:
    """Returns conformal quantile regression."""
    from syne_tune.optimizer.schedulers.searchers.conformal import (
        conformal_quantile_regression_searcher as module,
    )

    warnings.filterwarnings("ignore")
    searcher = module.ConformalQuantileRegression(domains(problem), random_seed=seed)
    return SyneTune(searcher, problem, seed)


def bore(problem: Problem, seed: int, budget: Budget) -> SyneTune:
    """Returns Bayesian optimisation by density-ratio estimation."""
    from syne_tune.optimizer.schedulers.searchers.bore import Bore

    warnings.filterwarnings("ignore")
    return SyneTune(Bore(domains(problem), random_seed=seed), problem, seed)
