"""Optuna's samplers with their defaults."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fbnetv3.search import FloatRange, IntRange
from fbnetv3.search.space.parameters import CONTINUOUS_LEVELS
from fbnetv3.search.space.space import SearchSpace
from projects.search_quality.methods.method import Budget
from projects.search_quality.problem import Configs, Floats, Problem, random_levels

_MAX_PRUNED = 20
"""Pruned proposals per requested candidate after which random candidates fill the batch."""


class Optuna:
    """One of Optuna's samplers, asked for batches; infeasible proposals become pruned trials.

    After too many of them, a random candidate is evaluated in place of each infeasible proposal,
    and its score is told for the trial of that proposal.
    """

    def __init__(self, sampler: Any, problem: Problem, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", module="optuna")
        self._study = optuna.create_study(sampler=sampler, direction="maximize")
        self._problem = problem
        self._distributions = {p.name: distribution(p) for p in problem.space.parameters}
        self._random = np.random.default_rng([seed, 4])
        self._waiting: list[Any] = []

    def ask(self, count: int) -> Configs:
        from optuna.trial import TrialState

        self._waiting, configs, pruned = [], [], 0
        while len(configs) < count:
            trial = self._study.ask(self._distributions)
            config = snapped(self._problem.space, trial.params)
            allowed = self._problem.allowed(self._problem.space.levels([config]))[0]
            if allowed or pruned >= _MAX_PRUNED * count:
                self._waiting.append(trial)
                configs.append(config if allowed else self._random_config())
            else:
                pruned += 1
                self._study.tell(trial, state=TrialState.PRUNED)
        return configs

    def _random_config(self) -> dict[str, Any]:
        return self._problem.space.configs(random_levels(self._problem, 1, self._random))[0]

    def tell(self, configs: Configs, scores: Floats) -> None:
        for trial, score in zip(self._waiting, scores.tolist(), strict=True):
            self._study.tell(trial, score)


def distribution(parameter: Any) -> Any:
    """Returns Optuna's distribution of a variable; choices are drawn as indices of their values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, IntRange):
        step = 1 if parameter.log else parameter.step
        return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=step)
    if isinstance(parameter, FloatRange):
        return FloatDistribution(
            parameter.low, parameter.high, log=parameter.log, step=parameter.step
        )
    return CategoricalDistribution(list(range(parameter.size)))


def snapped(space: SearchSpace, params: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration for the parameters of an Optuna trial.

    Args:
        space: Space of the search.
        params: Value of each range (not rounded to its step) and index of each choice, by name.
    """
    config = {}
    for p in space.parameters:
        value = params[p.name]
        if isinstance(p, FloatRange) and p.size < CONTINUOUS_LEVELS and p.step is not None:
            value = p.value(round((value - p.low) / p.step))
        elif not isinstance(p, FloatRange | IntRange):
            value = p.value(value)
        config[p.name] = value
    return space.configs(space.levels([config]))[0]


def tpe(problem: Problem, seed: int, budget: Budget) -> Optuna:
    """Returns the tree-structured Parzen estimator, with the constant liar for batches."""
    import optuna

    return Optuna(optuna.samplers.TPESampler(constant_liar=True, seed=seed), problem, seed)


def gp(problem: Problem, seed: int, budget: Budget) -> Optuna:
    """Returns the Gaussian process."""
    import optuna

    return Optuna(optuna.samplers.GPSampler(seed=seed), problem, seed)


def cmaes(problem: Problem, seed: int, budget: Budget) -> Optuna:
    """Returns CMA-ES."""
    import optuna

    return Optuna(optuna.samplers.CmaEsSampler(seed=seed), problem, seed)
