"""The chart of scores during the trainings of candidates."""

from __future__ import annotations

from fbnetv3.search.report.figures import Figure, tooltip
from fbnetv3.search.report.svg import Axis, Chart
from fbnetv3.search.result import SearchResult

_MAX_TRIALS = 300
"""Largest number of trials in the chart."""


def learning_curves(result: SearchResult, score: str, unit: str) -> Figure | None:
    """Draws the scores that candidates reported during their trainings.

    The last 300 complete trials with at least two reported scores are drawn.

    Args:
        result: Result of the search.
        score: Name of the score, with its unit.
        unit: ``epoch`` or ``iteration``.

    Returns:
        The chart; None if no complete trial reported at least two scores.
    """
    trials = [t for t in result.complete if len(t.reports) > 1][-_MAX_TRIALS:]
    if not trials:
        return None
    best = result.best_of(trials)
    epochs = [float(epoch) for t in trials for epoch in t.reports]
    scores = [value for t in trials for value in t.reports.values()]
    name = f"{score} of {len(trials)} trials by {unit}"
    chart = Chart(name, Axis.around(unit, [0, *epochs]), Axis.around(score, scores))
    for trial in sorted(trials, key=lambda t: t is best):  # the best one on top
        points = sorted(trial.reports.items())
        kind = "front" if trial is best else "thin"
        text = tooltip(trial, None, score)
        chart.line([float(e) for e, _ in points], [s for _, s in points], kind, tooltip=text)
    caption = (
        f"Each line is the training of a trial. Drawn are the last {len(trials)} complete trials "
        "with more than one reported score. A line under the pointer is highlighted."
    )
    legend = (("front", "best of these trials"), ("thin", "other trials"))
    return Figure("Learning curves", chart.svg(), caption, legend)
