"""Charts of the scores by the value of a variable, for each variable that varies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import kruskal, rankdata

from fbnetv3.search.report.figures import Figure, scores_of
from fbnetv3.search.report.svg import Axis, Chart
from fbnetv3.search.space.parameters import Parameter
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial

_MIN_TRIALS = 5
"""Smallest number of trials of a chart."""
_BINS = 6
"""Largest number of groups of values of an ordered variable."""
_SIGNIFICANCE = 0.05
"""A variable has an effect if the p-value of equal scores in all groups is below this."""
_PERMUTATIONS, _MAX_PERMUTED = 999, 200
"""Permutations of a test, and largest number of scores for which a permutation test is used."""
_SIZE = {"width": 300, "height": 210}  # of a chart, in pixels


@dataclass(frozen=True)
class Marginal:
    """The chart of a variable, and how much of the scores' variance the variable explains.

    Attributes:
        figure: Scores by value.
        share: Share of the variance of the scores' ranks that lies between groups of equal values
            (or between up to 6 ranges of values), adjusted for the share expected by chance; from
            0 (explains nothing) to 1 (explains all).
    """

    figure: Figure
    share: float


def marginals(
    space: SearchSpace, complete: Sequence[Trial], part: str, score: str
) -> list[Marginal]:
    """Returns the charts of all variables of a part that vary, by descending share.

    A trial in which a variable is inactive (see ``active_if``) is left out of the variable's chart.
    A variable with fewer than 5 trials has no chart.

    Args:
        space: Space of the candidates.
        complete: Trials with a score.
        part: ``architecture`` or ``recipe``.
        score: Name of the score, with its unit.
    """
    if len(complete) < _MIN_TRIALS:
        return []
    active = space.active(space.levels([t.config for t in complete]))
    charts = []
    for i in space.indices_of_part(part):
        trials = [t for t, is_active in zip(complete, active[:, i], strict=True) if is_active]
        varies = len({repr(t.config[space.names[i]]) for t in trials}) > 1
        if varies and len(trials) >= _MIN_TRIALS:
            charts.append(_marginal(space.parameters[i], trials, score))
    return sorted(charts, key=lambda m: -m.share)


def _marginal(parameter: Parameter, trials: list[Trial], score: str) -> Marginal:
    name = parameter.name
    values, scores = [t.config[name] for t in trials], np.array(scores_of(trials))
    axis, positions, groups = _grouped(parameter, values)
    chart = Chart(f"{score} by {name}", axis, Axis.around(score, scores.tolist()), **_SIZE)
    chart.dots(positions.tolist(), scores.tolist(), "coarse")
    labels = np.unique(groups)
    centers = [float(np.median(positions[groups == g])) for g in labels]
    medians = [float(np.median(scores[groups == g])) for g in labels]
    if parameter.is_ordered:
        chart.line(centers, medians, "best")
    chart.dots(centers, medians, "median")
    share = _explained_share(scores, groups)
    caption = f"{len(trials)} trials; {_effect(scores, groups, share)}"
    return Marginal(Figure(name, chart.svg(), caption), share)


def _grouped(
    parameter: Parameter, values: list[Any]
) -> tuple[Axis, npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Returns an axis, the position (n,) of each value on it, and the group (n,) of each value."""
    if not parameter.is_ordered:
        choices = [parameter.value(level) for level in range(parameter.size)]
        used = [c for c in choices if any(repr(c) == repr(value) for value in values)]
        index = {repr(choice): i for i, choice in enumerate(used)}
        groups = np.array([index[repr(v)] for v in values], dtype=np.int64)
        return Axis.of_names("", [str(v) for v in used]), groups.astype(np.float64), groups
    positions = np.array(values, dtype=np.float64)
    log = bool(getattr(parameter, "log", False))
    distinct = np.unique(positions)
    if len(distinct) <= _BINS:
        groups = np.searchsorted(distinct, positions)
    else:
        ranks = rankdata(positions, method="min") - 1
        groups = (ranks * _BINS // len(positions)).astype(np.int64)
    return Axis.around("", positions.tolist(), log=log), positions, groups


def _effect(scores: npt.NDArray[np.float64], groups: npt.NDArray[np.int64], share: float) -> str:
    """Returns the effect of a variable on the scores as text, or that there is none."""
    if scores.min() == scores.max():
        return "all scores are equal"
    if not _p_value(scores, groups) < _SIGNIFICANCE:
        return "no effect beyond chance"
    return f"explains {share:.0%} of the variance of the scores' ranks"


def _p_value(scores: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]) -> float:
    """Returns the p-value of the Kruskal-Wallis test of equal scores in all groups.

    For up to 200 scores, it is estimated from random permutations of the scores, since the
    distribution of the statistic is close to chi-squared only if there are many scores.
    """
    labels, sizes = np.unique(groups, return_counts=True)
    if len(labels) < 2:
        return 1.0
    if len(scores) > _MAX_PERMUTED:
        return float(kruskal(*(scores[groups == g] for g in labels)).pvalue)
    ranks, random = rankdata(scores), np.random.default_rng(0)
    # The first row holds the ranks as observed.
    drawn = np.stack([ranks, *(random.permutation(ranks) for _ in range(_PERMUTATIONS))])
    sums = drawn @ (groups[:, None] == labels)  # (1 + permutations, groups)
    statistics = (sums**2 / sizes).sum(1)  # the test's H, up to an affine map
    # With the factor, a statistic that is below the first one only by rounding errors counts, too.
    return float((statistics >= statistics[0] * (1 - 1e-12)).mean())


def _explained_share(scores: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]) -> float:
    """Returns the adjusted R^2 of the scores' ranks by group, at least 0."""
    ranks = rankdata(scores)
    labels = np.unique(groups)
    total = float(((ranks - ranks.mean()) ** 2).sum())
    if total == 0 or len(labels) < 2 or len(ranks) <= len(labels):
        return 0.0
    within = sum(float(((r - r.mean()) ** 2).sum()) for r in (ranks[groups == g] for g in labels))
    adjustment = (len(ranks) - 1) / (len(ranks) - len(labels))
    share = 1 - within / total * adjustment
    return max(0.0, share) if math.isfinite(share) else 0.0
