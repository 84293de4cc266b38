"""The candidates that go on to the next rung, and the trials in which they do.

A rung is a number of epochs after which candidates are compared; only the best train on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fbnetv3.search.acquisition.batch import Probabilistic
from fbnetv3.search.acquisition.nsga2 import survivors
from fbnetv3.search.direction import gain
from fbnetv3.search.history import History, Known
from fbnetv3.search.models import Model
from fbnetv3.search.objectives import Objectives
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.rungs import continued, most_promotions
from fbnetv3.search.space.encoding import Encoding, Features
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.space import keys_of
from fbnetv3.search.trial import Trial


class Promotion:
    """Chooses the candidates that go on to the next rung.

    Candidates are ranked by the final score that the predictor expects given their own scores so
    far and those of all other candidates; without a predictor, by the estimate from their own
    scores. With budgets, the best candidate of each budget comes first, then the second best of
    each, and so on. With costs among the objectives, candidates are ranked as in NSGA-II.

    Args:
        encoding: Encoding of the candidates.
        objectives: Objectives of the search.
        budgets: Feasible space within each budget; []: no budgets.
        with_statistics: Function that returns the candidates of trials, with their statistics.
    """

    def __init__(
        self,
        encoding: Encoding,
        objectives: Objectives,
        budgets: Sequence[FeasibleSpace],
        with_statistics: Callable[[Sequence[Trial]], Pool],
    ) -> None:
        self._encoding, self._objectives, self._budgets = encoding, objectives, budgets
        self._with_statistics = with_statistics

    def keys(self, known: Known) -> set[bytes]:
        """Returns the keys of the candidates that have stopped at a rung and may go on."""
        waiting = [] if known.ladder is None else known.ladder.waiting()
        return set(keys_of(self._with_statistics(waiting).levels))

    def trials(
        self, history: History, known: Known, model: Model | None, stage: str, count: int
    ) -> list[Trial]:
        """Returns the trials of the next batch in which candidates go on, most epochs first.

        If more candidates may go on than a batch has room for, the rest may do so with later ones.

        Args:
            history: Trials so far.
            known: The same trials, with the scores by which they are compared and their rungs.
            model: Predictor of the final score; None: too few scores.
            stage: Stage of the next batch, ``coarse`` or ``fine``. Candidates go on in ``coarse``
                only.
            count: Number of new candidates of the batch.

        Returns:
            The trials; [] without rungs, in stage ``fine``, or if no candidate may go on.
        """
        stopped = [] if known.ladder is None or stage == "fine" else known.ladder.waiting()
        if known.ladder is None or not stopped:
            return []
        waiting = self._with_statistics(stopped)
        gains = gain(np.array([known.scores[t.number] for t in stopped]), known.direction)
        predicted: dict[str, float] = {}
        if model is not None:
            features = self._encoding.encode(waiting.levels)
            gains = _posterior_means(model, features)
            pairs = zip(stopped, model.predictor.predict(features).tolist(), strict=True)
            predicted = {trial.id: value for trial, value in pairs}
        values = self._values(waiting, gains)
        first, batch = len(history.trials), len(history)
        most = most_promotions(known.ladder.rungs, count)
        return [
            continued(trial, first + i, batch, epochs, predicted.get(trial.id))
            for i, (trial, epochs) in enumerate(known.ladder.promotions(values, most))
        ]

    def _values(self, pool: Pool, gains: Floats) -> list[float]:
        """Returns a value for each candidate; candidates with higher values go on first.

        Args:
            pool: Candidates.
            gains: (candidates,) predicted final gains; higher is better.
        """
        if self._objectives.are_several:
            costs = self._objectives.cost_gains(pool.statistics, len(pool))
            order = survivors(np.column_stack([gains, costs]), len(pool)).tolist()
        elif self._budgets:
            order = in_turns([_best_within(part, pool, gains) for part in self._budgets])
        else:
            return [float(value) for value in gains]
        values = [float("-inf")] * len(pool)
        for place, row in enumerate(order):
            values[row] = -float(place)
        return values


def _posterior_means(model: Model, features: Features) -> Floats:
    """Returns predicted gains, (candidates,), in the predictor's own unit: only to be ranked."""
    fitted = model.predictor.fitted
    if isinstance(fitted, Probabilistic):
        return fitted.gp.mean(features)
    return fitted.predict(features)


def _best_within(part: FeasibleSpace, pool: Pool, gains: Floats) -> list[int]:
    """Returns the indices of the candidates in a part of the space, best first."""
    rows = np.flatnonzero(part.are_feasible(pool.levels))
    return [int(row) for row in rows[np.argsort(-gains[rows], kind="stable")]]


def in_turns(queues: Sequence[Sequence[int]]) -> list[int]:
    """Returns the distinct items of all queues: first items, then second items, and so on."""
    longest = max(map(len, queues), default=0)
    turns = [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
    return list(dict.fromkeys(turns))
