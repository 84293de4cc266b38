"""Batches of high expected improvement (EI), chosen one candidate at a time.

Each chosen candidate is added to the model with a fantasy label, its posterior mean in place of a
score, before the next one is chosen ("Kriging believer"; Ginsbourger et al., 2010).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from fbnetv3.search.acquisition.candidates import Candidates
from fbnetv3.search.acquisition.coarse import spread_out
from fbnetv3.search.acquisition.islands import Index, Population, evolve_islands
from fbnetv3.search.acquisition.normal_improvement import log_expected_improvement
from fbnetv3.search.acquisition.score_bounds import LIKELY, ScoreBounds
from fbnetv3.search.predictors.fantasies import CachedPosterior, FantasyModel
from fbnetv3.search.predictors.gp import GaussianProcess
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.encoding import Features
from fbnetv3.search.space.parameters import Levels

# Survivors per island (a population that evolves beside others), and generations per search
_SURVIVORS, _GENERATIONS = 6, 5
_MAX_SEARCHES = 24
"""Largest number of genetic searches for a batch.

In a batch of up to 24 candidates, each candidate is chosen by a search of its own. In a larger
batch, each search chooses several candidates, which adds little to its cost.
"""
_ISLANDS_PER_CANDIDATE = 6
_MAX_ISLANDS = 18
"""A search has 6 islands for each candidate that it chooses, and at most 18."""
_SHORTLIST = 256
"""Number of best candidates among which the islands start far apart.

