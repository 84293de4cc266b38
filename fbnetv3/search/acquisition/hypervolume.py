"""Pareto fronts, their hypervolume, and the expected hypervolume improvement (EHVI).

Notation; all objectives are maximised:

    m        number of objectives
    r        reference point, (m,)
    points   (n, m) values of the objectives
    cells    disjoint boxes [l, u) of the part of the space above r that no point dominates, each
             with u_1 = infinity
    y        random values of the objectives at a candidate, independent of each other

The hypervolume improvement of values y is the volume that they dominate above r and the points do
not (Emmerich et al., 2006; Yang et al., 2019, "Efficient Computation of Expected Hypervolume
Improvement"). Its mean is a sum over the cells, exact for any number of objectives:

    EHVI = sum_k prod_j E[min(y_j, u_kj) - l_kj]+ = sum_k prod_j (EI_j(l_kj) - EI_j(u_kj))

EI_j(t) is the expected improvement of the j-th objective over t, and EI_j(infinity) = 0. For an
objective that is known, the factor is the length min(y_j, u_kj) - l_kj itself, if positive. With
one score and one known cost, the cells are the steps of the front, and EHVI is a sum of expected
improvements over the scores of the steps. Each is weighted by the part of the step that the
candidate's cost covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from fbnetv3.search.acquisition.normal_improvement import log_expected_improvement
from fbnetv3.search.predictors.networks import Floats

_MARGIN = 0.1
"""Distance of the reference point from the worst values, as a share of the range of values.

