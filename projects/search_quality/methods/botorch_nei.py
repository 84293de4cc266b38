"""BoTorch with the models and the acquisition that its documentation recommends for noisy scores.

Symbols: Y are the scores of the evaluated points, C the costs of all proposed points, and c is the
upper limit of the cost.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fbnetv3.search import FloatRange
from projects.search_quality.methods.method import (
    ROUNDS,
    Budget,
    config_from,
    costs_of,
    is_continuous,
    is_feasible,
    limit_of,
    random_configs,
    varied,
)
from projects.search_quality.problem import Configs, Floats, Problem


class BoTorch:
    """qLogNEI, maximised by ``optimize_acqf_mixed_alternating`` with its defaults, in batches.

    The model is a ``SingleTaskGP``, or a ``MixedSingleTaskGP`` if there are choices. A second model
    predicts the cost, for an outcome constraint of the acquisition function; this model is fitted
    to the costs of infeasible proposals, too. Under a constraint, the acquisition function is
    maximised at most three times for a batch; random candidates fill the rest. The first batch (or
    the first part of it) is random.
    """

    def __init__(self, problem: Problem, seed: int, budget: Budget) -> None:
        import torch

        warnings.filterwarnings("ignore")
        torch.manual_seed(seed)
        self._problem, self._limit = problem, limit_of(problem)
        self._parameters = varied(problem.space)
        self._random = np.random.default_rng([seed, 9])
        self._scored: list[list[float]] = []
        self._scores: list[float] = []
        self._refused: Configs = []
        self._configs: Configs = []

    def ask(self, count: int) -> Configs:
        if not self._scores:
            return random_configs(self._problem, count, self._random)
        configs: Configs = []
        for _ in range(ROUNDS if self._limit else 1):
            proposed = self._proposals(count - len(configs), configs)
            feasible = [c for c in proposed if is_feasible(self._problem, c)]
            self._refused += [c for c in proposed if not is_feasible(self._problem, c)]
            configs += feasible
            if len(configs) == count:
                break
        return configs + random_configs(self._problem, count - len(configs), self._random)

    def _proposals(self, count: int, pending: Configs) -> Configs:
        """Returns ``count`` maximisers of qLogNEI, chosen in turn, given pending candidates."""
        import torch
        from botorch.acquisition.logei import qLogNoisyExpectedImprovement
        from botorch.acquisition.objective import GenericMCObjective
        from botorch.optim.optimize_mixed import optimize_acqf_mixed_alternating

        x = torch.tensor(self._scored, dtype=torch.float64)
        constrained: dict[str, Any] = {}
        if self._limit is not None:
            constrained = {
                "objective": GenericMCObjective(lambda samples, X=None: samples[..., 0]),
                "constraints": [lambda samples: samples[..., 1]],
            }
        waiting = [self._point(c) for c in pending]
        acquisition = qLogNoisyExpectedImprovement(
            self._model(x),
            x,
            X_pending=torch.tensor(waiting, dtype=torch.float64) if waiting else None,
            prune_baseline=True,
            **constrained,
        )
        points, _ = optimize_acqf_mixed_alternating(
            acquisition, self._bounds(), **self._dimensions(), q=count
        )
        return [self._config(point) for point in points.tolist()]

    def _model(self, x: Any) -> Any:
        """Returns the model of standardised Y; with a constraint, also that of (C - c) / std(C)."""
        import torch
        from botorch.models import ModelListGP

        y = torch.tensor(self._scores, dtype=torch.float64)[:, None]
        score = self._process(x, (y - y.mean()) / y.std())
        if self._limit is None:
            return score
        known = self._configs + self._refused
        costs = torch.tensor(costs_of(self._problem, known), dtype=torch.float64)[:, None]
        points = torch.tensor([self._point(c) for c in known], dtype=torch.float64)
        return ModelListGP(score, self._process(points, (costs - self._limit[1]) / costs.std()))

    def _process(self, x: Any, y: Any) -> Any:
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import MixedSingleTaskGP, SingleTaskGP
        from gpytorch.mlls import ExactMarginalLogLikelihood

        choices = [i for i, p in enumerate(self._parameters) if not p.is_ordered]
        model = (
            MixedSingleTaskGP(x, y, cat_dims=choices, outcome_transform=None)
            if choices
            else SingleTaskGP(x, y, outcome_transform=None)
        )
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        return model

    def _bounds(self) -> Any:
        import torch

        upper = [1.0 if p.is_ordered else float(p.size - 1) for p in self._parameters]
        return torch.tensor([[0.0] * len(upper), upper], dtype=torch.float64)

    def _dimensions(self) -> dict[str, dict[int, list[float]]]:
        """Returns the allowed values of the dimensions that are not continuous."""
        ordered, choices = {}, {}
        for i, p in enumerate(self._parameters):
            if not p.is_ordered:
                choices[i] = [float(level) for level in range(p.size)]
            elif not is_continuous(p):
                ordered[i] = [level / (p.size - 1) for level in range(p.size)]
        return {"discrete_dims": ordered, "cat_dims": choices}

    def _point(self, config: dict[str, Any]) -> list[float]:
        """Returns a configuration as a point: ordered variables in [0, 1], choices as levels."""
        levels = self._problem.space.levels([config])[0]
        columns = {p.name: i for i, p in enumerate(self._problem.space.parameters)}
        point = []
        for p in self._parameters:
            level = int(levels[columns[p.name]])
            if isinstance(p, FloatRange) and is_continuous(p) and p.log:
                span = np.log(p.high / p.low)
                point.append(float(np.log(config[p.name] / p.low) / span))
            elif p.is_ordered:
                point.append(level / (p.size - 1))
            else:
                point.append(float(level))
        return point

    def _config(self, point: list[float]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for p, x in zip(self._parameters, point, strict=True):
            if isinstance(p, FloatRange) and is_continuous(p):
                span = p.high / p.low if p.log else p.high - p.low
                values[p.name] = p.low * span**x if p.log else p.low + span * x
            else:
                values[p.name] = round(x * (p.size - 1)) if p.is_ordered else round(x)
        return config_from(self._problem.space, values)

    def tell(self, configs: Configs, scores: Floats) -> None:
        self._configs += configs
        self._scored += [self._point(c) for c in configs]
        self._scores += scores.tolist()
