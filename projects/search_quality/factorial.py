"""Estimates the true scores of a full factorial design, effect by effect.

A table over all combinations of some factors is the sum of a mean, main effects and interactions of
every order, which are orthogonal. Noise adds the same expected mean square to each of them, and the
rest of an effect is signal. Each effect is therefore shrunk by its share of noise (empirical Bayes;
James and Stein, 1961). This assumes nothing about the shape of the score over a factor, and favours
no predictor that a search might use.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Effect = tuple[int, ...]


def effects(table: Floats) -> Iterator[tuple[Effect, Floats, int]]:
    """Yields (axes, effect, degrees of freedom) for every subset of axes; () has the mean.

    Args:
        table: Scores of all combinations, with one axis per factor.
    """
    axes = range(table.ndim)
    for order in range(table.ndim + 1):
        for chosen in itertools.combinations(axes, order):
            part = table.mean(axis=tuple(a for a in axes if a not in chosen), keepdims=True)
            for axis in chosen:
                part = part - part.mean(axis=axis, keepdims=True)
            yield chosen, part, int(np.prod([table.shape[a] - 1 for a in chosen]))


def noise_variance(table: Floats, order: int) -> float:
    """Estimates the variance of the noise from the interactions of at least ``order`` factors.

    The estimate is rather too high than too low, because signal in these interactions counts as
    noise.
    """
    squares, freedom = 0.0, 0
    for axes, part, df in effects(table):
        if len(axes) >= order:
            squares += float((part**2).sum()) * table.size / part.size
            freedom += df
    return squares / freedom


def denoised(table: Floats, variance: float) -> Floats:
    """Returns the table with each effect, except the mean, shrunk by its share of noise.

    The factor of an effect is ``max(0, 1 - variance / its mean square)``.
    """
    estimate = np.zeros_like(table)
    for axes, part, df in effects(table):
        mean_square = float((part**2).sum()) * table.size / part.size / df
        keep = 1.0 if not axes else max(0.0, 1.0 - variance / max(mean_square, 1e-300))
        estimate += keep * part
    return estimate
