"""A sampler of Optuna that proposes the batches of stage 1 (paper, section 3.1)."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fbnetv3.requires import require
from fbnetv3.search.checks import as_whole
from fbnetv3.search.direction import MAXIMIZE, MINIMIZE, gain
from fbnetv3.search.errors import SearchError
from fbnetv3.search.history import History
from fbnetv3.search.planner import Planner
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.space.constraints import Constraint, Costs
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.parameters import Choice, FloatRange, IntRange, Parameter
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import SCORE, Trial

require("optuna", "search")

from optuna.distributions import (  # noqa: E402
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler  # noqa: E402
from optuna.samplers._base import _process_constraints_after_trial  # noqa: E402
from optuna.search_space import IntersectionSearchSpace  # noqa: E402
from optuna.trial import FrozenTrial, TrialState  # noqa: E402

if TYPE_CHECKING:
    from optuna import Study

_log = logging.getLogger(__name__)
_MAX_SEED = 2**31
_LARGEST = 1e100
"""Largest magnitude of a constraint: it replaces larger ones, infinity and NaN."""


class JointNASSampler(BaseSampler):
    """Sampler that proposes trials as stage 1 of :class:`~fbnetv3.search.JointNAS` does.

    Until a trial is complete, the variables are unknown and are sampled by ``independent_sampler``,
    at random by default. From then on, the variables that all complete trials have (Optuna's
    intersection search space) are sampled together: spread out over the space until
    ``n_startup_trials`` are complete, and by the search's Gaussian process and networks afterwards.
    All other variables, such as those that the objective function suggests in only one branch of an
    ``if``, are still sampled by ``independent_sampler``, and a warning says so once. Each
    constraint of the trials has a Gaussian process of its own: samples are chosen that probably
    meet all constraints, and improve on the best trial that meets them.

    With ``n_jobs=1``, the samples follow from the seed and the results. Processes that share a
    study do not know what the samplers of the others have just proposed; threads do.

    Args:
        seed: Random seed; None: drawn at random.
        n_startup_trials: Number of complete trials before the predictor is used; at least 1. Trials
            with the same values count as one.
        batch_size: Number of samples that are chosen at once, each in view of those before it in
            the batch; at least 1. A larger batch takes less time per sample, and learns from
            results later.
        pool_size: Number of candidates in the quasi-Monte Carlo pool; at least ``batch_size``.
        independent_sampler: Sampler of the variables that are not sampled together; None:
            ``RandomSampler``.
        constraints_func: Function from a trial to its constraints, each of which is met by a number
            of at most 0; see ``optuna.samplers.GPSampler``. With Optuna 5,
            ``trial.set_constraint`` replaces it.
        warn_independent_sampling: Whether the warning about other variables is logged.

    Raises:
        SearchError: A number is out of range.
        MissingPackageError: Optuna is not installed; raised when the module is imported.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        n_startup_trials: int = 10,
        batch_size: int = 1,
        pool_size: int = 2048,
        independent_sampler: BaseSampler | None = None,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        warn_independent_sampling: bool = True,
    ) -> None:
        self._startup = as_whole("n_startup_trials", n_startup_trials, low=1)
        self._batch_size = as_whole("batch_size", batch_size, low=1)
        self._pool_size = as_whole("pool_size", pool_size, low=self._batch_size)
        self._seed = _random_seed() if seed is None else as_whole("seed", seed, low=0)
        self._independent = independent_sampler or RandomSampler(seed=self._seed % 2**32)
        self._constraints_func, self._warns = constraints_func, warn_independent_sampling
        self._intersection = IntersectionSearchSpace()
        self._mutex = threading.Lock()
        self._handed: dict[int, dict[str, Any]] = {}  # params by the number of a running trial
        self._waiting: list[dict[str, Any]] = []  # chosen samples that no trial has yet
        self._waiting_for: dict[str, BaseDistribution] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_mutex"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._mutex = threading.Lock()

    def reseed_rng(self) -> None:
        self._seed = _random_seed()
        self._independent.reseed_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        common = self._intersection.calculate(study)
        return {name: d for name, d in common.items() if not d.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._raise_error_if_multi_objective(study)
        if not search_space:
            return {}
        with self._mutex:
            if not self._waiting or self._waiting_for != search_space:
                self._waiting = self._propose(study, trial.number, search_space)
                self._waiting_for = dict(search_space)
            if not self._waiting:  # the ranges are too large for a space
                return {}
            self._handed[trial.number] = self._waiting.pop(0)
            return dict(self._handed[trial.number])

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        self._raise_error_if_multi_objective(study)
        if self._warns and trial.number in self._handed and not param_distribution.single():
            self._warns = False
            _log.warning(
                "JointNASSampler samples %r at random, since not all complete trials have it in "
                "the same range; this is logged once (warn_independent_sampling=False: never)",
                param_name,
            )
        sample = self._independent.sample_independent
        return sample(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._independent.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        with self._mutex:
            self._handed.pop(trial.number, None)
        if self._constraints_func is not None:
            _process_constraints_after_trial(self._constraints_func, study, trial, state)
        self._independent.after_trial(study, trial, state, values)

    def _propose(
        self, study: Study, number: int, distributions: Mapping[str, BaseDistribution]
    ) -> list[dict[str, Any]]:
        """Returns the values of the next samples; [] if the ranges are too large for a space.

        If all combinations of values were tried, one of them is drawn at random.

        Args:
            study: Study of the sampler.
            number: Number of the trial that is sampled.
            distributions: Distribution of each variable to sample.
        """
        try:
            space = _Space(distributions)
            trials = [
                trial
                for trial in (self._as_trial(t, space) for t in study.get_trials(deepcopy=False))
                if trial is not None and trial.number != number
            ]
            constraints = _constraints(study)
            scored = _scored(trials, constraints, study.direction.name.lower())
            if sum(t.state == "complete" for t in scored) < self._startup:
                scored = [t if t.state == "running" else t.failed("startup") for t in scored]
            width = max(map(len, constraints.values()), default=0)
            chosen = self._planned(space, scored, width)
            return space.params(chosen) if chosen else [space.draw([self._seed, number])]
        except SearchError as error:
            _log.warning("JointNASSampler samples at random: %s", error)
            return []

    def _planned(self, space: _Space, trials: list[Trial], constraints: int) -> list[Trial]:
        """Returns the batch that a search with these trials proposes.

        Args:
            space: Space of the search.
            trials: Trials of the search.
            constraints: Largest number of constraints of a trial.
        """
        feasible = FeasibleSpace(Costs(space.space, None))
        pool_size = max(1, min(self._pool_size, math.prod(space.space.sizes.tolist())))
        count = min(self._batch_size, pool_size)
        settings = SearchSettings(
            pool_size=pool_size,
            batch_size=count,
            early_stop_threshold=None,
            pretrain=False,
            seed=self._seed,
            score_constraints=tuple(Constraint(_name(i), upper=0.0) for i in range(constraints)),
        )
        # each trial is a batch of its own: the random stream follows from the number of batches
        return Planner(feasible, settings).propose(
            History.of([[trial] for trial in trials]), count, "coarse"
        )

    def _as_trial(self, frozen: FrozenTrial, space: _Space) -> Trial | None:
        """Returns a trial of Optuna as a trial of the space.

        None: the trial is waiting, lacks a variable of the space, or has a value outside of it.
        """
        params = self._handed.get(frozen.number, frozen.params)
        trial = space.trial(frozen.number, params)
        if trial is None or frozen.state == TrialState.WAITING:
            return None
        if frozen.state == TrialState.COMPLETE:
            trial.finish(frozen.value)
        elif frozen.state.is_finished():
            trial = trial.failed("without a value")
        return trial


class _Space:
    """A space with the distributions of Optuna.

    Args:
        distributions: Distribution of each variable.

    Attributes:
        space: The space. Its variables are named x0, x1 and so on, and the values of choices are
            their indices.

    Raises:
        SearchError: The range of a distribution is too large.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self._distributions = dict(distributions)
        self._names = {name: f"x{i}" for i, name in enumerate(distributions)}
        self.space = SearchSpace(
            [_parameter(self._names[name], d) for name, d in distributions.items()]
        )

    def trial(self, number: int, params: Mapping[str, Any]) -> Trial | None:
        """Returns a running trial with some values; None if one is missing or not in the space."""
        if not {*self._names} <= {*params}:
            return None
        config = {
            new: _to_config(self._distributions[name], params[name])
            for name, new in self._names.items()
        }
        try:
            levels = self.space.levels([config])
        except SearchError:
            return None
        return Trial(self.space.ids(levels)[0], number, number, self.space.configs(levels)[0])

    def draw(self, seed: Sequence[int]) -> dict[str, Any]:
        """Returns random values in Optuna's form."""
        unit = np.random.default_rng(seed).random((1, len(self.space)))
        config = self.space.configs(self.space.levels_at(unit))[0]
        return self.params([Trial("", 0, 0, config)])[0]

    def params(self, trials: Sequence[Trial]) -> list[dict[str, Any]]:
        """Returns the values of trials in Optuna's form."""
        return [
            {
                name: _from_config(self._distributions[name], trial.config[new])
                for name, new in self._names.items()
            }
            for trial in trials
        ]


def _parameter(name: str, distribution: BaseDistribution) -> Parameter:
    if isinstance(distribution, CategoricalDistribution):
        return Choice(name, tuple(range(len(distribution.choices))))
    low, high, log = distribution.low, distribution.high, distribution.log  # type: ignore[attr-defined]
    step = distribution.step  # type: ignore[attr-defined]
    if isinstance(distribution, IntDistribution):
        return IntRange(name, low, high, step=step, log=log)
    return FloatRange(name, low, high, step=step, log=log)


def _to_config(distribution: BaseDistribution, value: Any) -> Any:
    is_choice = isinstance(distribution, CategoricalDistribution)
    return int(distribution.to_internal_repr(value)) if is_choice else value


def _from_config(distribution: BaseDistribution, value: Any) -> Any:
    is_choice = isinstance(distribution, CategoricalDistribution)
    return distribution.to_external_repr(value) if is_choice else value


def _constraints(study: Study) -> dict[int, list[float]]:
    """Returns the constraints of complete trials, by number of the trial; at most 0 means met."""
    values = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        named = getattr(trial, "constraints", None)  # Optuna 5
        earlier = trial.system_attrs.get("constraints")
        values[trial.number] = [float(v) for v in (named or {}).values()] or list(earlier or ())
    return values


def _scored(
    trials: Sequence[Trial], constraints: Mapping[int, Sequence[float]], direction: str
) -> list[Trial]:
    """Returns trials whose scores are gains (higher is better), with constraints as further scores.

    A candidate that was evaluated several times has the mean of its gains, and of each constraint.

    Args:
        trials: Trials of the study.
        constraints: Constraints by number of the trial; one is met if it is at most 0.
        direction: Direction of the study.
    """
    direction = MINIMIZE if direction == "minimize" else MAXIMIZE
    scored = [t for t in trials if t.state != "complete"]
    by_id: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.state == "complete" and trial.score is not None:
            by_id.setdefault(trial.id, []).append(trial)
    for repeated in by_id.values():
        rows = [
            {SCORE: gain(t.score or 0.0, direction)} | _by_name(constraints.get(t.number, ()))
            for t in repeated
        ]
        copy = repeated[0].unfinished()
        copy.score_names = (SCORE, *sorted({*rows[0]} - {SCORE}))
        means = {name: [row[name] for row in rows if name in row] for name in copy.score_names}
        copy.finish({name: sum(values) / len(values) for name, values in means.items()})
        scored.append(copy)
    return sorted(scored, key=lambda t: t.number)


def _by_name(constraints: Sequence[float]) -> dict[str, float]:
    """Returns the constraints of a trial by name; NaN is 1e100, others are clipped to +-1e100."""
    values = np.nan_to_num(np.asarray(constraints, dtype=np.float64), nan=_LARGEST)
    clipped = np.clip(values, -_LARGEST, _LARGEST).tolist()
    return {_name(i): value for i, value in enumerate(clipped)}


def _name(constraint: int) -> str:
    return f"constraint_{constraint}"


def _random_seed() -> int:
    return int(np.random.default_rng().integers(_MAX_SEED))
