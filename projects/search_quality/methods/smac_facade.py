"""SMAC3's facade for hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fbnetv3.search import FloatRange
from projects.search_quality.methods.method import Budget, config_from, is_continuous, is_feasible
from projects.search_quality.problem import Configs, Floats, Problem


class Smac:
    """SMAC3's ``HyperparameterOptimizationFacade`` with its defaults, asked for batches.

    SMAC3 is not told of infeasible proposals, which it does not repeat.
    """

    def __init__(self, problem: Problem, seed: int, budget: Budget) -> None:
        import logging
        import tempfile

        import ConfigSpace
        from smac import HyperparameterOptimizationFacade, Scenario

        logging.getLogger("smac").setLevel(logging.ERROR)
        space = ConfigSpace.ConfigurationSpace(seed=seed)
        for parameter in problem.space.parameters:
            space.add(_hyperparameter(parameter))
        self._folder = tempfile.TemporaryDirectory()
        scenario = Scenario(
            space,
            deterministic=True,
            n_trials=10**6,
            seed=seed,
            output_directory=Path(self._folder.name),
        )
        # a quarter of the trials, as by default for a scenario of ``budget.total`` trials
        design = HyperparameterOptimizationFacade.get_initial_design(
            scenario, n_configs=budget.total // 4, max_ratio=1.0
        )
        self._smac = HyperparameterOptimizationFacade(
            scenario, lambda config, seed=0: 0.0, initial_design=design, overwrite=True,
            logging_level=False,
        )  # fmt: skip
        self._problem = problem
        self._waiting: list[Any] = []

    def ask(self, count: int) -> Configs:
        self._waiting, configs = [], []
        while len(configs) < count:
            info = self._smac.ask()
            config = config_from(self._problem.space, dict(info.config))
            # an infeasible trial gets no result; SMAC does not propose it again
            if is_feasible(self._problem, config):
                self._waiting.append(info)
                configs.append(config)
        return configs

    def tell(self, configs: Configs, scores: Floats) -> None:
        from smac.runhistory.dataclasses import TrialValue

        for info, score in zip(self._waiting, scores.tolist(), strict=True):
            self._smac.tell(info, TrialValue(-score))


def _hyperparameter(parameter: Any) -> Any:
    import ConfigSpace as cs

    name = parameter.name
    if parameter.size == 1:
        return cs.Constant(name, 0)
    if isinstance(parameter, FloatRange) and is_continuous(parameter):
        return cs.Float(name, (parameter.low, parameter.high), log=parameter.log)
    if parameter.is_ordered:
        return cs.Integer(name, (0, parameter.size - 1))
    return cs.Categorical(name, list(range(parameter.size)))
