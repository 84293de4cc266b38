"""The epoch after which the ranking of candidates stays the same (paper, 3.1 and Fig. 3).

Only the better half of the candidates is ranked. The worse half, with networks that never learn,
falls behind within the first epochs: over all candidates the rank correlation is high long before
the ranking of the best ones, among which the search chooses, has settled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

_FEWEST = 3
_FEWEST_BETTER = 6
"""The better half has at least this many candidates where there are as many: a rank correlation
of fewer says little."""


@dataclass(frozen=True)
class EarlyStop:
    """The rank correlation of the better half's scores at each epoch with their final scores.

    Attributes:
        epochs: Epochs that all candidates reported, ascending.
        correlation: Spearman's rank correlation at each epoch, in [-1, 1].
        threshold: Rank correlation from which on the ranking counts as final.
        epoch: First epoch from which on the correlation stays at or above the threshold; None
            where only the last epoch does, so that nothing stops early.
    """

    epochs: list[int]
    correlation: list[float]
    threshold: float
    epoch: int | None


def find_early_stop(reports: Sequence[Mapping[int, float]], threshold: float) -> EarlyStop | None:
    """Returns the epoch from which on the ranking of the better candidates stays the same.

    Args:
        reports: Score by epoch of each candidate that was trained in full.
        threshold: Rank correlation from which on the ranking counts as final, in (0, 1].

    Returns:
        The correlations and the epoch; None where there are too few candidates, fewer than two
        epochs that all of them reported, or no ranking at the end.
    """
    if len(reports) < _FEWEST:
        return None
    epochs = sorted(set.intersection(*(set(report) for report in reports)))
    if len(epochs) < 2:
        return None
    scores = np.array([[report[e] for e in epochs] for report in reports])  # candidates, epochs
    if not np.isfinite(scores).all() or np.ptp(scores[:, -1]) == 0:
        return None
    scores = scores[np.argsort(-scores[:, -1], kind="stable")]
    scores = scores[: max(_FEWEST_BETTER, math.ceil(len(scores) / 2))]
    correlation = [_correlation(scores[:, i], scores[:, -1]) for i in range(len(epochs))]
    settled = len(epochs) - 1
    while settled > 0 and correlation[settled - 1] >= threshold:
        settled -= 1
    epoch = epochs[settled] if settled < len(epochs) - 1 else None
    return EarlyStop(epochs, correlation, threshold, epoch)


def _correlation(early: np.ndarray, final: np.ndarray) -> float:
    if np.ptp(early) == 0:
        return 0.0
    value = float(spearmanr(early, final).statistic)
    return value if math.isfinite(value) else 0.0
