"""Stage 2 of a search: evolution on predictions, from the candidates trained so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fbnetv3.search.acquisition import fine
from fbnetv3.search.acquisition.avoidance import Avoided, safe_part
from fbnetv3.search.acquisition.front_batch import Trained
from fbnetv3.search.acquisition.front_evolution import evolve_front, spread_over_front
from fbnetv3.search.history import Known
from fbnetv3.search.models import Model
from fbnetv3.search.objectives import Objectives
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.space import unique_rows
from fbnetv3.search.trial import Trial

_FINE = 22  # separates the random numbers of stage 2 from others of the same seed


class StageTwo:
    """Evolves candidates on predicted scores.

    Args:
        settings: Settings of the search.
        encoding: Encoding of its candidates.
        objectives: Objectives of the search.
        levels: Function from trials to their levels, (trials, variables).
        pool_within: Function from a part of the space and a number to that many candidates or
            more; fewer if the part has fewer.
    """

    def __init__(
        self,
        settings: SearchSettings,
        encoding: Encoding,
        objectives: Objectives,
        levels: Callable[[Sequence[Trial]], Levels],
        pool_within: Callable[[FeasibleSpace, int], Pool],
    ) -> None:
        self._settings, self._encoding, self._objectives = settings, encoding, objectives
        self._levels, self._pool_within = levels, pool_within

    def evolved(
        self,
        known: Known,
        model: Model,
        part: FeasibleSpace,
        top_k: int | None,
        failures: Avoided | None = None,
    ) -> fine.Evolved:
        """Returns the ``top_k`` candidates with the best predicted score that evolution finds.

        Args:
            known: Trials so far.
            model: Model of the score.
            part: Part of the space in which candidates evolve.
            top_k: Number of candidates; None: ``evolution.top`` of the settings.
            failures: Model of the candidates to leave out, unless the whole first generation is
                predicted to fail; None: no candidate is left out.
        """
        predictor, settings = model.predictor, self._settings.evolution
        if top_k is not None and top_k > settings.top:
            # A smaller top_k only shortens the result; the generations keep their size.
            settings = replace(settings, top=top_k)
        generation, part = self._first_generation(known, part, settings, failures)
        evolved = fine.evolve(
            part,
            generation,
            lambda levels: predictor.fitted.predict(self._encoding.encode(levels)),
            settings,
            np.random.default_rng([self._settings.seed, _FINE]),
        )
        to_scores = predictor.unit.to_scores
        best_by_generation = to_scores(np.array(evolved.history)).tolist()
        in_scores = replace(evolved, scores=to_scores(evolved.scores), history=best_by_generation)
        return in_scores.head(settings.top if top_k is None else top_k)

    def front(
        self,
        known: Known,
        models: Sequence[Model],
        part: FeasibleSpace,
        trained: Trained,
        count: int,
        taken: set[bytes],
        failures: Avoided | None,
    ) -> Pool:
        """Returns at most ``count`` new candidates that extend the predicted front most.

        Args:
            known: Trials so far.
            models: Model of each score.
            part: Part of the space in which candidates evolve.
            trained: Feasible candidates that have scores, and costs for the reference point.
            count: Number of candidates.
            taken: Keys of candidates that may not be chosen.
            failures: Model of the candidates to leave out, unless the whole first generation is
                predicted to fail; None: no candidate is left out.
        """

        def points_of(pool: Pool) -> np.ndarray:
            features = self._encoding.encode(pool.levels)
            scores = [model.predictor.fitted.predict(features) for model in models]
            return np.column_stack(
                [*scores, self._objectives.cost_gains(pool.statistics, len(pool))]
            )

        settings = self._settings.evolution
        settings = replace(settings, top=settings.top + count)
        generation, part = self._first_generation(known, part, settings, failures)
        predicted = points_of(part.with_statistics(trained.levels))
        reference = trained.reference(predicted)
        random = np.random.default_rng([self._settings.seed, _FINE])
        evolved = evolve_front(part, generation, points_of, reference, settings, random)
        new = unique_rows(evolved.pool.levels, taken)
        chosen = spread_over_front(evolved.points[new], predicted, reference, count)
        return evolved.pool.take(new[chosen])

    def _first_generation(
        self,
        known: Known,
        part: FeasibleSpace,
        settings: fine.EvolutionSettings,
        failures: Avoided | None,
    ) -> tuple[Pool, FeasibleSpace]:
        """Returns the first generation, and the part of the space in which it evolves.

        The generation has the best candidates trained so far, at most ``settings.best``, and random
        ones that fill it up to ``settings.best + settings.random``. Candidates that are predicted
        to fail are left out of the generation and the part, unless the whole generation is
        predicted to fail.
        """
        trained = part.select(part.with_statistics(self._levels(known.ranked)))
        best = trained.take(np.arange(min(settings.best, len(trained))))
        count = settings.random + settings.best - len(best)
        pool = self._pool_within(part, count)
        random = np.random.default_rng([self._settings.seed, _FINE, 1])
        generation = best.joined(pool.take(random.permutation(len(pool))[:count]))
        generation = generation.take(unique_rows(generation.levels))
        if failures is not None and not (fails := failures.fails(generation)).all():
            return generation.take(~fails), safe_part(part, failures)
        return generation, part
