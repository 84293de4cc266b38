"""Search methods with a common interface: ask for a batch of configurations, tell their scores.

Constraints apply to costs that are known before a training. For every method, a candidate that
violates a constraint is discarded and another one is drawn; it does not count as an evaluation.
Optuna's samplers receive such a trial as pruned; SMAC receives no result for it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fbnetv3.search import FloatRange, IntRange, JointNAS
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.genetic import mutate
from fbnetv3.search.space.parameters import CONTINUOUS_LEVELS, Levels
from fbnetv3.search.space.space import SearchSpace, keys_of, unique_rows
from projects.search_quality.problems import Configs, Problem, random_levels

Floats = npt.NDArray[np.float64]
_MAX_REFUSED = 20
"""Infeasible proposals per requested trial after which infeasible ones become random candidates."""


class Method(Protocol):
    """A search method that maximises the score."""

    def ask(self, count: int) -> Configs:
        """Returns at most ``count`` configurations to evaluate, [] if none is left."""

    def tell(self, configs: Configs, scores: Floats) -> None:
        """Receives the scores of the configurations of the last :meth:`ask`."""


class Ours:
    """JointNAS with ``ask`` and ``tell``.

    Args:
        problem: Problem to solve.
        seed: Random seed of the search.
        total: Number of evaluations.
        batch: Number of evaluations per batch.
        fixed: Part that keeps its usual values, ``architecture`` or ``recipe``. None searches all.
        finalists: Number of evaluations of stage 2, which are the last ones.
        options: Further arguments of JointNAS.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int,
        total: int,
        batch: int,
        *,
        fixed: str | None = None,
        finalists: int = 8,
        **options: Any,
    ) -> None:
        rounds = total // batch
        space = problem.space if fixed is None else problem.fixed(fixed)
        feasible = FeasibleSpace(Costs(space, problem.statistics), tuple(problem.constraints))
        # one part of a small grid may have fewer candidates than a batch
        pool = feasible.sample(batch, seed)
        self._search = JointNAS(
            space,
            statistics=problem.statistics,
            constraints=problem.constraints,
            batch_size=min(batch - math.ceil(finalists / rounds), len(pool)),
            iterations=rounds,
            finalists=finalists,
            early_stop_threshold=None,
            seed=seed,
            **options,
        )
        self._waiting: list[Any] = []

    def ask(self, count: int) -> Configs:
        self._waiting = self._search.ask()
        return [t.config for t in self._waiting]

    def tell(self, configs: Configs, scores: Floats) -> None:
        self._search.tell(self._waiting, scores.tolist())


class RandomSearch:
    """Uniform random samples of the feasible candidates."""

    def __init__(self, problem: Problem, seed: int, total: int, batch: int) -> None:
        self._problem, self._random = problem, np.random.default_rng([seed, 1])

    def ask(self, count: int) -> Configs:
        return self._problem.space.configs(random_levels(self._problem, count, self._random))

    def tell(self, configs: Configs, scores: Floats) -> None:
        return


class Sobol:
    """The feasible points of a scrambled Sobol sequence."""

    def __init__(self, problem: Problem, seed: int, total: int, batch: int) -> None:
        costs = Costs(problem.space, problem.statistics)
        pool = FeasibleSpace(costs, tuple(problem.constraints)).sample(total, seed)
        self._configs = iter(problem.space.configs(pool.levels))

    def ask(self, count: int) -> Configs:
        return [c for c, _ in zip(self._configs, range(count), strict=False)]

    def tell(self, configs: Configs, scores: Floats) -> None:
        return


class Evolution:
    """Regularised evolution (Real et al., 2019) in batches.

    The population is one batch instead of the paper's 100, which would be half of the budget;
    tournaments have 10 candidates.
    """

    _SAMPLE = 10

    def __init__(self, problem: Problem, seed: int, total: int, batch: int) -> None:
        self._problem, self._size = problem, batch
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

    Expected improvement is maximised over random candidates and mutants of the best ones. The
    predicted variance is that between the trees, as in SMAC.
    """

    _RANDOM, _MUTANTS, _PARENTS = 2000, 2000, 16

    def __init__(self, problem: Problem, seed: int, total: int, batch: int) -> None:
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


class Optuna:
    """One of Optuna's samplers, for which infeasible trials are pruned trials."""

    def __init__(self, sampler: Any, problem: Problem, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", module="optuna")
        self._study = optuna.create_study(sampler=sampler, direction="maximize")
        self._problem = problem
        self._distributions = {p.name: _distribution(p) for p in problem.space.parameters}
        self._random = np.random.default_rng([seed, 4])
        self._waiting: list[Any] = []

    def ask(self, count: int) -> Configs:
        from optuna.trial import TrialState

        self._waiting, configs, refused = [], [], 0
        while len(configs) < count:
            trial = self._study.ask(self._distributions)
            config = _snapped(self._problem.space, trial.params)
            allowed = self._problem.allowed(self._problem.space.levels([config]))[0]
            if allowed or refused >= _MAX_REFUSED * count:
                self._waiting.append(trial)
                configs.append(config if allowed else self._random_config())
            else:
                refused += 1
                self._study.tell(trial, state=TrialState.PRUNED)
        return configs

    def _random_config(self) -> dict[str, Any]:
        return self._problem.space.configs(random_levels(self._problem, 1, self._random))[0]

    def tell(self, configs: Configs, scores: Floats) -> None:
        for trial, score in zip(self._waiting, scores.tolist(), strict=True):
            self._study.tell(trial, score)


def _distribution(parameter: Any) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, IntRange):
        step = 1 if parameter.log else parameter.step
        return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=step)
    if isinstance(parameter, FloatRange):
        return FloatDistribution(
            parameter.low, parameter.high, log=parameter.log, step=parameter.step
        )
    return CategoricalDistribution(list(range(parameter.size)))


