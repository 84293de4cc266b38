"""The next batch of a search for a Pareto front.

As for one score (``batch.py``), half of the batch maximises expected improvement, here of the
hypervolume. These candidates are chosen one after the other; predictions stand in for the scores of
those chosen before ("fantasies"). For each candidate of the other half, functions are sampled from
the predictors' posteriors, one for each score. The candidate maximises a hypervolume scalarisation
of the sampled scores and the known costs (Golovin and Zhang, 2020, "Random Hypervolume
Scalarizations for Provable Multi-Objective Black Box Optimization", Definition 2):

    s(y) = min_j (y_j - r_j) / (scale_j direction_j),    direction on the positive unit sphere

y_j are the objectives of a candidate, r is the reference point, and scale_j is the distance from
r_j to the highest y_j of the trained candidates. Up to a constant factor, the hypervolume of a
front is the mean over all directions of max_y max(0, s(y))^m, for m objectives. The directions are
spread evenly, so that the optima are spread over the front.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import qmc

from fbnetv3.search.acquisition.batch import IMPROVEMENT_SHARE, Probabilistic
from fbnetv3.search.acquisition.candidates import Candidates
from fbnetv3.search.acquisition.expected_improvement import choose_batch
from fbnetv3.search.acquisition.hypervolume import (
    log_expected_hypervolume_improvement,
    non_dominated,
    non_dominated_cells,
    reference_of,
)
from fbnetv3.search.acquisition.thompson import PosteriorSamples, maximise_each
from fbnetv3.search.predictors.fantasies import CachedPosterior, FantasyModel
from fbnetv3.search.predictors.gp import GaussianProcess
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.space.encoding import Features
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.space import keys_of

CostGains = Callable[[Levels], Floats]
"""Function from candidates, (n, variables), to the gains of their known costs, (n, costs).

