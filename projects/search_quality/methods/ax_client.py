"""Ax with its defaults: Sobol points, then BoTorch models and acquisitions that Ax chooses."""

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
    costs_of,
    is_continuous,
    is_feasible,
    limit_of,
    random_configs,
    values_of,
    varied,
)
from projects.search_quality.problem import Configs, Floats, Problem


class AxClient:
    """Ax's ``Client``, asked for batches.

    The cost is an outcome with a constraint; Ax fits a model to it, as to the score. Ax is told the
    cost of infeasible proposals, without a score. It is asked at most three times for a batch;
    random candidates fill the rest. ``allow_exceeding_initialization_budget`` lets the first batch
    consist of Ax's initial points; by default, Ax needs scores after five.
    """

    def __init__(self, problem: Problem, seed: int, budget: Budget) -> None:
        from ax import Client
        from ax.utils.common.logger import set_ax_logger_levels

        warnings.filterwarnings("ignore")
        set_ax_logger_levels(logging.ERROR)
        logging.getLogger("botorch").setLevel(logging.ERROR)
        self._client = Client(random_seed=seed)
        self._client.configure_experiment(
            parameters=[_description(p) for p in varied(problem.space)]
        )
        self._limit = limit_of(problem)
        constraints = [f"{self._limit[0]} <= {self._limit[1]}"] if self._limit else []
        self._client.configure_optimization(objective="score", outcome_constraints=constraints)
        self._client.configure_generation_strategy(
            initialization_random_seed=seed, allow_exceeding_initialization_budget=True
        )
        self._problem, self._random = problem, np.random.default_rng([seed, 6])
        self._waiting: list[int] = []

    def ask(self, count: int) -> Configs:
        problem = self._problem
        configs: Configs = []
        self._waiting = []
        for _ in range(ROUNDS):
            if len(configs) == count:
                break
            trials = self._client.get_next_trials(max_trials=count - len(configs))
            for index, values in trials.items():
                config = config_from(problem.space, values)
                if is_feasible(problem, config):
                    configs.append(config)
                    self._waiting.append(index)
                else:
                    self._client.complete_trial(index, raw_data=self._costs(config))
        for config in random_configs(problem, count - len(configs), self._random):
            configs.append(config)
            self._waiting.append(self._client.attach_trial(values_of(problem.space, config)))
        return configs

    def _costs(self, config: dict[str, Any]) -> dict[str, Any]:
        """Returns the cost of a configuration as an outcome of Ax with standard error 0."""
        if self._limit is None:
            return {}
        return {self._limit[0]: (float(costs_of(self._problem, [config])[0]), 0.0)}

    def tell(self, configs: Configs, scores: Floats) -> None:
        for index, config, score in zip(self._waiting, configs, scores.tolist(), strict=True):
            data = {"score": score, **self._costs(config)}
            self._client.complete_trial(index, raw_data=data)


def _description(parameter: Parameter) -> Any:
    """Returns Ax's description of a variable: a real range if continuous, else its levels."""
    from ax import ChoiceParameterConfig, RangeParameterConfig

    name, size = parameter.name, parameter.size
    if isinstance(parameter, FloatRange) and is_continuous(parameter):
        return RangeParameterConfig(
            name=name,
            bounds=(parameter.low, parameter.high),
            parameter_type="float",
            scaling="log" if parameter.log else "linear",
        )
    if parameter.is_ordered:
        return RangeParameterConfig(name=name, bounds=(0, size - 1), parameter_type="int")
    return ChoiceParameterConfig(
        name=name, values=list(range(size)), parameter_type="int", is_ordered=False
    )
