"""A search for a Pareto front: its batches and finalists, and the predictors of each score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fbnetv3.search.acquisition.avoidance import FailureModel, any_of, safe_part
from fbnetv3.search.acquisition.batch import Probabilistic
from fbnetv3.search.acquisition.candidates import ELITE, Candidates
from fbnetv3.search.acquisition.front_batch import Trained, next_front_batch
from fbnetv3.search.acquisition.nsga2 import survivors
from fbnetv3.search.bounded_scores import BoundedScores
from fbnetv3.search.errors import SearchError
from fbnetv3.search.history import History, Known
from fbnetv3.search.models import Model, Models
from fbnetv3.search.objectives import ONE_SCORE, Objective, Objectives
from fbnetv3.search.predictors.predictor import PROBABILISTIC
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.stage_two import StageTwo
from fbnetv3.search.trial import Trial


class Fronts:
    """Batches and finalists of a search with several objectives.

    Args:
        objectives: Objectives of the search.
        encoding: Encoding of candidates as features.
        pool: Pool of the search: a sample of the candidates that meet its constraints.
        levels: Function from trials to the indices of their variables' values,
            (trials, variables).
        models: Fitted predictors of each score, in the order of the scores.
        stage_two: Stage 2 of the search, which evolves candidates.
        bounded: Bounds on scores.
    """

    def __init__(
        self,
        objectives: Objectives,
        encoding: Encoding,
        pool: Pool,
        levels: Callable[[Sequence[Trial]], Levels],
        models: Sequence[Models],
        stage_two: StageTwo,
        bounded: BoundedScores,
    ) -> None:
        self._objectives, self._encoding, self._pool = objectives, encoding, pool
        self._bounded = bounded
        self._levels, self._models, self._stage_two = levels, models, stage_two

    @property
    def worst_gains(self) -> np.ndarray:
        """Worst value of each cost in the pool, (costs,), negated if the cost is minimised."""
        return np.asarray(self._cost_gains(self._pool).min(0))

    def batch(
        self,
        history: History,
        known: Known,
        part: FeasibleSpace,
        failures: FailureModel | None,
        count: int,
        tried: set[bytes],
        random: np.random.Generator,
    ) -> Pool:
        """Returns a batch of stage 1; fewer than ``count`` candidates if too few are left.

        It is empty if no candidate in ``part`` has scores yet, or all of the pool is predicted to
        fail.

        Args:
            history: Trials so far.
            known: The same trials, with the scores by which they are compared.
            part: Space with the constraints that the candidates must meet.
            failures: Model of failures; None: no candidate is predicted to fail.
            count: Number of candidates.
            tried: Keys of candidates that may not be chosen.
            random: Source of all random numbers.
        """
        trained, elite = self._trained(known, part)
        safe = safe_part(part, failures)
        pool = self._pool if failures is None else safe.select(self._pool)
        if trained is None or not len(pool):
            return pool.take(np.zeros(0, dtype=np.int64))
        predictors = [model.predictor.fitted for model in self._fitted(history)]
        probabilistic = [p for p in predictors if isinstance(p, Probabilistic)]
        bounds = self._bounded.model(known)
        candidates = Candidates(safe, self._encoding, pool, elite, bounds)
        count = min(count, len(pool)) if failures is not None else count
        pending = self._levels(known.running)
        return next_front_batch(candidates, probabilistic, trained, count, tried, random, pending)

    def finalists(
        self,
        history: History,
        known: Known,
        part: FeasibleSpace,
        failures: FailureModel | None,
        count: int,
        tried: set[bytes],
    ) -> Pool:
        """Returns finalists spread over the front that stage 2 evolves; see :meth:`batch`."""
        trained, _ = self._trained(known, part)
        models = self._fitted(history)
        if trained is None or not models:
            return self._pool.take(np.zeros(0, dtype=np.int64))
        avoided = any_of(failures, self._bounded.model(known))
        return self._stage_two.front(known, models, part, trained, count, tried, avoided)

    def _fitted(self, history: History) -> list[Model]:
        """Returns the model of each score; [] if there are too few scores."""
        fitted = [models.latest(history) for models in self._models]
        return [model for model in fitted if model is not None]

    def _trained(self, known: Known, part: FeasibleSpace) -> tuple[Trained | None, Levels]:
        """Returns the candidates with scores in a part of the space, and the levels of the best.

        Those that violate the bounds on scores are left out; if all do, the one closest to the
        bounds is kept. The first value is None if no candidate in the part has scores.
        """
        complete = known.complete
        levels = self._levels(complete)
        mask = part.are_feasible(levels)
        trials = [t for t, is_in in zip(complete, mask, strict=True) if is_in]
        if not trials:
            return None, levels[mask]
        # If no trial meets the bounds on scores, only the trial that is closest to them is kept.
        are_met = self._bounded.are_met(trials)
        winners = [t for t, is_in in zip(trials, are_met, strict=True) if is_in]
        trials = winners or self._bounded.ranked(trials)[:1]
        levels = self._levels(trials)
        scored = [replace(t, score=known.scores[t.number]) for t in trials]
        elite = levels[survivors(self._objectives.points(scored), ELITE)]

        def cost_gains(candidates: Levels) -> np.ndarray:
            return self._cost_gains(part.with_statistics(candidates))

        return Trained(levels, cost_gains, self.worst_gains), elite

    def _cost_gains(self, pool: Pool) -> np.ndarray:
        return self._objectives.cost_gains(pool.statistics, len(pool))


def models_of_scores(
    objectives: Objectives, models: Models, known: Callable[[History], Known]
) -> list[Models]:
    """Returns the predictors of each score.

    Args:
        objectives: Objectives of the search.
        models: Predictors of the first score.
        known: Function from a history to its trials and their first scores.
    """

    def of(score: Objective) -> Models:
        return models.with_scores(lambda history: known_by(known(history), score))

    return [models, *(of(score) for score in objectives.scores[1:])]


def known_by(known: Known, score: Objective) -> Known:
    """Returns the trials so far with another score of the same evaluations.

    Args:
        known: Trials with their first score.
        score: One of several scores.
    """
    scores = {trial.number: trial.scores[score.name] for trial in known.complete}
    return replace(known, scores=scores, direction=score.direction)


def check_several_scores(
    objectives: Objectives, settings: SearchSettings, warm_start: Sequence[Trial]
) -> None:
    """Checks the settings of a search with several scores, or with bounds on scores.

    Raises:
        SearchError: There is a warm start, whose trials have one score without a name, but the
            scores of the search have names; or the search has several scores or bounds on scores,
            and it has rungs or a predictor without a posterior.
    """
    names = ", ".join(objectives.score_names or ONE_SCORE)
    if warm_start and objectives.score_names:
        raise SearchError(
            f"warm_start has one score for a candidate, but the search needs {names}; leave out "
            "warm_start"
        )
    if len(objectives.scores) == 1 and not objectives.bounded:
        return
    what = f"the search has {'bounds on ' if objectives.bounded else ''}{names}"
    if settings.rungs:
        raise SearchError(
            f"rungs={list(settings.rungs)} compare partial trainings by one score, but {what}; "
            "leave out rungs (SEARCH.RUNGS)"
        )
    if settings.predictor not in PROBABILISTIC:
        raise SearchError(
            f"predictor={settings.predictor!r} chooses candidates by one score, but {what}; "
            f"allowed: {', '.join(map(repr, PROBABILISTIC))}"
        )