The very best candidates mostly lie around the best candidate trained so far: islands that started
from them would all climb the same peak.
"""
Visit = TypeVar("Visit")
"""Posterior of candidates, as :meth:`Improvement.visit` returns it."""


class Improvement(Protocol[Visit]):
    """What candidates are to improve on: a best score, or a front."""

    def visit(self, levels: Levels, features: Features) -> Visit:
        """Returns the posterior of candidates, which :meth:`log_of_visited` updates cheaply.

        Args:
            levels: (n, variables) candidates.
            features: (n, width) features of the candidates.
        """

    def log_of_visited(self, visited: Visit) -> Floats:
        """Returns the log expected improvement of the candidates of a visit, (n,)."""

    def log_of(self, levels: Levels, features: Features) -> Floats:
        """Returns the log expected improvement of candidates, (n,)."""

    def choose(self, visited: Visit, index: int, *, may_win: bool = True) -> None:
        """Adds a candidate of a visit to the model, with a fantasy label.

        Args:
            visited: Visit with the candidate.
            index: Index of the candidate in the visit.
            may_win: Whether later candidates should improve on its fantasy label, too.
        """


class BestScore:
    """Improvement of a score over the best one so far.

    Args:
        model: Gaussian process of the scores.
        best: Score to improve on. A higher fantasy label replaces it; otherwise all candidates of a
            batch would climb one peak.
    """

    def __init__(self, model: FantasyModel, best: float) -> None:
        self._model, self._best = model, best

    def visit(self, levels: Levels, features: Features) -> CachedPosterior:
        return self._model.cache(features)

    def log_of_visited(self, visited: CachedPosterior) -> Floats:
        return log_expected_improvement(*visited.posterior(), self._best)

    def log_of(self, levels: Levels, features: Features) -> Floats:
        return log_expected_improvement(*self._model.posterior(features), self._best)

    def choose(self, visited: CachedPosterior, index: int, *, may_win: bool = True) -> None:
        label = self._model.add_cached(visited, index)
        if may_win:
            self._best = max(self._best, label)


@dataclass(frozen=True)
class _BoundedVisit(Generic[Visit]):
    """A visit, and the log probabilities of its candidates to meet all bounds, (n,)."""

    inner: Visit
    log_probability: Floats


class _BoundedImprovement(Generic[Visit]):
    """An improvement multiplied by the probability that the bounds on scores are met."""

    def __init__(self, inner: Improvement[Visit], bounds: ScoreBounds) -> None:
        self._inner, self._bounds = inner, bounds

    def visit(self, levels: Levels, features: Features) -> _BoundedVisit[Visit]:
        inner = self._inner.visit(levels, features)
        return _BoundedVisit(inner, self._bounds.log_probability(features))

    def log_of_visited(self, visited: _BoundedVisit[Visit]) -> Floats:
        return self._inner.log_of_visited(visited.inner) + visited.log_probability

    def log_of(self, levels: Levels, features: Features) -> Floats:
        improvement = self._inner.log_of(levels, features)
        return improvement + self._bounds.log_probability(features)

    def choose(self, visited: _BoundedVisit[Visit], index: int, *, may_win: bool = True) -> None:
        is_likely = bool(visited.log_probability[index] >= LIKELY)
        self._inner.choose(visited.inner, index, may_win=may_win and is_likely)


def improvement_batch(
    candidates: Candidates,
    gp: GaussianProcess,
    count: int,
    tried: set[bytes],
    random: np.random.Generator,
    pending: Levels | None = None,
    best: float | None = None,
) -> Levels:
    """Returns at most ``count`` distinct candidates of high expected improvement, (n, variables).

    Args:
        candidates: Constrained space with a pool and the best candidates trained so far.
        gp: Gaussian process of the scores.
        count: Largest number of candidates to choose.
        tried: Keys of candidates that may not be chosen (see ``keys_of`` in ``space.py``).
        random: Source of all random numbers.
        pending: (m, variables) candidates in training, which enter the model with fantasy labels.
            If None, there are none.
        best: Score to improve on, in the unit of the GP's labels, which are standardised and may be
            warped. If None, the GP's highest posterior mean at an observation.
    """
    starts = candidates.starts(random)
    pending = starts[:0] if pending is None else pending
    model = FantasyModel(gp, count + len(pending))
    best = gp.best_mean if best is None else best
    if len(pending):
        # Only candidates that meet the constraints, and probably the bounds, can be the incumbent.
        fantasies = model.add(candidates.encode(pending))[candidates.may_win(pending)]
        best = max([best, *fantasies.tolist()])
    return choose_batch(candidates, BestScore(model, best), starts, count, tried, random)


def choose_batch(
    candidates: Candidates,
    improvement: Improvement[Visit],
    starts: Levels,
    count: int,
    tried: set[bytes],
    random: np.random.Generator,
) -> Levels:
    """Returns at most ``count`` distinct candidates of high improvement, (n, variables).

    Args:
        candidates: Constrained space.
        improvement: What the candidates are to improve on.
        starts: (m, variables) candidates from which the searches start.
        count: Largest number of candidates to choose.
        tried: Keys of candidates that may not be chosen.
        random: Source of all random numbers.
    """
    if candidates.bounds is not None:
        bounded = _BoundedImprovement(improvement, candidates.bounds)
        return _chosen(_ImprovementSearch(candidates, bounded, starts), count, tried, random)
    return _chosen(_ImprovementSearch(candidates, improvement, starts), count, tried, random)


def _chosen(
    search: _ImprovementSearch[Visit], count: int, tried: set[bytes], random: np.random.Generator
) -> Levels:
    """Returns the candidates of several searches, (n, variables); see :func:`choose_batch`."""
    taken, chosen = set(tried), []
    per_search = max(1, -(-count // _MAX_SEARCHES))
    islands = min(_ISLANDS_PER_CANDIDATE * per_search, _MAX_ISLANDS)
    for done in range(0, count, per_search):
        chosen += search.choose(min(per_search, count - done), islands, taken, random)
    return np.array(chosen, dtype=np.int64).reshape(len(chosen), search.width)


class _ImprovementSearch(Generic[Visit]):
    """Genetic searches for expected improvement, each from the best candidates visited so far."""

    def __init__(
        self, candidates: Candidates, improvement: Improvement[Visit], starts: Levels
    ) -> None:
        self._candidates, self._improvement = candidates, improvement
        self.width = len(candidates.space)
        self._levels, self._features = starts[:0], candidates.encode(starts[:0])
        self._visits: list[Visit] = []
        self._visit(starts)

    def _visit(self, levels: Levels) -> Visit:
        features = self._candidates.encode(levels)
        self._levels = np.concatenate([self._levels, levels])
        self._features = np.concatenate([self._features, features])
        self._visits.append(self._improvement.visit(levels, features))
        return self._visits[-1]

    def choose(
        self, count: int, islands: int, taken: set[bytes], random: np.random.Generator
    ) -> list[Levels]:
        """Runs one search and returns its best candidates that are not taken.

        Args:
            count: Largest number of candidates to choose.
            islands: Number of islands of the search.
            taken: Keys of candidates that may not be chosen; this method adds those it chooses.
            random: Source of all random numbers.
        """
        population = self._evolved(islands, random)
        visited = self._visit(population.levels)
        scores, chosen = population.scores, []
        for _ in range(count):
            index = _first_new(population.levels, scores, taken)
            if index is None:
                break
            chosen.append(population.levels[index])
            taken.add(chosen[-1].tobytes())
            self._improvement.choose(visited, index)
            scores = self._improvement.log_of_visited(visited)
        return chosen

    def _evolved(self, islands: int, random: np.random.Generator) -> Population:
        scores = np.concatenate([self._improvement.log_of_visited(v) for v in self._visits])
        starts = _far_apart(self._features, scores, islands)

        def score(levels: Levels, _: Index) -> Floats:
            return self._improvement.log_of(levels, self._candidates.encode(levels))

        return evolve_islands(
            self._candidates,
            score,
            Population(self._levels[starts], scores[starts], np.arange(len(starts))),
            random,
            survivors=_SURVIVORS,
            generations=_GENERATIONS,
        )


def _first_new(levels: Levels, scores: Floats, taken: set[bytes]) -> int | None:
    """Returns the index of the best candidate that is not taken; None if all are taken."""
    ranked = np.argsort(-scores, kind="stable").tolist()
    return next((i for i in ranked if levels[i].tobytes() not in taken), None)


def _far_apart(features: Features, scores: Floats, count: int) -> Index:
    """Returns indices of shortlisted candidates far from each other, the best candidate first."""
    shortlist = np.argsort(-scores, kind="stable")[:_SHORTLIST]
    return np.asarray(shortlist[spread_out(features[shortlist], count)])
