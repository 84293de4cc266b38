"""NePS with its Bayesian optimisation."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np

from fbnetv3.search import FloatRange
from fbnetv3.search.space.parameters import Parameter
from projects.search_quality.methods.method import (
    ROUNDS,
    Budget,
    config_from,
    is_continuous,
    is_feasible,
    random_configs,
    values_of,
    varied,
)
from projects.search_quality.problem import Configs, Floats, Problem


class Neps:
    """NePS's ``bayesian_optimization`` through its ask-and-tell interface, in batches.

    NePS is told that an infeasible proposal failed, as documented for configurations that cannot be
    evaluated. After at most four requests, random candidates fill the rest of a batch. The initial
    design is as large as the first batch, or four times as large under a constraint.
    """

    def __init__(self, problem: Problem, seed: int, budget: Budget) -> None:
        import neps
        import torch

        warnings.filterwarnings("ignore")
        logging.getLogger("neps").setLevel(logging.ERROR)
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - NePS draws from the global states
        space = neps.SearchSpace({p.name: description(p) for p in varied(problem.space)})
        # the default is one point per variable, and after the initial design NePS needs a score
        initial = budget.sizes()[0] * (ROUNDS + 1 if problem.constraints else 1)
        self._neps = neps.AskAndTell(
            neps.algorithms.bayesian_optimization(space, initial_design_size=initial)
        )
        self._problem, self._random = problem, np.random.default_rng([seed, 8])
        self._proposed: list[Any] = []
        self._waiting: list[Any] = []

    def ask(self, count: int) -> Configs:
        self._waiting, configs = [], []
        for _ in range(ROUNDS + 1):
            # NePS may return more trials than asked for, such as the whole initial design
            while len(configs) < count and self._proposed:
                trial = self._proposed.pop(0)
                config = config_from(self._problem.space, dict(trial.config))
                if is_feasible(self._problem, config):
                    self._waiting.append(trial)
                    configs.append(config)
                else:
                    self._neps.tell(trial, ValueError("the cost is above its limit"))
            if len(configs) < count:
                self._proposed = self._neps.ask(n=count - len(configs))
        extra = random_configs(self._problem, count - len(configs), self._random)
        self._waiting += [None] * len(extra)
        return configs + extra

    def tell(self, configs: Configs, scores: Floats) -> None:
        for trial, config, score in zip(self._waiting, configs, scores.tolist(), strict=True):
            if trial is not None:
                self._neps.tell(trial, -score)
                continue
            values = values_of(self._problem.space, config)
            name = str(1 + max(int(known) for known in self._neps.trials))
            self._neps.tell_custom(config_id=name, config=values, result=-score)


def description(parameter: Parameter) -> Any:
    """Returns NePS's description of a variable: a real range if continuous, else its levels."""
    import neps

    if isinstance(parameter, FloatRange) and is_continuous(parameter):
        return neps.HPOFloat(parameter.low, parameter.high, log=parameter.log)
    if parameter.is_ordered:
        return neps.HPOInteger(0, parameter.size - 1)
    return neps.HPOCategorical(list(range(parameter.size)))
