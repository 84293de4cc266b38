"""How long candidates must train for their order to be that of the end (paper, 3.1, Fig. 3).

The order is that of the better half. The worse half, with networks that never learn, is told apart
from it by the first epochs: a correlation over all is high long before those change places no more
among which a search chooses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

_FEWEST = 3
_FEWEST_BETTER = 6
"""Of fewer candidates a rank correlation tells little: so many are taken where there are."""


@dataclass(frozen=True)
class EarlyStop:
    """The rank correlation of the better half's scores at each epoch with its final ones.

    Attributes:
        epochs: ascending.
        correlation: Spearman's, one an epoch.
        threshold: asked for.
        epoch: smallest epoch whose correlation is and stays at least the threshold; None where
            early stopping is off (it would be the last, or the scores can't tell).
    """

    epochs: list[int]
    correlation: list[float]
    threshold: float
    epoch: int | None


def find_early_stop(reports: Sequence[Mapping[int, float]], threshold: float) -> EarlyStop | None:
    """Returns the epoch from which on the order of the better candidates stays.

    Args:
        reports: score by epoch of each candidate that was trained in full.
        threshold: of the rank correlation.

    Returns:
        None where there are no epoch scores, or no epoch that all candidates have.
    """
    if len(reports) < _FEWEST:
        return None
    epochs = sorted(set.intersection(*(set(r) for r in reports)))
    if len(epochs) < 2:
        return None
    scores = np.array([[r[e] for e in epochs] for r in reports])  # candidates, epochs
    if not np.isfinite(scores).all() or np.ptp(scores[:, -1]) == 0:
        return None
    scores = scores[np.argsort(-scores[:, -1], kind="stable")]
    scores = scores[: max(_FEWEST_BETTER, math.ceil(len(scores) / 2))]
    correlation = [_correlation(scores[:, i], scores[:, -1]) for i in range(len(epochs))]
    stays = len(epochs) - 1
    while stays > 0 and correlation[stays - 1] >= threshold:
        stays -= 1
    epoch = epochs[stays] if stays < len(epochs) - 1 else None
    return EarlyStop(epochs, correlation, threshold, epoch)


def _correlation(early: np.ndarray, final: np.ndarray) -> float:
    if np.ptp(early) == 0:
        return 0.0
    value = float(spearmanr(early, final).statistic)
    return value if math.isfinite(value) else 0.0
