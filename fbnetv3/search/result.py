"""What a search found."""

from __future__ import annotations

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
    """A candidate that was not trained (yet).

    Attributes:
        id, config, statistics: as of a Trial.
        predicted: score by the predictor.
    """

    id: str
    config: dict[str, Any]
    predicted: float
    statistics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchResult:
    """The trials, the winner and the predictor.

    Attributes:
        trials: all finished ones, by number; those of ``warm_start`` come first.
        predictor: fitted on all scores; None where there are too few.
        early_stop: the rank correlation by epoch, None where it could not be told.
        cards: how well the predictor did, one a round.
        proxy_correlation: of the pre-trained encoder, by statistic.
    """

    trials: list[Trial]
    predictor: Predictor | None
    early_stop: EarlyStop | None
    cards: list[ReportCard]
    proxy_correlation: dict[str, float]

    @property
    def best(self) -> Trial:
        """The complete trial with the highest score; the earlier one of equals.

        Raises:
            SearchError: every trial failed.
        """
        complete = [t for t in self.trials if t.state == "complete"]
        if not complete:
            reasons = sorted({t.reason or "" for t in self.trials})
            told = f": {reasons[0]}" if reasons else ""
            raise SearchError(f"none of {len(self.trials)} trials has a score{told}")
        return max(complete, key=lambda t: (_score(t), -t.number))

    def best_within(self, budget: Constraint) -> Trial | None:
        """Returns the complete trial with the highest score within a budget, if there is one."""
        having = [t for t in self.trials if t.state == "complete" and budget.name in t.statistics]
        within = [t for t in having if budget.holds(np.array([t.statistics[budget.name]]))[0]]
        return max(within, key=lambda t: (_score(t), -t.number), default=None)

    def pareto(self, statistic: str) -> list[Trial]:
        """Returns the trials that no other beats in score at the same cost or less, by cost.

        Raises:
            SearchError: there is no such statistic.
        """
        complete = [t for t in self.trials if t.state == "complete"]
        known = {name for t in complete for name in t.statistics}
        if statistic not in known:
            raise SearchError(
                f"no statistic {statistic!r}; there are {', '.join(sorted(known)) or 'none'}"
                f"{did_you_mean(statistic, known)}"
            )
        front: list[Trial] = []
        having = [t for t in complete if statistic in t.statistics]
        for trial in sorted(having, key=lambda t: (t.statistics[statistic], -_score(t))):
            if not front or _score(trial) > _score(front[-1]):
                front.append(trial)
        return front


def _score(trial: Trial) -> float:
    return float("-inf") if trial.score is None else trial.score
