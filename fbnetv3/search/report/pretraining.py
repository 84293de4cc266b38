"""What pre-training the encoder gave on the trials of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fbnetv3.search.predictors.encoder import Pretrained, pretrain
from fbnetv3.search.predictors.predictor import Fit
from fbnetv3.search.predictors.report_card import kendall
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial

_FEWEST = 5
_MOST_ROUNDS = 6
_SIDE = 1.645  # one side, 5%


@dataclass(frozen=True)
class Comparison:
    """Kendall's tau, cross-validated, of two predictors that differ in the encoder only.

    Attributes:
        trials: that both are fitted on.
        pretrained, plain: tau with the encoder pre-trained on statistics, and without.
    """

    trials: int
    pretrained: float
    plain: float

    @property
    def chance(self) -> float:
        """Below this tau of a guess stays in 19 of 20 cases (normal approximation)."""
        n = self.trials
        return _SIDE * math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))


def compare_pretraining(
    space: SearchSpace, pool: Pool, trials: Sequence[Trial], fit: Fit, seed: int
) -> list[Comparison]:
    """Fits predictors with and without pre-training on the trials of the first batches.

    Args:
        space: of the candidates.
        pool: whose statistics the encoder learns.
        trials: of a run; those without score don't count.
        fit: of the predictor that the run uses.
        seed: of encoder and predictors.

    Returns:
        One comparison for each of up to 6 rounds, [] where there is nothing to learn.
    """
    complete = sorted((t for t in trials if t.state == "complete"), key=lambda t: t.number)
    encoding = Encoding(space)
    columns = encoding.columns_of("architecture")
    trained = pretrain(encoding.encode(pool.levels), pool.statistics, columns, seed)
    if trained.weight is None:
        return []
    ends = sorted({sum(t.batch <= b for t in complete) for b in {t.batch for t in complete}})
    ends = [end for end in ends if end >= _FEWEST]
    if len(ends) > _MOST_ROUNDS:
        picks = np.linspace(0, len(ends) - 1, _MOST_ROUNDS).round().astype(int)
        ends = [ends[i] for i in picks]
    features = encoding.encode(space.levels([t.config for t in complete]))
    labels = np.array([t.score for t in complete], dtype=np.float64)

    def tau(end: int, encoder: Pretrained) -> float:
        predictor = fit(features[:end], labels[:end], encoder, seed)
        return kendall(predictor.cross_validated(), labels[:end])[0]

    return [Comparison(end, tau(end, trained), tau(end, Pretrained(columns))) for end in ends]
