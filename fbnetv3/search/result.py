"""The result of a search: its trials, the best of them, and the predictor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fbnetv3.errors import did_you_mean
from fbnetv3.search.acquisition.avoidance import FailureSummary
from fbnetv3.search.acquisition.early_stopping import BETTER_HALF, EarlyStop
from fbnetv3.search.acquisition.fine import Evolved
from fbnetv3.search.acquisition.hypervolume import hypervolume, non_dominated, reference_of
from fbnetv3.search.bounded_scores import excesses_of
from fbnetv3.search.direction import MAXIMIZE, gain
from fbnetv3.search.errors import SearchError
from fbnetv3.search.objectives import Objectives
from fbnetv3.search.predictors.predictor import Predictor
from fbnetv3.search.predictors.report_card import ReportCard
from fbnetv3.search.replicates import Spread, spreads
from fbnetv3.search.rungs import Rung
from fbnetv3.search.space.constraints import Constraint, cost_order
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial


@dataclass(frozen=True)
class Candidate:
    """A candidate that the evolution on predictions (stage 2) proposes, without training it.

    Attributes:
        id: Hash of the candidate, as in :class:`Trial`.
        config: Value of each variable.
        predicted: Predicted score.
        statistics: Value of each statistic, by name.
    """

    id: str
    config: dict[str, Any]
    predicted: float
    statistics: dict[str, float] = field(default_factory=dict)


def evolved_candidates(space: SearchSpace, evolved: Evolved) -> list[Candidate]:
    """Returns the candidates of an evolution, best predicted score first."""
    levels = evolved.pool.levels
    ids, configs = space.ids(levels), space.configs(levels)
    return [
        Candidate(ids[i], configs[i], float(evolved.scores[i]), evolved.pool.row(i))
        for i in range(len(levels))
    ]


@dataclass(frozen=True)
class SearchResult:
    """The result of a search so far; the search may still go on.

    Attributes:
        trials: Trials that have ended, those of a warm start first, then by rising number. Their
            ``score`` is the one by which the search compared them when this result was made; for a
            finalist with several seeds, it is the mean of their scores. With rungs (numbers of
            epochs after which only some candidates train on), only trials of the highest rung that
            any candidate has finished, and replicates of finalists, have a score.
        predictor: Predictor fitted on the scores of all finished batches. None if there are too
            few scores.
        early_stop: Rank correlation by epoch and the epoch of the early stop. None without early
            stopping, before the first batch is finished, and if its reports do not suffice
            (see :func:`~fbnetv3.search.acquisition.early_stopping.find_early_stop`).
        report_cards: Report card of the predictor after each finished batch, once there are enough
            scores to fit it.
        proxy_correlation: Correlation of the pre-trained encoder's predictions with each
            statistic, on held-out candidates, by name.
        constraints: Constraints of the search. Candidates of a warm start may violate them: such
            candidates are among the trials, but are never the best one or on the Pareto front.
        budgets: Bounds on costs, for each of which the search has a winner.
        early_stop_over: Candidates whose ranking decides the early stop: ``all`` or
            ``better_half``.
        failures: What the search has learned about failures for lack of memory or time. None if
            there are too few such failures, or too few scores, to learn from.
        direction: ``maximize`` or ``minimize``: whether the highest or the lowest score is best.
        objectives: Objectives of the search.
        worst_costs: Worst value in the pool of each objective that is a cost, by name: the highest
            value, or the lowest one of a cost that is maximised. The :attr:`reference_point`
            depends on it.
        rungs: State of each rung; (): the candidates trained in one go.
        score_constraints: Bounds on scores of the evaluations. Trials that violate them are never
            the best one or on the Pareto front.
        first_parts: Number of parts in which the first batch is proposed: trials with ``batch`` 0
            to ``first_parts - 1`` belong to it.
    """

    trials: list[Trial]
    predictor: Predictor | None
    early_stop: EarlyStop | None
    report_cards: list[ReportCard]
    proxy_correlation: dict[str, float]
    constraints: tuple[Constraint, ...] = ()
    budgets: tuple[Constraint, ...] = ()
    early_stop_over: str = BETTER_HALF
    failures: FailureSummary | None = None
    direction: str = MAXIMIZE
    objectives: Objectives = field(default_factory=Objectives)
    worst_costs: dict[str, float] = field(default_factory=dict)
    rungs: tuple[Rung, ...] = ()
    score_constraints: tuple[Constraint, ...] = ()
    first_parts: int = 1

    @property
    def complete(self) -> list[Trial]:
        """Complete trials with a score by which they are compared, in the order of ``trials``."""
        return [t for t in self.trials if t.state == "complete" and t.score is not None]

    @property
    def spreads(self) -> dict[str, Spread]:
        """Final scores of each finalist with several complete trainings (seeds), by id."""
        return spreads(self.trials)

    @property
    def feasible(self) -> list[Trial]:
        """Trials of :attr:`complete` that meet all constraints and violate no bound on scores."""
        trials = [t for t in self.complete if all(_meets(t, c) for c in self.constraints)]
        violates = (excesses_of(self.score_constraints, trials) > 0).any(1)
        return [trials[i] for i in np.flatnonzero(~violates)]

    @property
    def best(self) -> Trial:
        """The best of the feasible trials, by :meth:`best_of`.

        Raises:
            SearchError: No trial is feasible.
        """
        best = self.best_of(self.feasible)
        if best is None:
            raise SearchError(self._why_there_is_no_best())
        return best

    def _why_there_is_no_best(self) -> str:
        if self.complete:
            bounds = " and ".join(map(str, (*self.constraints, *self.score_constraints)))
            return f"none of {len(self.trials)} trials has a score and meets {bounds}"
        reasons = sorted({t.reason or "" for t in self.trials})
        detail = f": {reasons[0]}" if reasons else ""
        return f"none of {len(self.trials)} trials has a score{detail}"

    def best_of(self, trials: Sequence[Trial]) -> Trial | None:
        """Returns the trial with the best score; None if there are no trials.

        Among equal scores, the cheapest trial is the best: the one with the lowest statistics in
        the order of :func:`~fbnetv3.search.space.constraints.cost_order`. Among equal costs, it is
        the earliest one.

        Args:
            trials: Complete trials of the search.
        """
        bounds = (*self.constraints, *self.budgets)
        names = cost_order(bounds, dict.fromkeys(name for t in trials for name in t.statistics))

        def rank(trial: Trial) -> tuple[float, ...]:
            costs = (trial.statistics.get(name, math.inf) for name in names)
            return (-self._gain(trial), *costs, trial.number)

        return min(trials, key=rank, default=None)

    def best_within(self, budget: Constraint) -> Trial | None:
        """Returns the best feasible trial within a budget; None if there is no such trial."""
        return self.best_of([t for t in self.feasible if _meets(t, budget)])

    def pareto(self, statistic: str | None = None) -> list[Trial]:
        """Returns the feasible trials on a Pareto front, sorted by rising values of its first cost.

        Args:
            statistic: Name of a statistic, to be minimised: the front has the trials with a better
                score than all other trials that cost as much or less. If None, the front is that of
                the search's objectives: the trials for which no other trial is at least as good in
                all objectives and better in one. Of trials with equal values of all objectives (or
                equal score and statistic), only the earliest one is returned. If no objective is a
                cost, the trials are sorted by rising values of the first score.

        Raises:
            SearchError: There is no such statistic, or none was given and the search has one
                objective.
        """
        if statistic is None:
            return self._front()
        names = {name for t in self.trials for name in t.statistics}
        if statistic not in names:
            raise SearchError(
                f"no statistic {statistic!r}; the statistics are "
                f"{', '.join(sorted(names)) or 'none'}{did_you_mean(statistic, names)}"
            )
        front: list[Trial] = []
        measured = [t for t in self.feasible if statistic in t.statistics]
        for trial in sorted(measured, key=lambda t: (t.statistics[statistic], -self._gain(t))):
            if not front or self._gain(trial) > self._gain(front[-1]):
                front.append(trial)
        return front

    def _front(self) -> list[Trial]:
        """Returns the Pareto front of the objectives."""
        if not self.objectives.are_several:
            raise SearchError(
                "the search has one objective; give a statistic as its cost, such as "
                "pareto('macs'), or search with objectives=['score', '-macs']"
            )
        return pareto_front(self.feasible, self.objectives)

    @property
    def reference_point(self) -> dict[str, float]:
        """The reference point of the hypervolume, by name of the objective.

        It is worse than the front in each objective. For a score, it lies beyond the worst score on
        the front, by a tenth of the front's range of this score. For a cost, it lies beyond the
        worst cost in the pool or on the front, by a tenth of the distance between that cost and the
        best cost on the front. Where that range or distance is 0, the magnitude of the worst value
        takes its place, or 1 if the worst value is 0. {} if no trial is feasible, or the search has
        one objective.
        """
        trials = self.feasible
        if not self.objectives.are_several or not trials:
            return {}
        gains = reference_of(self.objectives.points(trials), self._worst_gains())
        pairs = zip(self.objectives.all, gains.tolist(), strict=True)
        return {o.name: gain(value, o.direction) for o, value in pairs}

    def _worst_gains(self) -> list[float]:
        costs = self.objectives.costs
        return [gain(self.worst_costs[cost.name], cost.direction) for cost in costs]

    @property
    def hypervolumes(self) -> dict[int, float]:
        """The hypervolume of the front after each batch with feasible trials, by batch number.

        It is the volume between the front and the :attr:`reference_point`, which is the same for
        all batches of one result. Its unit is the product of the units of all objectives. The batch
        of a warm start has the number -1. {} if there is no reference point.
        """
        if not self.reference_point:
            return {}
        trials = sorted(self.feasible, key=lambda t: t.batch)
        points = self.objectives.points(trials)
        reference = reference_of(points, self._worst_gains())
        ends = {trial.batch: i + 1 for i, trial in enumerate(trials)}
        return {batch: hypervolume(points[:end], reference) for batch, end in ends.items()}

    def _gain(self, trial: Trial) -> float:
        return float("-inf") if trial.score is None else gain(trial.score, self.direction)


def _meets(trial: Trial, budget: Constraint) -> bool:
    if budget.name not in trial.statistics:
        return False
    return bool(budget.is_met_by(np.array([trial.statistics[budget.name]]))[0])


def pareto_front(trials: Sequence[Trial], objectives: Objectives) -> list[Trial]:
    """Returns the non-dominated trials, sorted by rising values of the first cost.

    Of trials with equal values of all objectives, only the first one in ``trials`` is returned. If
    no objective is a cost, the trials are sorted by rising values of the first score.

    Args:
        trials: Complete trials, sorted by number.
        objectives: Objectives of the front.
    """
    points = objectives.points(trials)
    rows: list[int] = np.flatnonzero(non_dominated(points)).tolist()
    first = {tuple(points[i]): i for i in reversed(rows)}  # the earliest of equal ones
    by = [*objectives.costs, *objectives.scores][0]
    front = [trials[i] for i in sorted(first.values())]
    return sorted(front, key=lambda t: objectives.value_of(by, t))
