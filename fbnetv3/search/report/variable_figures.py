"""Charts of all variables at once: their importance, and parallel coordinates of the trials.

The importance is the permutation importance (Breiman, Random Forests, 2001): the share of the
variance of scores that a random forest no longer predicts when the values of one variable are
exchanged between trials to which the forest was not fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fbnetv3.search.direction import gain
from fbnetv3.search.report.figures import Figure, scores_of, tooltip
from fbnetv3.search.report.svg import Axis, Chart, short
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial

_MIN_TRIALS, _MAX_TRIALS = 20, 1000
"""Smallest number of trials for importances, and largest number of trials in a chart."""
_FOLDS, _REPEATS, _TREES = 2, 5, 60
"""Folds of the cross-validation, permutations of each variable in a fold, trees of a forest."""
_SHOWN_BARS, _SHOWN_AXES = 10, 7
"""Largest number of variables in the chart of importances, and in that of parallel coordinates."""
_MAX_CHARACTERS = 16
"""Largest number of characters of a name or value in a chart."""
_BEST_SHARE = 0.25
"""Share of the trials that are drawn as the best ones."""
_LINES_CAPTION = (
    "Each line is a trial. It crosses each axis at the trial's value of that variable (the lowest, "
    "or the first choice, is at the bottom) and ends at the trial's score. A line under the "
    "pointer is highlighted."
)
_LINES_LEGEND = (("front", "best quarter"), ("thin", "other trials"))


@dataclass(frozen=True)
class Importances:
    """How much a forest's predictions depend on each variable.

    Attributes:
        names: Variables that vary, the most important one first.
        values: (n,) share of the variance of held-out scores that the forest no longer predicts
            when the values of the variable are exchanged between trials; at least 0.
        r2: Share of the variance of held-out scores that the forest predicts.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]
    r2: float


def importances(space: SearchSpace, complete: Sequence[Trial]) -> Importances | None:
    """Returns the importance of each variable that varies between the trials.

    Args:
        space: Space of the candidates.
        complete: Trials with a score; the newest 1000 are used.

    Returns:
        The importances; None if there are fewer than 20 trials, if all scores are equal, or if no
        variable varies.
    """
    trials = list(complete)[-_MAX_TRIALS:]
    scores = np.array(scores_of(trials))
    if len(trials) < _MIN_TRIALS or scores.min() == scores.max():
        return None
    levels = space.levels([t.config for t in trials])
    columns = [i for i in range(len(space)) if len(np.unique(levels[:, i])) > 1]
    if not columns:
        return None
    values, r2 = _permuted(levels[:, columns].astype(np.float64), scores)
    order = np.argsort(-values, kind="stable")
    names = tuple(space.names[columns[i]] for i in order)
    return Importances(names, tuple(float(values[i]) for i in order), r2)


def _permuted(
    levels: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], float]:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    values, r2 = np.zeros(levels.shape[1]), 0.0
    for fitted, held in KFold(_FOLDS, shuffle=True, random_state=0).split(levels):
        forest = RandomForestRegressor(_TREES, min_samples_leaf=2, random_state=0)
        forest.fit(levels[fitted], scores[fitted])
        lost = permutation_importance(
            forest, levels[held], scores[held], n_repeats=_REPEATS, random_state=0
        )
        values += np.maximum(lost.importances_mean, 0) / _FOLDS
        r2 += float(forest.score(levels[held], scores[held])) / _FOLDS
    return values, r2


def importance_figure(found: Importances, score: str) -> Figure:
    """Draws the importance of the most important variables as bars.

    Args:
        found: Importance of each variable.
        score: Name of the score, with its unit.
    """
    names, values = found.names[:_SHOWN_BARS], found.values[:_SHOWN_BARS]
    y = Axis("share of the variance lost", 0.0, max(*values, 1e-3) * 1.1)
    x = Axis.of_names("", [_text(name) for name in names])
    title = f"importance of {len(names)} variables, {names[0]} first"
    chart = Chart(title, x, y, width=1100, height=280)
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        chart.bar(i - 0.35, i + 0.35, value, "coarse", f"{name}: {value:.3f}")
    doubt = ""
    if found.r2 <= 0:
        doubt = " The forest predicts no better than the mean: do not trust the order."
    caption = (
        f"Share of the variance of {score} that a random forest no longer predicts if the values "
        f"of a variable are exchanged between trials to which the forest was not fitted; on these "
        f"trials, its R² is {found.r2:.2f}.{doubt} Shown are {len(names)} of the "
        f"{len(found.names)} variables that vary between the trials."
    )
    return Figure("Importance of variables", chart.svg(), caption, is_wide=True)


def parallel_coordinates(
    space: SearchSpace,
    complete: Sequence[Trial],
    names: Sequence[str],
    score: str,
    direction: str,
) -> Figure:
    """Draws each trial as a line through the values of variables and its score.

    Args:
        space: Space of the candidates.
        complete: Trials with a score; the newest 1000 are drawn.
        names: Variables; the first seven are drawn.
        score: Name of the score, with its unit.
        direction: ``maximize`` or ``minimize``: whether the highest or the lowest score is best.
    """
    trials, shown = list(complete)[-_MAX_TRIALS:], list(names)[:_SHOWN_AXES]
    columns = [space.names.index(name) for name in shown]
    levels = space.levels([t.config for t in trials])[:, columns]
    sizes = np.array([space.parameters[i].size - 1 for i in columns])
    scores = np.array(scores_of(trials))
    shares = (scores - scores.min()) / max(float(np.ptp(scores)), 1e-12)
    heights = np.column_stack([levels / np.maximum(1, sizes), shares])
    labels = [*shown, score]
    title, x = f"{len(trials)} trials by {', '.join(labels)}", Axis.of_names("", labels)
    chart = Chart(title, x, Axis("", -0.1, 1.1, numbers=lambda _: ""), width=1100, height=360)
    for i in range(len(labels)):
        chart.vertical(i, "aid")
    kinds = np.where(_are_best(scores, direction), "front", "thin")
    for i in np.argsort(kinds == "front", kind="stable").tolist():  # the best ones on top
        text = tooltip(trials[i], None, score)
        chart.line(range(len(labels)), heights[i].tolist(), str(kinds[i]), tooltip=text)
    ends = [
        (space.parameters[i].value(0), space.parameters[i].value(s))
        for i, s in zip(columns, sizes.tolist(), strict=True)
    ]
    _write_ends(chart, [*ends, (float(scores.min()), float(scores.max()))])
    return Figure(
        "Trials by their values", chart.svg(), _LINES_CAPTION, _LINES_LEGEND, is_wide=True
    )


def _are_best(scores: npt.NDArray[np.float64], direction: str) -> npt.NDArray[np.bool_]:
    """Returns which scores are in the best quarter, (n,)."""
    gains = np.asarray(gain(scores, direction))
    return np.asarray(gains >= np.quantile(gains, 1 - _BEST_SHARE))


def _write_ends(chart: Chart, ends: Sequence[tuple[object, object]]) -> None:
    """Writes, for each axis, its lowest value below the axis and its highest value above it."""
    for i, (low, high) in enumerate(ends):
        chart.text(i + 0.02, 1.05, _text(high))
        chart.text(i + 0.02, -0.07, _text(low))


def _text(value: object) -> str:
    return short(value) if isinstance(value, float) else str(value)[:_MAX_CHARACTERS]
