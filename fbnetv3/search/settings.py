"""The settings of a search as one value."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fbnetv3.errors import first_line
from fbnetv3.search.acquisition.early_stopping import BETTER_HALF, RANKED
from fbnetv3.search.acquisition.fine import EvolutionSettings
from fbnetv3.search.checks import as_callable, as_flag, as_items, as_real, as_whole
from fbnetv3.search.direction import DIRECTIONS, MAXIMIZE
from fbnetv3.search.errors import SearchError
from fbnetv3.search.objectives import ONE_SCORE, as_objectives
from fbnetv3.search.outcome import short
from fbnetv3.search.rungs import as_rungs
from fbnetv3.search.space.constraints import Constraint, merge_bounds
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial

_CONSTRAINTS = 'constraints such as Constraint("macs", upper=1e9)'
_MOST_PARTS, _LEAST_PART = 3, 16
"""Largest number of parts of the first batch, and smallest number of candidates of a part."""
_LOWEST = {"pool_size": 1, "batch_size": 1, "iterations": 1, "final_seeds": 1}
_LOWEST |= {"finalists": 0, "ahead": 0, "seed": 0}
"""Smallest allowed value of each setting that is a whole number, except ``first_parts``."""
_MAX_CHARACTERS = 300
"""Characters after which the description of a variable or constraint is cut; a hash follows."""


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search (the paper's names in brackets).

    Attributes:
        constraints: Bounds that every candidate meets. In the first batch (or its first part), and
            in every batch of the predictors ``paper`` and ``random``, candidates are spread over
            the range of a statistic: the first cost among the objectives, or else the statistic of
            the first constraint.
        budgets: Upper bounds of statistics, in addition to the constraints, for each of which the
            search should find a winner. The batches that the predictor ``default`` chooses, and the
            finalists, are divided evenly among the budgets.
        pool_size: Number of candidates in the quasi-Monte Carlo pool (n in the paper); at least
            ``batch_size``.
        batch_size: Number of candidates trained per batch of stage 1 (m); at least 1.
        first_parts: Number of parts in which the first batch is trained, from 1 to ``batch_size``;
            their sizes differ by at most one candidate. The first part is spread over the space;
            the predictor chooses each later part from the scores of the parts before it. None: one
            part if the predictor has no posterior (only ``default`` has one), and with ``ahead``,
            ``rungs`` or several objectives; otherwise as many parts of at least 16 candidates as
            fit into the batch, but at least 1 and at most 3.
        iterations: Number of batches of stage 1 (T); at least 1. A larger number continues a
            stored search, even a finished one; see :class:`~.schedule.Schedule`.
        predictor: ``default`` (networks and a Gaussian process), ``paper`` (the paper's network)
            or ``random`` (a baseline that learns nothing).
        early_stop_threshold: Rank correlation with the final scores, in (0, 1]. Candidates after
            the first batch stop at the first epoch from which on the scores in the first batch
            have at least this correlation. None: all candidates train in full.
        early_stop_over: Candidates of the first batch whose rank correlation counts: ``all``
            (the paper) or ``better_half``.
        finalists: Number of candidates that stage 2 proposes for training; at least 0.
        final_seeds: Number of trainings of each finalist, with different random seeds; at least 1.
            The mean of their scores is the score of the finalist.
        ahead: Number of trials that may still run when the next batch of stage 1 is proposed; at
            least 0. With 0, the proposals follow from the seed and the scores alone. A larger
            number keeps workers busy while slow trials finish; the proposals then also depend on
            which trials were running, which the storage records.
        evolution: Settings of stage 2.
        pretrain: Whether the predictor's encoder is first trained on the statistics.
        seed: Random seed of the pool, the predictors and every draw.
        rungs: Numbers of epochs, ascending, after which candidates of stage 1 are compared, such as
            (3, 9, 27). Most new candidates train up to the first number; the best go on to the next
            one, up to the last, which is the whole training. (): every candidate trains in one go.
            With rungs, ``early_stop_threshold`` has no effect. See ``rungs.py``.
        direction: ``maximize`` or ``minimize``: whether the highest or the lowest score is best.
        objectives: Scores and statistics of which the search looks for the Pareto front: ``score``,
            which follows ``direction``, and statistics, with a leading ``-`` if the lowest value is
            the best. Other names are scores of an evaluation that returns several by name; the
            first of these scores is the score of a trial. With several scores, no candidate stops
            early. None: ``score`` alone.
        score_constraints: Bounds on scores that an evaluation returns by name, such as
            ``Constraint("peak_memory", upper=2.0)``. Such a score is known only after the
            evaluation. Candidates that violate a bound remain trials, but are never the best one or
            on the front. With such bounds, no candidate stops early.

    Raises:
        SearchError: A value is out of range or unknown, two values exclude each other, or two
            bounds on a statistic contradict or repeat each other.
    """

    constraints: tuple[Constraint, ...] = ()
    budgets: tuple[Constraint, ...] = ()
    pool_size: int = 20_000
    batch_size: int = 48
    iterations: int = 4
    predictor: str = "default"
    early_stop_threshold: float | None = 0.92
    early_stop_over: str = BETTER_HALF
    finalists: int = 8
    final_seeds: int = 1
    ahead: int = 0
    first_parts: int | None = None
    evolution: EvolutionSettings = field(default_factory=EvolutionSettings)
    pretrain: bool = True
    seed: int = 0
    rungs: tuple[int, ...] = ()
    direction: str = MAXIMIZE
    objectives: tuple[str, ...] = ONE_SCORE
    score_constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        for name in ("constraints", "budgets", "score_constraints"):
            items = as_items(name, getattr(self, name), Constraint, _CONSTRAINTS)
            object.__setattr__(self, name, items)
        self._check_bounds()
        for name, low in _LOWEST.items():
            number = as_whole(name, getattr(self, name), low)
            object.__setattr__(self, name, number)
        object.__setattr__(self, "pretrain", as_flag("pretrain", self.pretrain))
        self._check_early_stop()
        if self.direction not in DIRECTIONS:
            raise SearchError(
                f"direction={short(self.direction)} is unknown; allowed: {', '.join(DIRECTIONS)}"
            )
        object.__setattr__(self, "rungs", as_rungs(self.rungs))
        object.__setattr__(self, "objectives", as_objectives(self.objectives))
        if self.budgets and len(self.objectives) > 1:
            raise SearchError(
                f"budgets={short([str(b) for b in self.budgets])} are not allowed with several "
                "objectives, whose front has a winner for every budget; drop one of the two"
            )
        if not isinstance(self.evolution, EvolutionSettings):
            raise SearchError(
                f"evolution={short(self.evolution)} is not allowed; allowed: EvolutionSettings(...)"
            )
        if self.first_parts is not None:
            parts = as_whole("first_parts", self.first_parts, low=1)
            if parts > self.batch_size:
                raise SearchError(
                    f"first_parts={parts} is larger than batch_size={self.batch_size}; lower it"
                )
            object.__setattr__(self, "first_parts", parts)
        if self.batch_size > self.pool_size:
            raise SearchError(
                f"batch_size={self.batch_size} is larger than the pool (pool_size={self.pool_size})"
            )
        # imported late: the predictors import torch, which takes seconds
        from fbnetv3.search.predictors.predictor import fit_function

        fit_function(self.predictor)

    def _check_early_stop(self) -> None:
        """Raises a SearchError if a setting of early stopping is not allowed."""
        if self.early_stop_threshold is not None:
            name = "early_stop_threshold"
            threshold = as_real(name, self.early_stop_threshold, high=1.0, above=0.0)
            object.__setattr__(self, name, threshold)
        if self.early_stop_over not in RANKED:
            raise SearchError(
                f"early_stop_over={short(self.early_stop_over)} is unknown; allowed: "
                f"{', '.join(RANKED)}"
            )

    def _check_bounds(self) -> None:
        """Merges bounds on scores; raises a SearchError if bounds contradict or repeat others."""
        object.__setattr__(self, "score_constraints", merge_bounds(self.score_constraints))
        bounds = {c.name: c for c in merge_bounds(self.constraints)}
        for number, budget in enumerate(self.budgets):
            if budget in self.budgets[:number]:
                raise SearchError(f"the budget {budget} occurs twice; keep one")
            if budget.name in bounds:
                bounds[budget.name].tightened(budget)

    @property
    def full_epochs(self) -> int | None:
        """Number of epochs of a whole training; None without rungs: every training is whole."""
        return self.rungs[-1] if self.rungs else None

    def sizes_of_first_parts(self, proposed: int = 0) -> tuple[int, ...]:
        """Returns the numbers of candidates of the parts of the first batch, largest first.

        Args:
            proposed: Number of trials of the first proposed batch; 0: no batch was proposed. If it
                is larger than the first part, an earlier version began the search, and the whole
                first batch remains one part.
        """
        count = self.first_parts
        if count is None:
            # imported late, as in __post_init__
            from fbnetv3.search.predictors.predictor import PROBABILISTIC

            is_whole = self.ahead or self.rungs or len(self.objectives) > 1
            most = 1 if is_whole or self.predictor not in PROBABILISTIC else _MOST_PARTS
            count = max(1, min(most, self.batch_size // _LEAST_PART))
        least, rest = divmod(self.batch_size, count)
        sizes = tuple(least + (i < rest) for i in range(count))
        return (self.batch_size,) if proposed > sizes[0] else sizes

    def describe(self, space: SearchSpace, warm_start: Sequence[Trial] = ()) -> dict[str, Any]:
        """Returns the settings that identify a search in its storage, as plain values.

        Args:
            space: Space of the search.
            warm_start: Trials of an earlier search that this one starts from.
        """
        return {
            "space": space.describe(),
            "constraints": [str(c) for c in self.constraints],
            # keys added in later versions are left out at their defaults: older storages lack them
            **({"budgets": [str(c) for c in self.budgets]} if self.budgets else {}),
            "pool_size": self.pool_size,
            "batch_size": self.batch_size,
            "iterations": self.iterations,
            "predictor": self.predictor,
            "early_stop_threshold": self.early_stop_threshold,
            **_changed("early_stop_over", self.early_stop_over, BETTER_HALF),
            "finalists": self.finalists,
            **_changed("final_seeds", self.final_seeds, 1),
            **({"ahead": self.ahead} if self.ahead else {}),
            **_changed("first_parts", self.first_parts, None),
            "evolution": self.evolution.describe(),
            "pretrain": self.pretrain,
            "warm_start": [[t.id, t.score] for t in warm_start],
            "seed": self.seed,
            **_changed("rungs", list(self.rungs), []),
            **_changed("direction", self.direction, MAXIMIZE),
            **_changed("objectives", list(self.objectives), list(ONE_SCORE)),
            **_changed("score_constraints", [str(c) for c in self.score_constraints], []),
        }

    def identify(
        self,
        space: SearchSpace,
        statistics: Sequence[str] = (),
        evaluator_config: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Returns the exact values that the scores of a search depend on, as plain values.

        :meth:`describe` rounds numbers, and leaves out whether a range is logarithmic; here,
        numbers have all digits. Fields of variables and constraints that have their default are
        left out, so that a version that adds a field returns the same.

        Args:
            space: Space of the search.
            statistics: Names of the statistics.
            evaluator_config: Settings that affect the scores besides the candidate; None: unknown.

        Raises:
            SearchError: ``evaluator_config`` holds values that are not plain.
        """
        parts: dict[str, Any] = {
            "variables": {p.name: _exact(p) for p in space.parameters},
            "order": list(space.names),
            "constraints": [_exact(c) for c in self.constraints],
            "budgets": [_exact(c) for c in self.budgets],
            "statistics": sorted(statistics),
        }
        if evaluator_config is not None:
            parts["evaluator"] = _plain(evaluator_config)
        return {**parts, "sha256": hash_of(parts)}


def _changed(name: str, value: Any, default: Any) -> dict[str, Any]:
    """Returns {name: value}, or {} if the value is the default."""
    return {} if value == default else {name: value}


def hash_of(values: object) -> str:
    """Returns the sha256 of plain values, whatever the order of keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values as JSON gives them back.

    Raises:
        SearchError: JSON cannot represent a value.
    """
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(values), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise SearchError(
            f"evaluator_config: {first_line(error)}; allowed: strings, finite numbers, booleans, "
            "None, and lists and dicts of these"
        ) from None
    return plain


def _exact(value: Any) -> str:
    """Returns the type of a dataclass and its fields that differ from their defaults, as a string.

    The name is left out, except that of a constraint. A long result is cut, and a hash of the whole
    follows.
    """
    fields = [
        f"{f.name}={getattr(value, f.name)!r}"
        for f in dataclasses.fields(value)
        if isinstance(value, Constraint) or f.name != "name"
        if f.default is dataclasses.MISSING or getattr(value, f.name) != f.default
    ]
    text = f"{type(value).__name__}({', '.join(fields)})"
    return (
        text
        if len(text) <= _MAX_CHARACTERS
        else f"{text[:_MAX_CHARACTERS]}... sha256 {hash_of(text)[:16]}"
    )


def check_arguments(
    space: object, settings: object, executor: object, evaluator_config: Mapping[str, Any] | None
) -> None:
    """Checks the types of a search's arguments.

    Raises:
        SearchError: An argument has another type; the message names it and what is allowed.
    """
    if not isinstance(space, SearchSpace):
        raise SearchError(f"space={short(space)} is not allowed; allowed: SearchSpace([...])")
    if settings is not None and not isinstance(settings, SearchSettings):
        raise SearchError(
            f"settings={short(settings)} is not allowed; allowed: SearchSettings(...)"
        )
    methods = ("start", "submit", "wait", "close")
    if executor is not None and not all(hasattr(executor, name) for name in methods):
        raise SearchError(
            f"executor={short(executor)} is not allowed; allowed: InProcess(), LocalWorkers(2), "
            "RayWorkers(), or an object with their methods"
        )
    if evaluator_config is not None and not isinstance(evaluator_config, Mapping):
        raise SearchError(
            f"evaluator_config={short(evaluator_config)} is not allowed; allowed: plain values by "
            "name, such as {'epochs': 5}"
        )


def check_functions(evaluate: object, callbacks: object) -> None:
    """Checks the functions that a search calls.

    Raises:
        SearchError: ``evaluate`` or a callback cannot be called.
    """
    as_callable("evaluate", evaluate, "from a trial to its score")
    for callback in as_items("callbacks", callbacks, object, "functions"):
        as_callable("a callback", callback, "that takes a search and an event")
