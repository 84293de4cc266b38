"""The epoch from which on the ranking of candidates hardly changes (paper, 3.1 and Fig. 3).

The paper ranks all candidates of the first batch. By default, only the better half of them, but at
least 6, is ranked: the worse half, which includes networks that never learn, falls behind within
the first epochs. Over all candidates, the rank correlation is therefore high long before the best
ones, among which the search chooses, have their final ranking.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from fbnetv3.search.direction import MAXIMIZE, gain

ALL, BETTER_HALF = "all", "better_half"
RANKED = (ALL, BETTER_HALF)
"""Candidates that may be ranked: all (the paper's choice), or the better half, but at least 6."""
_MIN_CANDIDATES = 3
"""Smallest number of candidates for which an epoch is sought."""
_MIN_RANKED = 6
"""Smallest number of candidates that are ranked, even if that is more than half of them.

A rank correlation of fewer candidates says little.
"""


@dataclass(frozen=True)
class EarlyStop:
    """The rank correlation of the candidates' scores at each epoch with their final scores.

    Attributes:
        epochs: Epochs at which all candidates reported a finite score, ascending.
        correlation: Spearman's rank correlation at each epoch, in [-1, 1]; 0 if all scores at the
            epoch are equal.
        threshold: Smallest rank correlation at which the ranking counts as final.
        epoch: First epoch, at least 1, from which on the correlation is never below the threshold.
            None if this is the last epoch, so that nothing stops early.
    """

    epochs: list[int]
    correlation: list[float]
    threshold: float
    epoch: int | None


def find_early_stop(
    reports: Sequence[Mapping[int, float]],
    threshold: float,
    over: str = BETTER_HALF,
    direction: str = MAXIMIZE,
) -> EarlyStop | None:
    """Returns the epoch from which on the ranking of the candidates hardly changes.

    Args:
        reports: Score by epoch of each candidate that was trained in full. Scores that are NaN or
            infinite count as not reported.
        threshold: Smallest rank correlation at which the ranking counts as final, in (0, 1].
        over: Candidates that are ranked, one of :data:`RANKED`.
        direction: ``maximize`` or ``minimize``.

    Returns:
        The correlations and the epoch. None if there are fewer than 3 candidates, if fewer than 2
        epochs were reported by all candidates, or if all final scores are equal.
    """
    if len(reports) < _MIN_CANDIDATES:
        return None
    finite = ({e for e, score in report.items() if math.isfinite(score)} for report in reports)
    epochs = sorted(set.intersection(*finite))
    if len(epochs) < 2:
        return None
    scores = np.array([[report[e] for e in epochs] for report in reports])  # (candidates, epochs)
    scores = gain(scores, direction)
    if _are_equal(scores[:, -1]):
        return None
    if over == BETTER_HALF:
        scores = scores[np.argsort(-scores[:, -1], kind="stable")]
        scores = scores[: max(_MIN_RANKED, math.ceil(len(scores) / 2))]
    correlation = [_correlation(scores[:, i], scores[:, -1]) for i in range(len(epochs))]
    earliest = len(epochs) - 1
    # Epoch 0 is never chosen: no candidate can train for 0 epochs.
    while earliest and epochs[earliest - 1] > 0 and correlation[earliest - 1] >= threshold:
        earliest -= 1
    epoch = epochs[earliest] if earliest < len(epochs) - 1 else None
    return EarlyStop(epochs, correlation, threshold, epoch)


def _are_equal(scores: np.ndarray) -> bool:
    return bool(scores.min() == scores.max())  # compared, since a difference may overflow


def _correlation(early: np.ndarray, final: np.ndarray) -> float:
    if _are_equal(early):
        return 0.0
    value = float(spearmanr(early, final).statistic)
    return value if math.isfinite(value) else 0.0
