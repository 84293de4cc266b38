"""Stage 1 of a search: the first batch, and the batches that a predictor chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fbnetv3.search.acquisition import coarse
from fbnetv3.search.acquisition.avoidance import FailureModel, safe_part
from fbnetv3.search.acquisition.batch import Probabilistic, next_batch
from fbnetv3.search.acquisition.candidates import ELITE, Candidates
from fbnetv3.search.bounded_scores import BoundedScores
from fbnetv3.search.history import Known
from fbnetv3.search.models import Model
from fbnetv3.search.space.constraints import Mask
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.space import keys_of
from fbnetv3.search.trial import Trial


class StageOne:
    """The batches of a search with one objective, chosen by a predictor with a posterior.

    Args:
        parts: Feasible space within each budget; without budgets, the whole feasible space. A
            budget is an upper bound of a statistic; the search looks for the best candidate within
            each budget.
        encoding: Encoding of the candidates.
        bounded: Bounds on scores.
        levels: Function from trials to their levels, (trials, variables).
        pool_within: Function from a part of the space and a number to at least that many
            candidates of the part, or to all of them if the part has fewer.
    """

    def __init__(
        self,
        parts: Sequence[FeasibleSpace],
        encoding: Encoding,
        bounded: BoundedScores,
        levels: Callable[[Sequence[Trial]], Levels],
        pool_within: Callable[[FeasibleSpace, int], Pool],
    ) -> None:
        self._parts, self._encoding, self._bounded = parts, encoding, bounded
        self._levels, self._pool_within = levels, pool_within

    def batch(
        self,
        known: Known,
        predictor: Probabilistic,
        failures: FailureModel | None,
        count: int,
        tried: set[bytes],
        random: np.random.Generator,
    ) -> list[Pool]:
        """Returns the chosen candidates, a pool for each budget that gets any.

        Candidates chosen for one budget count as running when those of the next are chosen.

        Args:
            known: Trials so far.
            predictor: Predictor with a posterior.
            failures: Model of failures; None: no candidate is predicted to fail.
            count: Number of candidates; fewer are returned if too few are left, or if too many of
                those left are predicted to fail.
            tried: Keys of candidates that may not be chosen.
            random: Source of all random numbers.
        """
        pending, trials = self._levels(known.running), self._bounded.ranked(known.ranked)
        ranked, are_met = self._levels(trials), self._bounded.are_met(trials)
        bounds, chosen = self._bounded.model(known), []
        for part, share in shares(self._parts, count):
            mask = part.are_feasible(ranked)
            best = self._to_improve_on(predictor, ranked, mask & are_met)
            pool, safe = self._pool_within(part, share), safe_part(part, failures)
            if failures is not None:
                pool = safe.select(pool)
                share = min(share, len(pool))  # the planner completes the batch
                if not share:
                    continue
            candidates = Candidates(safe, self._encoding, pool, ranked[mask][:ELITE], bounds)
            batch = next_batch(candidates, predictor, share, tried, random, pending, best)
            tried = tried | set(keys_of(batch.levels))
            pending = np.concatenate([pending, batch.levels])
            chosen.append(batch)
        return chosen

    def _to_improve_on(self, predictor: Probabilistic, ranked: Levels, wins: Mask) -> float | None:
        """Returns the posterior mean to improve on; None: the highest one of all fitted candidates.

        Args:
            predictor: Predictor with a posterior.
            ranked: (n, variables) candidates with scores.
            wins: (n,) which candidates meet the constraints, the budget and the bounds on scores.
                If there are none, the lowest mean is the one to improve on.
        """
        if wins.all():
            return None
        means = predictor.gp.mean(self._encoding.encode(ranked).astype(np.float64))
        return float(means[wins].max() if wins.any() else means.min())


def batch_without_posterior(
    untried: Pool,
    model: Model | None,
    encoding: Encoding,
    count: int,
    statistic: str | None,
    *,
    log: bool,
) -> Pool:
    """Returns the first batch, or a batch chosen by a predictor that has no posterior.

    Args:
        untried: Candidates of the pool to choose from, in the order of the pool.
        model: Predictor; None: there are too few scores, and the batch is spread over the pool.
        encoding: Encoding of the candidates.
        count: Number of candidates; fewer are returned if too few are left.
        statistic: Statistic whose range is divided into bins; None: there are no bins.
        log: Whether the bins have equal widths on a logarithmic scale, if all values are positive.
    """
    if not len(untried):
        return untried
    if model is None:
        return untried.take(coarse.first_batch(untried, count, statistic, log=log))
    features = encoding.encode(untried.levels)
    scores = model.predictor.fitted.predict(features)
    return untried.take(coarse.paper_batch(untried, features, scores, count, statistic, log=log))


def shares(parts: Sequence[FeasibleSpace], count: int) -> Iterator[tuple[FeasibleSpace, int]]:
    """Divides a number of candidates evenly among parts of the space, and leaves out empty shares.

    Args:
        parts: Parts of the space; at least one.
        count: Number of candidates.
    """
    least, rest = divmod(count, len(parts))
    for i, part in enumerate(parts):
        share = least + (i < rest)
        if share:
            yield part, share
