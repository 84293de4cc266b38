"""Scores by the value of each variable, the variables that tell most first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from fbnetv3.search.report.figures import Figure, scores_of
from fbnetv3.search.report.svg import Axis, Chart
from fbnetv3.search.space.parameters import Parameter
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial

_FEWEST = 5
_BINS = 6
_SIZE = {"width": 300, "height": 210}


@dataclass(frozen=True)
class Marginal:
    """A variable's chart and how much it tells.

    Attributes:
        figure: scores by value.
        share: of the variance of the scores' ranks that lies between values (or between up to
            6 ranges of values), less what chance would give: 0 tells nothing, 1 all.
    """

    figure: Figure
    share: float


def marginals(
    space: SearchSpace, complete: Sequence[Trial], part: str, score: str
) -> list[Marginal]:
    """Returns the marginals of the variables of a part that vary, those that tell most first.

    A variable that does not matter in a trial (see ``active_if``) leaves that trial out.
    """
    if len(complete) < _FEWEST:
        return []
    active = space.active(space.levels([t.config for t in complete]))
    found = []
    for i in space.columns_of(part):
        kept = [t for t, is_on in zip(complete, active[:, i], strict=True) if is_on]
        if len({repr(t.config[space.names[i]]) for t in kept}) > 1 and len(kept) >= _FEWEST:
            found.append(_marginal(space.parameters[i], kept, score))
    return sorted(found, key=lambda m: -m.share)


def _marginal(parameter: Parameter, trials: list[Trial], score: str) -> Marginal:
    name = parameter.name
    values, scores = [t.config[name] for t in trials], np.array(scores_of(trials))
    axis, places, groups = _placed(parameter, values)
    chart = Chart(f"{score} by {name}", axis, Axis.around(score, scores.tolist()), **_SIZE)
    chart.dots(places.tolist(), scores.tolist(), "coarse")
    kinds = np.unique(groups)
    middles = [float(np.median(places[groups == g])) for g in kinds]
    medians = [float(np.median(scores[groups == g])) for g in kinds]
    if parameter.is_ordered:
        chart.line(middles, medians, "best")
    chart.dots(middles, medians, "median")
    share = _share(scores, groups)
    words = f"{len(trials)} trials; explains {share:.0%} of the ranks' variance"
    return Marginal(Figure(name, chart.svg(), words), share)


def _placed(
    parameter: Parameter, values: list[Any]
) -> tuple[Axis, npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Returns the axis, the place of each value on it, and the group that each is in."""
    if not parameter.is_ordered:
        known = [parameter.value(level) for level in range(parameter.size)]
        used = [v for v in known if any(repr(v) == repr(own) for own in values)]
        index = {repr(v): i for i, v in enumerate(used)}
        groups = np.array([index[repr(v)] for v in values], dtype=np.int64)
        return Axis.of_names("", [str(v) for v in used]), groups.astype(np.float64), groups
    places = np.array(values, dtype=np.float64)
    log = bool(getattr(parameter, "log", False))
    distinct = np.unique(places)
    if len(distinct) <= _BINS:
        groups = np.searchsorted(distinct, places)
    else:
        ranks = rankdata(places, method="min") - 1
        groups = (ranks * _BINS // len(places)).astype(np.int64)
    return Axis.around("", places.tolist(), log=log), places, groups


def _share(scores: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]) -> float:
    """Returns the share of the ranks' variance between groups, less what chance would give."""
    ranks = rankdata(scores)
    kinds = np.unique(groups)
    total = float(((ranks - ranks.mean()) ** 2).sum())
    if total == 0 or len(kinds) < 2 or len(ranks) <= len(kinds):
        return 0.0
    within = sum(float(((r - r.mean()) ** 2).sum()) for r in (ranks[groups == g] for g in kinds))
    freedom = (len(ranks) - 1) / (len(ranks) - len(kinds))
    share = 1 - within / total * freedom
    return max(0.0, share) if math.isfinite(share) else 0.0
