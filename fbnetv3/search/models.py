"""The predictors of a search, fitted to its history, and their report cards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fbnetv3.search.acquisition.avoidance import MIN_TRIALS, FailureModel, FailureSummary
from fbnetv3.search.executors.device_faults import failure_kind
from fbnetv3.search.history import History, Known
from fbnetv3.search.predictors.encoder import Pretrained
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.predictors.predictor import fit_function
from fbnetv3.search.predictors.report_card import ReportCard, make_card
from fbnetv3.search.predictors.score_unit import ScorePredictor
from fbnetv3.search.records import StoredCard
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.trial import Trial

_FEWEST_LABELS = 5
"""Smallest number of scores that a predictor is fitted to."""
_FIT = 23  # separates the random streams of one seed


@dataclass(frozen=True)
class Model:
    """A fitted predictor and its report card."""

    predictor: ScorePredictor
    card: ReportCard


class Models:
    """The predictors of a search; the predictor of finished batches is fitted once.

    Args:
        settings: Settings of the search.
        encoding: Encoding of its candidates.
        with_statistics: Function that returns the candidates of trials, with their statistics.
        known: Function from a history to its trials and the scores by which they are compared.
        pretrained: Function that returns the pre-trained encoder.
    """

    def __init__(
        self,
        settings: SearchSettings,
        encoding: Encoding,
        with_statistics: Callable[[Sequence[Trial]], Pool],
        known: Callable[[History], Known],
        pretrained: Callable[[], Pretrained],
    ) -> None:
        self._settings, self._encoding = settings, encoding
        self._with_statistics, self._known, self._pretrained = with_statistics, known, pretrained
        self._models: dict[_ModelKey, Model | None] = {}

    def model(self, history: History) -> Model | None:
        """Returns the predictor fitted on the leading finished batches.

        Later results are left out, so that the predictor does not depend on when it is asked for.

        Returns:
            The model; None if there are too few scores.
        """
        head = history.head(history.finished)
        key = _model_key(head)
        if key not in self._models:
            self._models[key] = self.fitted(head)
        return self._models[key]

    def latest(self, history: History) -> Model | None:
        """Returns the predictor for the next batch, fitted also on scores of unfinished batches.

        Returns:
            The model; None if there are too few scores.
        """
        is_finished = history.finished == len(history)
        return self.model(history) if is_finished else self.fitted(history)

    def with_scores(self, known: Callable[[History], Known]) -> Models:
        """Returns the predictors of other scores of the same trials.

        Args:
            known: Function from a history to its trials and these scores.
        """
        return Models(
            self._settings, self._encoding, self._with_statistics, known, self._pretrained
        )

    def cards(self, history: History, stored: Mapping[int, StoredCard]) -> dict[int, ReportCard]:
        """Returns the report card of the predictor after each finished batch.

        Args:
            history: Trials so far.
            stored: Cards of earlier processes, which are not computed again, by number of batches.

        Returns:
            The cards by the number of batches that had finished.
        """
        cards = {}
        for end in range(1, history.finished + 1):
            head = history.head(end)
            if end in stored and _model_key(head) not in self._models:
                cards[end] = self._restored(stored[end], head)
                continue
            model = self.model(head)
            if model is not None:
                cards[end] = model.card
        return cards

    def _restored(self, stored: StoredCard, history: History) -> ReportCard:
        """Returns a stored card, completed with the true scores of the trials in a history."""
        known = self._known(history)
        scores = [known.scores[t.number] for t in known.complete]
        is_whole = len(stored.held_out) == len(scores)
        return replace(
            stored.card,
            batch=_pairs_of_last_batch(history, known),
            held_out=list(zip(stored.held_out, scores, strict=True)) if is_whole else [],
        )

    def fitted(self, history: History) -> Model | None:
        """Returns the predictor fitted on every score of a history; None: too few scores."""
        known = self._known(history)
        complete = known.complete
        if len(complete) < _FEWEST_LABELS:
            return None
        features = self._encoding.encode(self._with_statistics(complete).levels)
        labels: Floats = np.array([known.scores[t.number] for t in complete], dtype=np.float64)
        stream = np.random.default_rng([self._settings.seed, _FIT, len(history)])
        fit = fit_function(self._settings.predictor)
        seed, direction = int(stream.integers(2**31)), known.direction
        errors = None
        if known.errors is not None:
            errors = np.array([known.errors[t.number] for t in complete], dtype=np.float64)
        predictor = ScorePredictor(
            fit, features, labels, self._pretrained(), seed, direction, errors
        )
        last_batch = _pairs_of_last_batch(history, known)
        return Model(predictor, make_card(predictor.cross_validated(), labels, last_batch))

    def failures(self, history: History) -> FailureModel | None:
        """Returns the model of failures for lack of memory or time.

        Args:
            history: Trials so far.

        Returns:
            The model; None if there are too few failures or too few scores.
        """
        failed, complete = _by_outcome(history)
        if min(len(failed), len(complete)) < MIN_TRIALS:
            return None
        pool = self._with_statistics([*failed, *complete])
        return FailureModel(self._encoding, pool, np.arange(len(pool)) < len(failed))

    def failure_summary(self, history: History, pool: Pool) -> FailureSummary | None:
        """Returns a summary of the model of failures; None if there is no such model.

        Args:
            history: Trials so far.
            pool: Pool of the search.
        """
        model = self.failures(history)
        if model is None:
            return None
        failed, complete = _by_outcome(history)
        return FailureSummary(len(failed), len(complete), float(model.fails(pool).mean()))


def _by_outcome(history: History) -> tuple[list[Trial], list[Trial]]:
    """Returns the trials that ran out of memory or time, and the trials with a score."""
    failed = [t for t in history.trials if t.state == "failed" and failure_kind(t.reason)]
    return failed, [t for t in history.trials if t.state == "complete"]


_ModelKey = tuple[int, frozenset[int]]


def _model_key(history: History) -> _ModelKey:
    """Returns what a model depends on: the number of batches, and the trials with a score.

    The number of batches alone does not suffice: a failed trial may be evaluated again and get a
    score later. Batches that were proposed before are replayed from a history in which it failed.
    """
    scored = (trial.number for trial in history.trials if trial.state == "complete")
    return len(history), frozenset(scored)


def _pairs_of_last_batch(history: History, known: Known) -> list[tuple[float, float]]:
    """Returns the predicted and the true score of each trial of the last batch that has both."""
    return [
        (t.predicted, known.scores[t.number])
        for t in (history.batches[-1] if len(history) else [])
        if t.predicted is not None and t.number in known.scores
    ]
