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
from fbnetv3.search.direction import MAXIMIZE, gain
from fbnetv3.search.errors import SearchError
from fbnetv3.search.predictors.predictor import Predictor
from fbnetv3.search.predictors.report_card import ReportCard
from fbnetv3.search.space.constraints import Constraint, cost_order
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial


@dataclass(frozen=True)
class Candidate:
    """A candidate of stage 2 that has not been trained.

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
    """The results of a search at one time.

    Attributes:
        trials: Trials with a result, by number, those of a warm start first. Their ``score`` is
            the one by which they were compared at that time.
        predictor: Predictor fitted on the scores of all finished batches; None: too few scores.
        early_stop: Rank correlation by epoch and the epoch of the early stop; None: not known.
        report_cards: Report card of the predictor after each batch.
        proxy_correlation: Correlation of the pre-trained encoder's predictions with each
            statistic, on held-out candidates, by name.
        constraints: Constraints of the search. Candidates of a warm start may violate them; these
            are among the trials, but are never the best one or on the Pareto front.
        budgets: Budgets of the search.
        early_stop_over: Candidates whose ranking decides the early stop: ``all`` or
            ``better_half``.
        failures: What the search has learned about failures for lack of memory or time; None: too
            few of them.
        direction: ``maximize`` or ``minimize``: which end of the scores is the best.
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

    @property
    def feasible(self) -> list[Trial]:
        """The complete trials that meet the constraints, by number."""
        complete = (t for t in self.trials if t.state == "complete")
        return [t for t in complete if all(_meets(t, c) for c in self.constraints)]

    @property
    def best(self) -> Trial:
        """The best of the feasible trials, by :meth:`best_of`.

        Raises:
            SearchError: No trial has a score and meets the constraints.
        """
        best = self.best_of(self.feasible)
        if best is None:
            raise SearchError(self._why_there_is_no_best())
        return best

    def _why_there_is_no_best(self) -> str:
        if any(t.state == "complete" for t in self.trials):
            bounds = " and ".join(map(str, self.constraints))
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
        """Returns the best feasible trial within a budget; None if no trial is within it."""
        return self.best_of([t for t in self.feasible if _meets(t, budget)])

    def pareto(self, statistic: str) -> list[Trial]:
        """Returns the feasible trials with a better score than all that cost as much or less.

        Args:
            statistic: Statistic that is the cost.

        Returns:
            The trials by rising cost.

        Raises:
            SearchError: There is no such statistic.
        """
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

    def _gain(self, trial: Trial) -> float:
        return float("-inf") if trial.score is None else gain(trial.score, self.direction)


def _meets(trial: Trial, budget: Constraint) -> bool:
    if budget.name not in trial.statistics:
        return False
    return bool(budget.is_met_by(np.array([trial.statistics[budget.name]]))[0])
