"""The bounds on scores of a search, applied to its trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fbnetv3.search.acquisition.score_bounds import ScoreBounds, bilog
from fbnetv3.search.history import Known
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.space.constraints import Constraint, Mask
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.trial import Trial


class BoundedScores:
    """Which trials meet the bounds on scores, and a model that predicts which candidates will.

    Args:
        settings: Settings of the search.
        encoding: Encoding of its candidates.
        levels: Function from trials to their levels, (trials, variables).
    """

    def __init__(
        self,
        settings: SearchSettings,
        encoding: Encoding,
        levels: Callable[[Sequence[Trial]], Levels],
    ) -> None:
        self._constraints, self._seed = settings.score_constraints, settings.seed
        self._encoding, self._levels = encoding, levels

    def are_met(self, trials: Sequence[Trial]) -> Mask:
        """Returns which complete trials violate no bound, (trials,).

        A trial that lacks a bounded score does not violate the bound on this score.
        """
        return np.asarray(~(excesses_of(self._constraints, trials) > 0).any(1))

    def ranked(self, trials: Sequence[Trial]) -> list[Trial]:
        """Returns complete trials in their order, but those that violate bounds last.

        The larger the excesses of a trial over the bounds, the later it comes.

        Args:
            trials: Complete trials, best score first.
        """
        if not self._constraints:
            return list(trials)
        excesses = np.nan_to_num(excesses_of(self._constraints, trials))
        columns = [bilog(column) for column in excesses.T] if len(trials) else []
        total = np.maximum(np.stack(columns, 1), 0).sum(1) if columns else np.zeros(0)
        return [trials[i] for i in np.argsort(total, kind="stable")]

    def model(self, known: Known) -> ScoreBounds | None:
        """Returns the model of the bounds; None if there are no bounds, or no trial has a score."""
        complete = known.complete
        if not self._constraints or not complete:
            return None
        excesses = excesses_of(self._constraints, complete)
        return ScoreBounds(self._encoding.encode, self._levels(complete), excesses, self._seed)


def excesses_of(constraints: Sequence[Constraint], trials: Sequence[Trial]) -> Floats:
    """Returns the excess of each complete trial over each bound, (trials, bounds).

    It is above 0 where the bound is violated, and NaN if the trial lacks the score.

    Args:
        constraints: Bounds on named scores. A constraint with a lower and an upper bound has two
            columns.
        trials: Complete trials.
    """
    columns = []
    for constraint in constraints:
        values = np.array([t.score_named(constraint.name) for t in trials], dtype=np.float64)
        if constraint.upper is not None:
            columns.append(values - constraint.upper)
        if constraint.lower is not None:
            columns.append(constraint.lower - values)
    return np.stack(columns, 1) if columns else np.zeros((len(trials), 0))