def _snapped(space: SearchSpace, params: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration for Optuna's values: indices of choices, and unrounded floats."""
    config = {}
    for p in space.parameters:
        value = params[p.name]
        if isinstance(p, FloatRange) and p.size < CONTINUOUS_LEVELS and p.step is not None:
            value = p.value(round((value - p.low) / p.step))
        elif not isinstance(p, FloatRange | IntRange):
            value = p.value(value)
        config[p.name] = value
    return space.configs(space.levels([config]))[0]


def _tpe(problem: Problem, seed: int, total: int, batch: int) -> Optuna:
    import optuna

    return Optuna(optuna.samplers.TPESampler(constant_liar=True, seed=seed), problem, seed)


def _gp(problem: Problem, seed: int, total: int, batch: int) -> Optuna:
    import optuna

    return Optuna(optuna.samplers.GPSampler(seed=seed), problem, seed)


def _cmaes(problem: Problem, seed: int, total: int, batch: int) -> Optuna:
    import optuna

    return Optuna(optuna.samplers.CmaEsSampler(seed=seed), problem, seed)


class Smac:
    """SMAC3's facade for hyperparameters with its defaults, in batches."""

    def __init__(self, problem: Problem, seed: int, total: int, batch: int) -> None:
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
            output_directory=_path(self._folder),
        )
        # a quarter of the total, which is the default for scenarios with that many trials
        design = HyperparameterOptimizationFacade.get_initial_design(
            scenario, n_configs=total // 4, max_ratio=1.0
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
            config = _snapped(self._problem.space, _plain(self._problem.space, info.config))
            # an infeasible trial gets no result; SMAC does not propose it again
            if self._problem.allowed(self._problem.space.levels([config]))[0]:
                self._waiting.append(info)
                configs.append(config)
        return configs

    def tell(self, configs: Configs, scores: Floats) -> None:
        from smac.runhistory.dataclasses import TrialValue

        for info, score in zip(self._waiting, scores.tolist(), strict=True):
            self._smac.tell(info, TrialValue(-score))


def _path(folder: Any) -> Any:
    from pathlib import Path

    return Path(folder.name)


def _hyperparameter(parameter: Any) -> Any:
    import ConfigSpace as cs

    name = parameter.name
    if parameter.size == 1:
        return cs.Constant(name, 0)
    if isinstance(parameter, FloatRange) and parameter.size == CONTINUOUS_LEVELS:
        return cs.Float(name, (parameter.low, parameter.high), log=parameter.log)
    if parameter.is_ordered:
        return cs.Integer(name, (0, parameter.size - 1))
    return cs.Categorical(name, list(range(parameter.size)))


def _plain(space: SearchSpace, config: Any) -> dict[str, Any]:
    """Converts SMAC's values, with level indices for ranges with a step, to Optuna's."""
    values = {}
    for p in space.parameters:
        value = config[p.name]
        is_level = p.is_ordered and not (isinstance(p, FloatRange) and p.size == CONTINUOUS_LEVELS)
        values[p.name] = (
            p.value(int(value)) if is_level else float(value) if p.is_ordered else int(value)
        )
    return values


Maker = Callable[[Problem, int, int, int], Method]


def _ours(**options: Any) -> Maker:
    return lambda problem, seed, total, batch: Ours(problem, seed, total, batch, **options)


METHODS: dict[str, Maker] = {
    "JointNAS": _ours(),
    "JointNAS, no stage 2": _ours(finalists=0),
    "JointNAS, no pre-training": _ours(pretrain=False),
    "JointNAS, paper's form": _ours(predictor="paper"),
    "JointNAS, recipe fixed": _ours(fixed="recipe"),
    "JointNAS, architecture fixed": _ours(fixed="architecture"),
    "random": RandomSearch,
    "Sobol": Sobol,
    "regularised evolution": Evolution,
    "random forest": Forest,
    "TPE": _tpe,
    "GP (Optuna)": _gp,
    "CMA-ES": _cmaes,
    "SMAC3": Smac,
}
OURS: Sequence[str] = [name for name in METHODS if name.startswith("JointNAS")]
PEERS: Sequence[str] = [name for name in METHODS if name not in OURS]
