"""The charts of a report, each with a caption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from fbnetv3.search.acquisition.early_stopping import EarlyStop
from fbnetv3.search.direction import gain
from fbnetv3.search.predictors.report_card import ReportCard
from fbnetv3.search.report.pretraining import Comparison
from fbnetv3.search.report.svg import Axis, Chart, label, short
from fbnetv3.search.result import SearchResult
from fbnetv3.search.trial import Trial

_LOG_AXIS_RATIO = 20.0
"""Ratio of largest to smallest value above which a statistic gets a logarithmic axis."""
COARSE, FINE, FRONT = ("coarse", "stage 1"), ("fine", "stage 2"), ("front", "Pareto front")
DIAGONAL = ("aid", "prediction = score")
"""Entries of legends, as in :attr:`Figure.legend`."""


@dataclass(frozen=True)
class Figure:
    """A chart on the page.

    Attributes:
        name: Heading of the chart.
        svg: The drawing.
        caption: Sentences below the chart.
        legend: (CSS class, meaning) of each kind of mark.
        is_wide: Whether the chart takes the whole width of the page.
    """

    name: str
    svg: Markup
    caption: str
    legend: tuple[tuple[str, str], ...] = ()
    is_wide: bool = False


def scores_of(trials: Sequence[Trial]) -> list[float]:
    """Returns the scores of the trials that have one."""
    return [float(t.score) for t in trials if t.score is not None]


def best_so_far(result: SearchResult, score: str, statistic: str | None) -> Figure:
    """Draws the score of each feasible trial and the best score so far.

    Args:
        result: Result with at least one feasible trial.
        score: Name of the score, with its unit.
        statistic: Statistic shown in tooltips; None shows none.
    """
    ordered = sorted(result.feasible, key=lambda t: t.number)
    numbers, scores = [t.number for t in ordered], scores_of(ordered)
    gains = gain(np.array(scores), result.direction)
    best = gain(np.maximum.accumulate(gains), result.direction).tolist()
    chart = Chart(
        f"best {score} by trial: from {best[0]:.4g} to {best[-1]:.4g} in {len(ordered)} trials",
        Axis.around("trial", [*numbers, numbers[-1] + 1]),
        Axis.around(score, scores),
    )
    first_of_batch = {t.batch: t.number for t in reversed(ordered)}
    for number in sorted(first_of_batch.values())[1:]:
        chart.vertical(number - 0.5, "aid")
    chart.line([*numbers, numbers[-1] + 1], [*best, best[-1]], "best", steps=True)
    for stage, trials in by_stage(ordered):
        tooltips = [tooltip(t, statistic, score) for t in trials]
        chart.dots([t.number for t in trials], scores_of(trials), stage, tooltips)
    caption = (
        "Each dot is a trained candidate that meets all constraints. The line is the best score so "
        f"far; it ends at {best[-1]:.4g}. Vertical lines separate batches."
    )
    return Figure("Best so far", chart.svg(), caption, (COARSE, FINE, ("best", "best so far")))


def score_by_cost(result: SearchResult, statistic: str, score: str) -> Figure:
    """Draws the score against a statistic, and the Pareto front of both.

    Args:
        result: Result with at least one feasible trial that has the statistic.
        statistic: Name of the statistic.
        score: Name of the score, with its unit.
    """
    trials = [t for t in result.feasible if statistic in t.statistics]
    front = result.pareto(statistic)
    axis = cost_axis(statistic, [t.statistics[statistic] for t in trials])
    chart = Chart(
        f"{score} against {axis.label}; {len(front)} of {len(trials)} trials are on the front",
        axis,
        Axis.around(score, scores_of(trials)),
    )
    costs, scores = [t.statistics[statistic] for t in front], scores_of(front)
    chart.line([*costs, axis.high], [*scores, scores[-1]], "front", steps=True)
    for stage, part in by_stage(trials):
        tooltips = [tooltip(t, statistic, score) for t in part]
        chart.dots([t.statistics[statistic] for t in part], scores_of(part), stage, tooltips)
    caption = (
        f"{len(front)} of {len(trials)} trials are on the Pareto front: no other trial scores "
        "as well at the same or a lower cost. Of trials with equal score and cost, one is counted."
    )
    return Figure(f"{score} against {axis.label}", chart.svg(), caption, (COARSE, FINE, FRONT))


def rank_by_epoch(stop: EarlyStop, *, in_use: bool, unit: str = "epoch") -> Figure:
    """Draws the rank correlation of each epoch's scores with the final scores (paper, Fig. 3).

    Args:
        stop: The correlation by epoch.
        in_use: Whether the search uses it to stop candidates early.
        unit: ``epoch`` or ``iteration``.
    """
    values = ", ".join(f"{e}: {c:.2f}" for e, c in zip(stop.epochs, stop.correlation, strict=True))
    chart = Chart(
        f"rank correlation of the scores at an {unit} with the final scores: {values}",
        Axis.around(unit, [0, *stop.epochs]),
        Axis.around("Spearman's rank correlation", [0, 1, *stop.correlation]),
    )
    legend = [("best", "correlation over the ranked candidates of the first batch")]
    if in_use:
        chart.horizontal(stop.threshold, "aid")
        legend.append(("aid", f"threshold {stop.threshold:g}"))
    if in_use and stop.epoch is not None:
        chart.vertical(stop.epoch, "front")
        legend.append(("front", "later candidates stop here"))
    chart.line(stop.epochs, stop.correlation, "best")
    tooltips = [f"{unit} {e}: {c:.3f}" for e, c in zip(stop.epochs, stop.correlation, strict=True)]
    chart.dots(stop.epochs, stop.correlation, "coarse", tooltips)
    caption = _early_stop_caption(stop, in_use, unit)
    return Figure(f"Rank correlation by {unit}", chart.svg(), caption, tuple(legend))


def _early_stop_caption(stop: EarlyStop, in_use: bool, unit: str) -> str:
    if not in_use:
        return "No early stop is in use: it is off, or the first batch has not decided on it yet."
    if stop.epoch is None:
        return (
            f"The correlation does not stay at {stop.threshold:g} or more before the last "
            f"{unit}: every candidate is trained in full."
        )
    return (
        f"From {unit} {stop.epoch} on, the correlation stays at {stop.threshold:g} or more. "
        f"Candidates after the first batch train for {stop.epoch} of {stop.epochs[-1]} "
        f"{unit}s, and all candidates are compared at that {unit}."
    )


def score_by_prediction(
    complete: Sequence[Trial], score: str, statistic: str | None
) -> Figure | None:
    """Draws scores against the predictions made before training; None if no trial has one.

    Args:
        complete: Trials with a score.
        score: Name of the score, with its unit.
        statistic: Statistic shown in tooltips; None shows none.
    """
    trials = [t for t in complete if t.predicted is not None]
    if not trials:
        return None
    name = "Prediction before training and score"
    predictions = [float(t.predicted or 0) for t in trials]
    chart = _diagonal_chart(name, predictions, scores_of(trials), f"predicted {score}", score)
    for stage, part in by_stage(trials):
        tooltips = [tooltip(t, statistic, score) for t in part]
        chart.dots([float(t.predicted or 0) for t in part], scores_of(part), stage, tooltips)
    caption = (
        "Each candidate's score was predicted from the batches before its own. The predictor "
        "chooses candidates with a good prediction, so their spread is small, and the tau of a "
        "single batch (in the table) is not reliable."
    )
    return Figure(name, chart.svg(), caption, (COARSE, FINE, DIAGONAL))


def cross_validated(card: ReportCard, score: str) -> Figure | None:
    """Draws scores against a predictor's cross-validated predictions; None if the card has none.

    Args:
        card: Report card of the predictor.
        score: Name of the score, with its unit.
    """
    if not card.held_out:
        return None
    predictions, scores = ([float(pair[i]) for pair in card.held_out] for i in (0, 1))
    name = "Predictor, cross-validated"
    chart = _diagonal_chart(name, predictions, scores, f"{score}, predicted when held out", score)
    tooltips = [
        f"predicted {prediction:.4g}, {score} {value:.4g}"
        for prediction, value in zip(predictions, scores, strict=True)
    ]
    chart.dots(predictions, scores, "coarse", tooltips)
    problem = f" Note: {card.problem}." if card.problem else ""
    caption = (
        f"Kendall's tau {_correlation(card.kendall)}, Spearman {_correlation(card.spearman)}, RMSE "
        f"{card.rmse:.3g} on {card.trials} trials.{problem}"
    )
    return Figure(name, chart.svg(), caption, (DIAGONAL,))


def pretraining(rows: Sequence[Comparison]) -> Figure:
    """Draws Kendall's tau of predictors with and without a pre-trained encoder.

    Args:
        rows: Comparisons by ascending number of trials; at least one.
    """
    counts = [float(row.trials) for row in rows]
    pretrained, plain = [row.pretrained for row in rows], [row.plain for row in rows]
    values = "; ".join(f"{r.trials} trials {r.pretrained:.2f}, {r.plain:.2f}" for r in rows)
    chart = Chart(
        f"Kendall's tau with and without pre-training: {values}",
        Axis.around("trials that the predictor is fitted on", [0, *counts]),
        Axis.around("Kendall's tau, cross-validated", [0, 1, *pretrained, *plain]),
    )
    chart.line(counts, [row.chance for row in rows], "aid")
    for kind, taus in (("coarse", pretrained), ("fine", plain)):
        chart.line(counts, taus, kind)
        tooltips = [f"{n:.0f} trials: {tau:.3f}" for n, tau in zip(counts, taus, strict=True)]
        chart.dots(counts, taus, kind, tooltips)
    last = rows[-1]
    caption = (
        f"On {last.trials} trials: tau {_correlation(last.pretrained)} with the encoder "
        f"pre-trained on statistics, {_correlation(last.plain)} without. Each value is a single "
        "fit with the same seed. Random predictions stay below the dashed line 19 times out of 20."
    )
    legend = (("coarse", "pre-trained"), ("fine", "not pre-trained"), ("aid", "chance"))
    return Figure("With and without pre-training", chart.svg(), caption, legend)


def tooltip(trial: Trial, statistic: str | None, score: str) -> str:
    """Returns a line about a trial: score, and prediction and statistic if the trial has them."""
    cost = ""
    if statistic is not None and statistic in trial.statistics:
        cost = f", {label(statistic)} {short(trial.statistics[statistic])}"
    predicted = "" if trial.predicted is None else f", predicted {trial.predicted:.4g}"
    return f"trial {trial.number} ({trial.id}): {score} {trial.score:.4g}{predicted}{cost}"


def cost_axis(name: str, values: Sequence[float]) -> Axis:
    """Returns the axis of a statistic.

    It is logarithmic if all values are positive and the largest is over 20 times the smallest.
    """
    log = min(values) > 0 and max(values) / min(values) > _LOG_AXIS_RATIO
    return Axis.around(label(name), values, log=log)


def by_stage(trials: Sequence[Trial]) -> list[tuple[str, list[Trial]]]:
    """Returns, for both stages, the CSS class of the stage and its trials."""
    return [
        (stage, [t for t in trials if (t.stage == "fine") == (stage == "fine")])
        for stage in ("coarse", "fine")
    ]


def _diagonal_chart(
    name: str, xs: list[float], ys: list[float], x_label: str, y_label: str
) -> Chart:
    """Returns a chart whose axes have the same range, with their diagonal."""
    x = Axis.around(x_label, [*xs, *ys])
    chart = Chart(f"{name}: {len(xs)} trials", x, Axis(y_label, x.low, x.high), height=380)
    chart.line([x.low, x.high], [x.low, x.high], "aid")
    return chart


def _correlation(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "unknown"
