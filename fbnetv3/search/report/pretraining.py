"""Measures on the trials of a run how much the encoder's pre-training improves predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fbnetv3.search.direction import MAXIMIZE
from fbnetv3.search.predictors.encoder import Pretrained, pretrain
from fbnetv3.search.predictors.predictor import Fit
from fbnetv3.search.predictors.report_card import kendall
from fbnetv3.search.predictors.score_unit import ScorePredictor
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial

_MIN_TRIALS = 5
"""Smallest number of trials of a comparison."""
_MAX_COMPARISONS = 6
_Z_95 = 1.645
"""95% quantile of the standard normal distribution."""


@dataclass(frozen=True)
class Comparison:
    """Cross-validated Kendall's tau of two predictors that differ in the encoder only.

    A tau is NaN if all predictions or all scores are equal.

    Attributes:
        trials: Number of trials that both predictors are fitted on.
        pretrained: Tau with the encoder pre-trained on statistics.
        plain: Tau without pre-training.
    """

    trials: int
    pretrained: float
    plain: float

    @property
    def chance(self) -> float:
        """The 95% quantile of tau under random predictions (normal approximation).

        Kendall (1938): tau has the variance 2 (2n + 5) / (9n (n - 1)) on n trials.
        """
        n = self.trials
        return _Z_95 * math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))


def compare_pretraining(
    space: SearchSpace,
    pool: Pool,
    trials: Sequence[Trial],
    fit: Fit,
    seed: int,
    direction: str = MAXIMIZE,
) -> list[Comparison]:
    """Compares predictors with and without pre-training on the first 1, 2, ... batches of trials.

    Args:
        space: Space of the candidates.
        pool: Pool whose statistics the encoder learns.
        trials: Trials of a run; those without a score are ignored.
        fit: Function that fits the predictor of the run.
        seed: Random seed of the encoder and the predictors.
        direction: ``maximize`` or ``minimize``.

    Returns:
        Comparisons by ascending number of trials, at most 6 of them, each with at least 5 trials;
        [] if the encoder has nothing to learn, such as when no statistic of the pool varies.
    """
    scored = (t for t in trials if t.state == "complete" and t.score is not None)
    complete = sorted(scored, key=lambda t: t.number)
    encoding = Encoding(space)
    columns = encoding.columns_of("architecture")
    trained = pretrain(encoding.encode(pool.levels), pool.statistics, columns, seed)
    if trained.weight is None:
        return []
    features = encoding.encode(space.levels([t.config for t in complete]))
    labels = np.array([t.score for t in complete], dtype=np.float64)

    def tau(count: int, encoder: Pretrained) -> float:
        predictor = ScorePredictor(fit, features[:count], labels[:count], encoder, seed, direction)
        return kendall(predictor.cross_validated(), labels[:count])[0]

    return [
        Comparison(count, tau(count, trained), tau(count, Pretrained(columns)))
        for count in _trial_counts(complete)
    ]


def _trial_counts(complete: Sequence[Trial]) -> list[int]:
    """Returns how many trials were complete after each batch, if at least 5.

    At most 6 counts are returned, evenly spaced.
    """
    batches = {t.batch for t in complete}
    counts = sorted({sum(t.batch <= batch for t in complete) for batch in batches})
    counts = [count for count in counts if count >= _MIN_TRIALS]
    if len(counts) <= _MAX_COMPARISONS:
        return counts
    picks = np.linspace(0, len(counts) - 1, _MAX_COMPARISONS).round().astype(int)
    return [counts[i] for i in picks]
