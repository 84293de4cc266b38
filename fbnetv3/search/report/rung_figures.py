"""The chart of a search with rungs: epochs at which candidates are compared and some train on."""

from __future__ import annotations

from fbnetv3.search.report.figures import COARSE, FINE, Figure, by_stage
from fbnetv3.search.report.svg import Axis, Chart
from fbnetv3.search.result import SearchResult
from fbnetv3.search.trial import Trial


def scores_by_rung(result: SearchResult, score: str, unit: str) -> Figure | None:
    """Draws the scores of the trials against their numbers of epochs.

    A line joins the trials of a candidate that has trained beyond its first rung.

    Args:
        result: Result of a search with rungs.
        score: Name of the score, with its unit.
        unit: ``epoch`` or ``iteration``.

    Returns:
        The chart; None without rungs, or if no trial has a score.
    """
    trials = [t for t in result.trials if t.final_score is not None and t.max_epochs is not None]
    if not result.rungs or not trials:
        return None
    parts: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=_epochs):
        parts.setdefault(trial.id, []).append(trial)
    went_on = [path for path in parts.values() if _epochs(path[0]) < _epochs(path[-1])]
    name = f"{score} after each rung; {len(went_on)} of {len(parts)} candidates trained further"
    y = Axis.around(score, [_score(t) for t in trials])
    chart = Chart(name, Axis.around(f"{unit}s", [0, *(r.epochs for r in result.rungs)]), y)
    for path in went_on:
        chart.line([_epochs(t) for t in path], [_score(t) for t in path], "thin")
    for stage, part in by_stage(trials):
        tooltips = [f"trial {t.number} ({t.id}): {_score(t):.4g}" for t in part]
        chart.dots([_epochs(t) for t in part], [_score(t) for t in part], stage, tooltips)
    caption = (
        f"{len(went_on)} of {len(parts)} candidates trained beyond their first rung; a line joins "
        "the scores of one candidate."
    )
    return Figure(f"{score} by rung", chart.svg(), caption, (COARSE, FINE))


def _epochs(trial: Trial) -> float:
    return float(trial.max_epochs or 0)


def _score(trial: Trial) -> float:
    return float(trial.final_score or 0.0)
