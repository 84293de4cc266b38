"""The result of a search: its trials, the best of them, and the predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fbnetv3.errors import did_you_mean
from fbnetv3.search.acquisition.early_stopping import EarlyStop
from fbnetv3.search.errors import SearchError
from fbnetv3.search.predictors.predictor import Predictor
from fbnetv3.search.predictors.report_card import ReportCard
from fbnetv3.search.space.constraints import Constraint
from fbnetv3.search.trial import Trial


@dataclass(frozen=True)
class Candidate:
    """A candidate of stage 2 that has not been trained.

    Attributes:
        id: Hash of the candidate, as of a Trial.
        config: Value of each variable.
        predicted: Predicted score.
        statistics: Value of each statistic, by name.
    """

    id: str
    config: dict[str, Any]
    predicted: float
    statistics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchResult:
    """The results of a search at one time.

    Attributes:
        trials: Trials with a result, by number, those of a warm start first. Their ``score`` is
            the one that counted at the time.
        predictor: Predictor fitted on the scores of all finished batches; None: too few scores.
        early_stop: Rank correlation by epoch and the epoch of the early stop; None: not known.
        cards: Report card of the predictor after each batch.
        proxy_correlation: Correlation of the pre-trained encoder's predictions with each
            statistic, on held-out candidates, by name.
    """

    trials: list[Trial]
    predictor: Predictor | None
    early_stop: EarlyStop | None
    cards: list[ReportCard]
    proxy_correlation: dict[str, float]

    @property
    def best(self) -> Trial:
        """The complete trial with the highest score; of equal scores the first.

        Raises:
            SearchError: No trial has a score.
        """
        best = _best(self._complete)
        if best is None:
            reasons = sorted({t.reason or "" for t in self.trials})
            detail = f": {reasons[0]}" if reasons else ""
            raise SearchError(f"none of {len(self.trials)} trials has a score{detail}")
        return best

    def best_within(self, budget: Constraint) -> Trial | None:
        """Returns the complete trial with the highest score within a budget; None: no trial is."""
        return _best([t for t in self._complete if _meets(t, budget)])

    def pareto(self, statistic: str) -> list[Trial]:
        """Returns the trials with a higher score than all that cost as much or less.

        Args:
            statistic: Statistic that is the cost.

        Returns:
            The trials by rising cost.

        Raises:
            SearchError: There is no such statistic.
        """
        names = {name for t in self._complete for name in t.statistics}
        if statistic not in names:
            raise SearchError(
                f"no statistic {statistic!r}; the statistics are "
                f"{', '.join(sorted(names)) or 'none'}{did_you_mean(statistic, names)}"
            )
        front: list[Trial] = []
        priced = [t for t in self._complete if statistic in t.statistics]
        for trial in sorted(priced, key=lambda t: (t.statistics[statistic], -_score(t))):
            if not front or _score(trial) > _score(front[-1]):
                front.append(trial)
        return front

    @property
    def _complete(self) -> list[Trial]:
        return [t for t in self.trials if t.state == "complete"]


def _best(trials: Sequence[Trial]) -> Trial | None:
    return max(trials, key=lambda t: (_score(t), -t.number), default=None)


def _meets(trial: Trial, budget: Constraint) -> bool:
    if budget.name not in trial.statistics:
        return False
    return bool(budget.holds(np.array([trial.statistics[budget.name]]))[0])


def _score(trial: Trial) -> float:
    return float("-inf") if trial.score is None else trial.score