Ishibuchi et al. (2011, "Many-objective test problems to visually examine the behavior of
multiobjective evolution in a decision space") recommend it, as does botorch.
"""
_CHUNK = 2**20
"""Largest number of pairs of a candidate and a cell that are in memory at a time."""


@dataclass(frozen=True)
class Cells:
    """Disjoint boxes of the region above a reference point that no point dominates.

    Attributes:
        lower: (cells, m) lower corners.
        upper: (cells, m) upper corners; always infinite in the first objective.
    """

    lower: Floats
    upper: Floats


def non_dominated(points: Floats) -> npt.NDArray[np.bool_]:
    """Returns which points no other point dominates, (n,); equal points do not dominate each other.

    Args:
        points: (n, m) values; higher is better.
    """
    mask: npt.NDArray[np.bool_] = np.ones(len(points), dtype=bool)
    for i in np.lexsort(points.T[::-1])[::-1].tolist():  # descending: a dominating point is earlier
        if mask[i]:
            worse = (points <= points[i]).all(1) & (points < points[i]).any(1)
            mask &= ~worse
    return mask


def reference_point(points: Floats, worst: Floats | None = None) -> Floats:
    """Returns the reference point of a front, (m,).

    In each objective, it lies below the lowest value on the front, by a tenth of the range on the
    front. If all values of an objective are equal, their magnitude takes the place of the range, or
    1 if the values are 0.

    Args:
        points: (n, m) values of a front, at least one point.
        worst: (m,) lowest known value of each objective, NaN where unknown; it takes the place of
            the lowest value on the front if it is lower. If None, all are unknown.
    """
    lowest, highest = points.min(0), points.max(0)
    if worst is not None:
        lowest = np.fmin(lowest, worst)
    span = highest - lowest
    span = np.where(span > 0, span, np.abs(lowest))
    return np.asarray(lowest - _MARGIN * np.where(span > 0, span, 1.0))


def reference_of(points: Floats, worst_costs: Sequence[float] | Floats) -> Floats:
    """Returns the reference point for points with known costs in their last columns, (m,).

    The coordinates of the costs depend on ``worst_costs`` and on the front of the points, those of
    the scores on the front alone.

    Args:
        points: (n, m) gains of scores and of costs, at least one point; a gain is the value itself
            or, if the lowest is the best, the negated value.
        worst_costs: (costs,) lowest known gain of each cost.
    """
    scores = points.shape[1] - len(worst_costs)
    worst = np.concatenate([np.full(scores, np.nan), worst_costs])
    return reference_point(points[non_dominated(points)], worst)


def non_dominated_cells(points: Floats, reference: Floats) -> Cells:
    """Divides the region above a reference point that no point dominates into cells.

    Points are processed by descending first objective. The region that no point processed so far
    dominates in the other m - 1 objectives is kept as boxes. Each point removes from these boxes
    the part that it dominates. In this part, a candidate must exceed the point's first objective.

    Args:
        points: (n, m) values; points that do not exceed the reference point in each objective have
            no effect.
        reference: (m,) reference point.
    """
    points = points[(points > reference).all(1)]
    low, high = reference[None, 1:], np.full((1, len(reference) - 1), np.inf)
    cells: list[tuple[Floats, Floats, float]] = []
    for point in points[np.argsort(-points[:, 0], kind="stable")]:
        inside = (low < point[1:]).all(1)
        if inside.any():
            cells.append((low[inside], np.minimum(high[inside], point[1:]), point[0]))
            low, high = _without(low, high, inside, point[1:])
    cells.append((low, high, reference[0]))
    lower = [np.column_stack([np.full(len(a), level), a]) for a, _, level in cells]
    upper = [np.column_stack([np.full(len(b), np.inf), b]) for _, b, _ in cells]
    return Cells(np.concatenate(lower), np.concatenate(upper))


def _without(
    low: Floats, high: Floats, inside: npt.NDArray[np.bool_], corner: Floats
) -> tuple[Floats, Floats]:
    """Returns disjoint boxes that cover the given ones except for the part below a corner.

    Args:
        low: (boxes, m - 1) lower corners of disjoint boxes.
        high: (boxes, m - 1) upper corners.
        inside: (boxes,) which boxes reach into the part below the corner.
        corner: (m - 1,) the corner.
    """
    lows, highs = [low[~inside]], [high[~inside]]
    below_low, below_high = low[inside], high[inside]
    for j, bound in enumerate(corner):
        above = below_high[:, j] > bound
        part_low, part_high = below_low[above].copy(), below_high[above]
        part_low[:, j] = bound
        lows.append(part_low)
        highs.append(part_high)
        below_high = below_high.copy()
        below_high[:, j] = np.minimum(below_high[:, j], bound)
    return np.concatenate(lows), np.concatenate(highs)


def hypervolume(points: Floats, reference: Floats) -> float:
    """Returns the volume that points dominate above a reference point.

    Args:
        points: (n, m) values; higher is better.
        reference: (m,) reference point.
    """
    cells = non_dominated_cells(points, reference)
    height = cells.lower[:, 0] - reference[0]  # 0 where no point dominates anything
    sides = np.where(height[:, None] > 0, cells.upper[:, 1:] - cells.lower[:, 1:], 0.0)
    return float((height * sides.prod(1)).sum())


def hypervolume_improvement(values: Floats, cells: Cells) -> Floats:
    """Returns the hypervolume that each of several points would add if it were the only one, (n,).

    Args:
        values: (n, m) values of the objectives.
        cells: Cells of the present points.
    """
    sides = np.minimum(values[:, None], cells.upper) - cells.lower
    return np.asarray(np.maximum(sides, 0.0).prod(2).sum(1))


def log_expected_hypervolume_improvement(
    means: Floats, stds: Floats, known: Floats, cells: Cells
) -> Floats:
    """Returns the logarithm of the expected hypervolume improvement of candidates, (n,).

    It is minus infinity where known values alone rule an improvement out.

    Args:
        means: (n, s) posterior means of the first s objectives.
        stds: (n, s) posterior standard deviations.
        known: (n, m - s) known values of the last m - s objectives.
        cells: Cells of the present points.
    """
    step = max(1, _CHUNK // len(cells.lower))
    parts = [
        _log_ehvi(means[i : i + step], stds[i : i + step], known[i : i + step], cells)
        for i in range(0, len(means), step)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _log_ehvi(means: Floats, stds: Floats, known: Floats, cells: Cells) -> Floats:
    """Returns the logarithm of the EHVI of a part of the candidates."""
    scores = means.shape[1]
    total = np.zeros((len(means), len(cells.lower)))
    with np.errstate(divide="ignore"):
        for j, value in enumerate(known.T, start=scores):
            side = np.minimum(value[:, None], cells.upper[:, j]) - cells.lower[:, j]
            total += np.log(np.maximum(side, 0.0))
        for j in range(scores):
            total += _log_expected_side(
                means[:, j], stds[:, j], cells.lower[:, j], cells.upper[:, j]
            )
    return np.asarray(logsumexp(total, axis=1))


def _log_expected_side(mean: Floats, std: Floats, lower: Floats, upper: Floats) -> Floats:
    """Returns log(EI(lower) - EI(upper)), (candidates, cells)."""
    column, deviation = mean[:, None], std[:, None]
    log_lower = log_expected_improvement(column, deviation, lower)
    bounded = np.isfinite(upper)
    if bounded.any():
        log_upper = log_expected_improvement(column, deviation, upper[bounded])
        # EI falls with its threshold; rounding may leave a ratio of 1
        ratio = np.minimum(np.exp(log_upper - log_lower[:, bounded]), 1.0)
        log_lower[:, bounded] += np.log1p(-ratio)
    return log_lower
