"""HEBO with its defaults: a Gaussian process with warping, and evolution of three acquisitions."""

from __future__ import annotations

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


class Hebo:
    """HEBO, asked for batches.

    HEBO has no constraints on costs, and is not told of infeasible proposals. It is asked at most
    three times for a batch; random candidates fill the rest, and HEBO is told their scores, too.
    """

    def __init__(self, problem: Problem, seed: int, budget: Budget) -> None:
        import torch
        from hebo.design_space.design_space import DesignSpace
        from hebo.optimizers.hebo import HEBO

        warnings.filterwarnings("ignore")
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - HEBO draws from numpy's global state
        space = DesignSpace().parse([_description(p) for p in varied(problem.space)])
        self._hebo = HEBO(space, scramble_seed=seed)
        self._problem, self._random = problem, np.random.default_rng([seed, 5])
        self._waiting: list[dict[str, Any]] = []

    def ask(self, count: int) -> Configs:
        configs: Configs = []
        self._waiting = []
        for _ in range(ROUNDS):
            for row in self._hebo.suggest(count).to_dict("records"):
                config = config_from(self._problem.space, row)
                if len(configs) < count and is_feasible(self._problem, config):
                    configs.append(config)
                    self._waiting.append(row)
            if len(configs) == count:
                return configs
        extra = random_configs(self._problem, count - len(configs), self._random)
        self._waiting += [values_of(self._problem.space, config) for config in extra]
        return configs + extra

    def tell(self, configs: Configs, scores: Floats) -> None:
        import pandas as pd

        self._hebo.observe(pd.DataFrame(self._waiting), -scores[:, None])


def _description(parameter: Parameter) -> dict[str, Any]:
    """Returns HEBO's description of a variable: a real range if continuous, else its levels."""
    name = parameter.name
    if isinstance(parameter, FloatRange) and is_continuous(parameter):
        kind = "pow" if parameter.log else "num"
        return {"name": name, "type": kind, "lb": parameter.low, "ub": parameter.high}
    if parameter.is_ordered:
        return {"name": name, "type": "int", "lb": 0, "ub": parameter.size - 1}
    return {"name": name, "type": "cat", "categories": list(range(parameter.size))}
