"""Batches of high expected improvement (EI), chosen one candidate at a time.

Notation:

    mean, std  posterior mean and standard deviation at a candidate
    best       incumbent: the score to improve on
    z          (mean - best) / std
    phi, Phi   density and distribution function of the standard normal distribution

Expected improvement underflows far below the incumbent; its logarithm does not (Ament et al., 2023,
"Unexpected Improvements to Expected Improvement for Bayesian Optimization", Eqs. 8 and 9):

    log EI = log h(z) + log std,    h(z) = phi(z) + z Phi(z)

    log h(z) = log(phi(z) + z Phi(z))                                      if z > -1
    log h(z) = log phi(z) + log(1 + z sqrt(pi / 2) erfcx(-z / sqrt(2)))    if -1e5 < z <= -1
    log h(z) ~ log phi(z) - 2 log |z|                                      if z <= -1e5

Each chosen candidate is added to the model with a fantasy label before the next one is chosen
("Kriging believer"; Ginsbourger et al., 2010).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import erfcx, ndtr

from fbnetv3.search.acquisition.candidates import Candidates
from fbnetv3.search.acquisition.coarse import spread_out
from fbnetv3.search.acquisition.islands import Index, Population, evolve_islands
from fbnetv3.search.predictors.fantasies import CachedPosterior, FantasyModel
from fbnetv3.search.predictors.gp import GaussianProcess
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.encoding import Features
from fbnetv3.search.space.parameters import Levels

_ASYMPTOTE = 1e5
"""For z <= -1e5, the asymptote of log h is exact to double precision."""
_SQRT_2PI = math.sqrt(2 * math.pi)
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


def log_expected_improvement(mean: Floats, std: Floats, best: float) -> Floats:
    """Returns the natural logarithm of the expected improvement over ``best``, (n,).

    Args:
        mean: (n,) posterior means.
        std: (n,) posterior standard deviations.
        best: Score to improve on.
    """
    z = (mean - best) / std
    log_phi = -(z**2) / 2.0 - math.log(_SQRT_2PI)
    # faster than scipy.stats.norm, which spends most of its time on checking arguments
    near = np.maximum(z, -1.0)
    h = np.exp(-(near**2) / 2.0) / _SQRT_2PI + near * ndtr(near)
    below = np.clip(z, -_ASYMPTOTE, -1.0)
    ratio = np.log1p(below * (math.sqrt(math.pi / 2) * erfcx(-below / math.sqrt(2))))
    asymptote = -2 * np.log(np.maximum(np.abs(z), 1.0))
    log_ratio = np.where(z > -_ASYMPTOTE, ratio, asymptote)
    log_h = np.where(z > -1.0, np.log(h), log_phi + log_ratio)
    return np.asarray(log_h + np.log(std))


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
        best: Score to improve on, in the standardised unit of the GP. If None, the highest
            posterior mean of the GP at an observation.
    """
    starts = candidates.starts(random)
    pending = starts[:0] if pending is None else pending
    model = FantasyModel(gp, count + len(pending))
    best = gp.best_mean if best is None else best
    if len(pending):
        # Only candidates that meet the constraints can be the incumbent.
        fantasies = model.add(candidates.encode(pending))[candidates.feasible(pending)]
        best = max([best, *fantasies.tolist()])
    search = _ImprovementSearch(candidates, model, best, starts)
    taken, chosen = set(tried), []
    per_search = max(1, -(-count // _MAX_SEARCHES))
    islands = min(_ISLANDS_PER_CANDIDATE * per_search, _MAX_ISLANDS)
    for done in range(0, count, per_search):
        chosen += search.choose(min(per_search, count - done), islands, taken, random)
    return np.array(chosen, dtype=np.int64).reshape(len(chosen), len(candidates.space))


class _ImprovementSearch:
    """Genetic searches for expected improvement, each from the best candidates visited so far."""

    def __init__(
        self, candidates: Candidates, model: FantasyModel, best: float, starts: Levels
    ) -> None:
        self._candidates, self._model, self._best = candidates, model, best
        self._levels, self._features = starts[:0], candidates.encode(starts[:0])
        self._posteriors: list[CachedPosterior] = []
        self._visit(starts)

    def _visit(self, levels: Levels) -> CachedPosterior:
        features = self._candidates.encode(levels)
        self._levels = np.concatenate([self._levels, levels])
        self._features = np.concatenate([self._features, features])
        self._posteriors.append(self._model.cache(features))
        return self._posteriors[-1]

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
        posterior = self._visit(population.levels)
        scores, chosen = population.scores, []
        for _ in range(count):
            index = _first_new(population.levels, scores, taken)
            if index is None:
                break
            chosen.append(population.levels[index])
            taken.add(chosen[-1].tobytes())
            # A fantasy can become the incumbent; otherwise the whole batch would climb one peak.
            self._best = max(self._best, self._model.add_cached(posterior, index))
            scores = self._log_improvement(posterior)
        return chosen

    def _evolved(self, islands: int, random: np.random.Generator) -> Population:
        scores = np.concatenate([self._log_improvement(p) for p in self._posteriors])
        starts = _far_apart(self._features, scores, islands)

        def score(levels: Levels, _: Index) -> Floats:
            posterior = self._model.posterior(self._candidates.encode(levels))
            return log_expected_improvement(*posterior, self._best)

        return evolve_islands(
            self._candidates,
            score,
            Population(self._levels[starts], scores[starts], np.arange(len(starts))),
            random,
            survivors=_SURVIVORS,
            generations=_GENERATIONS,
        )

    def _log_improvement(self, cached: CachedPosterior) -> Floats:
        return log_expected_improvement(*cached.posterior(), self._best)


def _first_new(levels: Levels, scores: Floats, taken: set[bytes]) -> int | None:
    """Returns the index of the best candidate that is not taken; None if all are taken."""
    ranked = np.argsort(-scores, kind="stable").tolist()
    return next((i for i in ranked if levels[i].tobytes() not in taken), None)


def _far_apart(features: Features, scores: Floats, count: int) -> Index:
    """Returns indices of shortlisted candidates far from each other, the best candidate first."""
    shortlist = np.argsort(-scores, kind="stable")[:_SHORTLIST]
    return np.asarray(shortlist[spread_out(features[shortlist], count)])
