"""The next batch by a predictor with a posterior: expected improvement and Thompson sampling.

About half of the batch maximises expected improvement and exploits the model. The candidates of the
other half are optima of functions sampled from the predictor's posterior, so that the batch does
not rely on a single model. Both halves are found with the genetic operators of stage 2, starting
from the pool and from mutants of the best candidates trained so far, so a batch is not limited to
the pool.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from fbnetv3.search.acquisition.candidates import Candidates
from fbnetv3.search.acquisition.expected_improvement import improvement_batch
from fbnetv3.search.acquisition.thompson import PosteriorSamples, thompson_batch
from fbnetv3.search.predictors.gp import GaussianProcess
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.space import keys_of

IMPROVEMENT_SHARE = 0.5
"""Share of a batch that expected improvement chooses."""


@runtime_checkable
class Probabilistic(Protocol):
    """A predictor with a posterior."""

    gp: GaussianProcess
    """Gaussian process (GP) of the labels, for expected improvement."""

    def sample(self, count: int, random: np.random.Generator) -> PosteriorSamples:
        """Samples ``count`` functions from the posterior."""


def next_batch(
    candidates: Candidates,
    predictor: Probabilistic,
    count: int,
    tried: set[bytes],
    random: np.random.Generator,
    pending: Levels | None = None,
    best: float | None = None,
) -> Pool:
    """Returns a batch of distinct candidates that have not been tried.

    Args:
        candidates: Constrained space with a pool and the best candidates trained so far.
        predictor: Predictor fitted to all scores so far.
        count: Number of candidates; fewer are returned if too few are left.
        tried: Keys of candidates that may not be chosen, as :func:`keys_of` returns them.
        random: Source of all random numbers.
        pending: (m, variables) candidates in training. Predictions stand in for their scores. If
            None, there are none.
        best: Score to improve on, in the unit of the labels of ``predictor.gp``, which are
            standardised and may be warped. If None, the GP's highest posterior mean at an
            observation.
    """
    taken = set(tried)
    share = round(count * IMPROVEMENT_SHARE)
    improvers = improvement_batch(candidates, predictor.gp, share, taken, random, pending, best)
    taken |= set(keys_of(improvers))
    sample_count = count - len(improvers)
    samples = improvers[:0]
    if sample_count:
        functions = predictor.sample(sample_count, random)
        samples = thompson_batch(candidates, functions, taken, random)
    return candidates.with_statistics(np.concatenate([improvers, samples]))