A gain is a value with the sign for which higher is better.
"""


@dataclass(frozen=True)
class Trained:
    """The candidates with scores, and the costs of candidates.

    Attributes:
        levels: (n, variables) candidates that have scores and meet the constraints; n >= 1.
        cost_gains: Function from candidates to the gains of their known costs.
        worst_costs: (costs,) lowest gain of each cost among the candidates of the pool.
    """

    levels: Levels
    cost_gains: CostGains
    worst_costs: Floats

    def reference(self, points: Floats) -> Floats:
        """Returns the reference point, (objectives,), for points (n, objectives)."""
        return reference_of(points, self.worst_costs)


def next_front_batch(
    candidates: Candidates,
    predictors: Sequence[Probabilistic],
    trained: Trained,
    count: int,
    tried: set[bytes],
    random: np.random.Generator,
    pending: Levels,
) -> Pool:
    """Returns a batch of distinct candidates that have not been tried.

    Args:
        candidates: Constrained space with a pool and the best candidates trained so far.
        predictors: Predictor of each score, fitted to all scores so far.
        trained: Candidates with scores, and the costs.
        count: Number of candidates; fewer are returned if too few are left.
        tried: Keys of candidates that may not be chosen, as :func:`keys_of` returns them.
        random: Source of all random numbers.
        pending: (m, variables) candidates in training. Predictions stand in for their scores.
    """
    share = round(count * IMPROVEMENT_SHARE)
    gps = [predictor.gp for predictor in predictors]
    starts = candidates.starts(random)
    improvement = FrontImprovement(candidates, gps, trained, pending, share)
    improvers = choose_batch(candidates, improvement, starts, share, tried, random)
    taken, rest = tried | set(keys_of(improvers)), count - len(improvers)
    samples = improvers[:0]
    if rest:
        drawn = [predictor.sample(rest, random) for predictor in predictors]
        scalarised = ScalarisedSamples(candidates, drawn, trained, random)
        samples = maximise_each(candidates, scalarised, taken, random)
    return candidates.with_statistics(np.concatenate([improvers, samples]))


@dataclass(frozen=True)
class _Visit:
    """Candidates with their posteriors, one for each score, and the gains of their costs."""

    levels: Levels
    posteriors: list[CachedPosterior]
    costs: Floats


class FrontImprovement:
    """Improvement of the hypervolume of a front.

    Each trained candidate is a point, and so is each pending or chosen one that probably meets the
    bounds on scores. A point consists of posterior means of the scores (fantasy labels for pending
    and chosen candidates) and of the exact costs. The front has the non-dominated points.

    Args:
        candidates: Constrained space.
        gps: Gaussian process of each score.
        trained: Candidates with scores, and the costs.
        pending: (m, variables) candidates in training, which get fantasy labels.
        capacity: Largest number of candidates that will be chosen.
    """

    def __init__(
        self,
        candidates: Candidates,
        gps: Sequence[GaussianProcess],
        trained: Trained,
        pending: Levels,
        capacity: int,
    ) -> None:
        self._models = [FantasyModel(gp, capacity + len(pending)) for gp in gps]
        self._cost_gains = trained.cost_gains
        features = candidates.encode(trained.levels)
        means = [gp.mean(features) for gp in gps]
        points = np.column_stack([*means, trained.cost_gains(trained.levels)])
        self._reference = trained.reference(points)
        self._front = points[non_dominated(points)]
        if len(pending):
            labels = [model.add(candidates.encode(pending)) for model in self._models]
            fantasies = np.column_stack([*labels, trained.cost_gains(pending)])
            # Only candidates that meet constraints and bounds can be on the front.
            self._extend(fantasies[candidates.may_win(pending)])
        self._cells = non_dominated_cells(self._front, self._reference)

    def _extend(self, points: Floats) -> None:
        front = np.concatenate([self._front, points])
        self._front = front[non_dominated(front)]
        self._cells = non_dominated_cells(self._front, self._reference)

    def visit(self, levels: Levels, features: Features) -> _Visit:
        posteriors = [model.cache(features) for model in self._models]
        return _Visit(levels, posteriors, self._cost_gains(levels))

    def log_of_visited(self, visited: _Visit) -> Floats:
        return self._log_improvement([p.posterior() for p in visited.posteriors], visited.costs)

    def log_of(self, levels: Levels, features: Features) -> Floats:
        posteriors = [model.posterior(features) for model in self._models]
        return self._log_improvement(posteriors, self._cost_gains(levels))

    def _log_improvement(self, posteriors: list[tuple[Floats, Floats]], costs: Floats) -> Floats:
        means, stds = (np.stack([p[i] for p in posteriors], 1) for i in (0, 1))
        return log_expected_hypervolume_improvement(means, stds, costs, self._cells)

    def choose(self, visited: _Visit, index: int, *, may_win: bool = True) -> None:
        pairs = zip(self._models, visited.posteriors, strict=True)
        labels = [model.add_cached(posterior, index) for model, posterior in pairs]
        if may_win:
            self._extend(np.concatenate([labels, visited.costs[index]])[None])


class ScalarisedSamples:
    """Hypervolume scalarisations of sampled scores and known costs, as functions to maximise.

    Args:
        candidates: Constrained space.
        samples: Functions sampled for each score, the same number for every score.
        trained: Candidates with scores, and the costs. The front of the sampled scores and the
            costs of these candidates gives the reference point and the scale of each function.
        random: Source of the directions.
    """

    def __init__(
        self,
        candidates: Candidates,
        samples: Sequence[PosteriorSamples],
        trained: Trained,
        random: np.random.Generator,
    ) -> None:
        self._candidates, self._samples, self._trained = candidates, samples, trained
        features, costs = candidates.encode(trained.levels), trained.cost_gains(trained.levels)
        values = np.stack([sampled(features) for sampled in samples], 2)  # (n, functions, scores)
        lows, scales = [], []
        for function in range(values.shape[1]):
            points = np.column_stack([values[:, function], costs])
            low = trained.reference(points)
            lows.append(low)
            scales.append(np.maximum(points.max(0) - low, np.finfo(float).tiny))
        self._low = np.array(lows)  # (functions, objectives)
        directions = even_directions(len(lows), self._low.shape[1], random)
        self._width = np.array(scales) * directions

    def __call__(self, levels: Levels) -> Floats:
        features, costs = self._candidates.encode(levels), self._trained.cost_gains(levels)
        scores = np.stack([sampled(features) for sampled in self._samples], 2)
        known = np.broadcast_to(costs[:, None], (*scores.shape[:2], costs.shape[1]))
        points = np.concatenate([scores, known], 2)
        return np.asarray(((points - self._low) / self._width).min(2))

    def evaluate_each(self, levels: Levels, functions: npt.NDArray[np.int64]) -> Floats:
        features = self._candidates.encode(levels)
        scores = [sampled.evaluate_each(features, functions) for sampled in self._samples]
        points = np.column_stack([*scores, self._trained.cost_gains(levels)])
        return np.asarray(((points - self._low[functions]) / self._width[functions]).min(1))


def even_directions(count: int, objectives: int, random: np.random.Generator) -> Floats:
    """Returns directions spread over the positive part of the unit sphere, (count, objectives).

    Args:
        count: Number of directions.
        objectives: Number of coordinates of a direction.
        random: Source of the scrambling of the Sobol sequence that the directions come from.
    """
    sampler = qmc.Sobol(objectives, scramble=True, rng=random)
    unit = sampler.random_base2(max(0, int(count - 1).bit_length()))[:count]
    normals = np.maximum(ndtri((1 + unit) / 2), 1e-6)  # half-normal, so that all signs are positive
    return np.asarray(normals / np.linalg.norm(normals, axis=1, keepdims=True))
