"""Bounds on scores that are known only after an evaluation, such as a peak memory or an error.

With v the score, u its upper and l its lower bound, the excess over a bound is

    e = v - u    or    e = l - v,

which is at most 0 where the bound is met. A Gaussian process (GP) of each bound learns

    c = sign(e) log(1 + |e| / s),    s = median |e|

the bilog transform of Eriksson and Poloczek (2021, "Scalable Constrained Bayesian Optimization")
in the unit s. It spreads values near the bound and compresses large ones. The posterior
N(mean, std^2) of c gives the probability

    P(e <= 0) = Phi(-mean / std),

and the probability that a candidate meets all bounds is the product of these probabilities.
Expected improvement is multiplied by this product (Gardner et al., 2014, "Bayesian Optimization
with Inequality Constraints"). Thompson sampling maximises a sampled score among the candidates
whose sampled c are at most 0 for all bounds. If there are no such candidates, it minimises the sum
of max(c, 0) / sd over the bounds, where sd is the standard deviation of the c that the GP was
fitted to (after Eriksson and Poloczek, 2021, who do not divide by sd).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from fbnetv3.search.predictors.default import select_training_points
from fbnetv3.search.predictors.fantasies import FantasyModel
from fbnetv3.search.predictors.hyperparameters import fit_gp
from fbnetv3.search.predictors.networks import Floats, standardise
from fbnetv3.search.predictors.pathwise import PathwiseSamples, draw_matheron_paths
from fbnetv3.search.space.constraints import Mask
from fbnetv3.search.space.encoding import Features
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool

LIKELY = float(np.log(0.5))
"""Smallest log probability with which a candidate counts as one that meets the bounds."""
_PENALTY = 1e6
"""A sampled score is replaced by -1e6 (1 + violation) where a sampled bound is violated.

The violation is the sum of max(c, 0) / sd over the bounds.
"""


class ScoreBounds:
    """Gaussian processes of the excesses over bounds.

    Args:
        encode: Function from candidates, (n, variables), to their features.
        levels: (n, variables) candidates with scores.
        excesses: (n, bounds) excess of each candidate over each bound; NaN: unknown. A bound over
            which no excess is known is ignored.
        seed: Random seed of the selection of candidates, if there are too many for a GP.
    """

    def __init__(
        self,
        encode: Callable[[Levels], Features],
        levels: Levels,
        excesses: Floats,
        seed: int,
    ) -> None:
        self._encode, X = encode, encode(levels).astype(np.float64)
        is_known = ~np.isnan(excesses)
        columns = zip(excesses.T, is_known.T, strict=True)
        self._models = [_Excess(X[rows], e[rows], seed) for e, rows in columns if rows.any()]

    def log_probability(self, features: Features) -> Floats:
        """Returns the log probability of each candidate that it meets all bounds, (n,)."""
        total = np.zeros(len(features))
        for model in self._models:
            total += model.log_probability(features)
        return total

    def fails(self, pool: Pool) -> Mask:
        """Returns :meth:`are_violated` for a pool, as the protocol ``Avoided`` prescribes."""
        return self.are_violated(pool.levels)

    def are_violated(self, levels: Levels) -> Mask:
        """Returns which candidates meet all bounds with a probability below one half, (n,)."""
        return self.log_probability(self._encode(levels)) < LIKELY

    def sample(self, count: int, random: np.random.Generator) -> SampledBounds:
        """Samples functions from the posteriors.

        Args:
            count: Number of functions of each bound.
            random: Source of all random numbers.
        """
        return SampledBounds(self._encode, [m.sample(count, random) for m in self._models])


class _Excess:
    """Gaussian process of the excess over one bound.

    Args:
        X: (n, d) features.
        excess: (n,) finite excesses.
        seed: Random seed of the selection of points.
    """

    def __init__(self, X: Floats, excess: Floats, seed: int) -> None:
        c = bilog(excess)
        rows = select_training_points(-np.abs(c), seed)  # nearest to the bound, and others
        y, mean, std = standardise(c[rows])
        self._zero = -mean / std  # c = 0 in the unit of y
        self._gp = fit_gp(X[rows], y)

    def log_probability(self, features: Features) -> Floats:
        mean, std = FantasyModel(self._gp, 0).posterior(features)
        return np.asarray(log_ndtr((self._zero - mean) / std))

    def sample(self, count: int, random: np.random.Generator) -> _SampledExcess:
        return _SampledExcess(draw_matheron_paths(self._gp, count, random), self._zero)


class _SampledExcess:
    """Sampled functions of a Gaussian process, shifted so that 0 is the bound."""

    def __init__(self, paths: PathwiseSamples, zero: float) -> None:
        self._paths, self._zero = paths, zero

    def __call__(self, features: Features) -> Floats:
        return self._paths(features) - self._zero

    def evaluate_each(self, features: Features, functions: npt.NDArray[np.int64]) -> Floats:
        return self._paths.evaluate_each(features, functions) - self._zero


class SampledBounds:
    """Functions sampled for each bound.

    Args:
        encode: Function from candidates, (n, variables), to their features.
        excesses: Sampled functions of each bound, the same number for every bound.
    """

    def __init__(
        self, encode: Callable[[Levels], Features], excesses: Sequence[_SampledExcess]
    ) -> None:
        self._encode, self._excesses = encode, excesses

    def applied(self, values: Floats, levels: Levels) -> Floats:
        """Returns sampled scores, (n, functions), with at most -1e6 where a bound is violated.

        Args:
            values: (n, functions) sampled scores.
            levels: (n, variables) candidates.
        """
        features = self._encode(levels)
        violations = np.zeros_like(values)
        for sampled in self._excesses:
            violations += np.maximum(sampled(features), 0.0)
        return _far_below(values, violations)

    def applied_to_each(
        self, values: Floats, levels: Levels, functions: npt.NDArray[np.int64]
    ) -> Floats:
        """Returns the scores of :meth:`applied` for one function at each candidate, (n,).

        Args:
            values: (n,) sampled score of each candidate.
            levels: (n, variables) candidates.
            functions: (n,) index of the function of each candidate.
        """
        features = self._encode(levels)
        violations = np.zeros_like(values)
        for sampled in self._excesses:
            violations += np.maximum(sampled.evaluate_each(features, functions), 0.0)
        return _far_below(values, violations)


def bilog(excess: Floats) -> Floats:
    """Returns sign(e) log(1 + |e| / s) of excesses e, (n,).

    s is the median of |e|, or 1 if that median is 0.
    """
    scale = float(np.median(np.abs(excess))) or 1.0
    return np.asarray(np.sign(excess) * np.log1p(np.abs(excess) / scale))


def _far_below(values: Floats, violations: Floats) -> Floats:
    """Returns values, with -_PENALTY (1 + violation) in place of values with a violation."""
    return np.where(violations > 0, -_PENALTY * (1 + violations), values)
