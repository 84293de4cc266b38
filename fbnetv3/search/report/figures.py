"""The charts of a report, each with what it shows in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from fbnetv3.search.acquisition.early_stopping import EarlyStop
from fbnetv3.search.predictors.report_card import ReportCard
from fbnetv3.search.report.pretraining import Comparison
from fbnetv3.search.report.svg import Axis, Chart, label, short
from fbnetv3.search.result import SearchResult
from fbnetv3.search.trial import Trial

_WIDE = 20.0
"""A statistic whose largest value is more than so many times the smallest gets a log axis."""
COARSE, FINE, FRONT = ("coarse", "stage 1"), ("fine", "stage 2"), ("front", "Pareto front")


@dataclass(frozen=True)
class Figure:
    """A chart on the page.

    Attributes:
        name: its heading.
        svg: the drawing.
        words: what it shows.
        legend: (class of the mark, what it stands for).
    """

    name: str
    svg: Markup
    words: str
    legend: tuple[tuple[str, str], ...] = ()


def scores_of(trials: Sequence[Trial]) -> list[float]:
    """Returns the scores of complete trials."""
    return [float(t.score) for t in trials if t.score is not None]


def note(trial: Trial, statistic: str | None, score: str) -> str:
    """Returns a line about a trial, for the mark that stands for it."""
    cost = ""
    if statistic is not None and statistic in trial.statistics:
        cost = f", {label(statistic)} {short(trial.statistics[statistic])}"
    told = "" if trial.predicted is None else f", predicted {trial.predicted:.4g}"
    return f"trial {trial.number} ({trial.id}): {score} {trial.score:.4g}{told}{cost}"


def cost_axis(name: str, values: Sequence[float]) -> Axis:
    """Returns the axis of a statistic."""
    log = min(values) > 0 and max(values) / min(values) > _WIDE
    return Axis.around(label(name), values, log=log)


def _by_stage(complete: Sequence[Trial]) -> list[tuple[str, list[Trial]]]:
    return [
        (kind, [t for t in complete if (t.stage == "fine") == (kind == "fine")])
        for kind in ("coarse", "fine")
    ]


def progress(complete: Sequence[Trial], score: str, statistic: str | None) -> Figure:
    """The best score so far over trials."""
    own = sorted(complete, key=lambda t: t.number)
    numbers, scores = [t.number for t in own], scores_of(own)
    best = np.maximum.accumulate(scores).tolist()
    chart = Chart(
        f"best {score} by trial: from {best[0]:.4g} to {best[-1]:.4g} in {len(own)} trials",
        Axis.around("trial", [*numbers, numbers[-1] + 1]),
        Axis.around(score, scores),
    )
    firsts = {t.batch: t.number for t in reversed(own) if t.batch > 0}
    for number in firsts.values():
        chart.upright(number - 0.5, "aid")
    chart.line([*numbers, numbers[-1] + 1], [*best, best[-1]], "best", steps=True)
    for kind, part in _by_stage(own):
        notes = [note(t, statistic, score) for t in part]
        chart.dots([t.number for t in part], scores_of(part), kind, notes)
    words = (
        f"Each dot is a trained candidate; the line is the best so far, which ends at "
        f"{best[-1]:.4g}. Upright lines are where a batch begins."
    )
    return Figure("Best so far", chart.svg(), words, (COARSE, FINE, ("best", "best so far")))


def trade_off(result: SearchResult, statistic: str, score: str) -> Figure:
    """Score against a statistic, with the front of what no other trial beats."""
    having = [t for t in result.trials if t.state == "complete" and statistic in t.statistics]
    front = result.pareto(statistic)
    costs = [t.statistics[statistic] for t in having]
    axis = cost_axis(statistic, costs)
    chart = Chart(
        f"{score} against {axis.label}; {len(front)} of {len(having)} trials are on the front",
        axis,
        Axis.around(score, scores_of(having)),
    )
    along = [t.statistics[statistic] for t in front]
    chart.line([*along, axis.high], [*scores_of(front), scores_of(front)[-1]], "front", steps=True)
    for kind, part in _by_stage(having):
        xs, notes = (
            [t.statistics[statistic] for t in part],
            [note(t, statistic, score) for t in part],
        )
        chart.dots(xs, scores_of(part), kind, notes)
    words = (
        f"{len(front)} of {len(having)} trials are on the Pareto front: none costs as little and "
        "scores higher."
    )
    return Figure(f"{score} against {axis.label}", chart.svg(), words, (COARSE, FINE, FRONT))


def rank_by_epoch(stop: EarlyStop, *, in_use: bool) -> Figure:
    """Rank correlation of scores by epoch with the final ones (paper, Fig. 3)."""
    chart = Chart(
        "rank correlation of the scores at an epoch with the final ones: "
        + ", ".join(f"{e}: {c:.2f}" for e, c in zip(stop.epochs, stop.correlation, strict=True)),
        Axis.around("epoch", [0, *stop.epochs]),
        Axis.around("Spearman's rank correlation", [0, 1, *stop.correlation]),
    )
    legend = [("best", "first batch")]
    if in_use:
        chart.level(stop.threshold, "aid")
        legend.append(("aid", f"threshold {stop.threshold:g}"))
    if in_use and stop.epoch is not None:
        chart.upright(stop.epoch, "front")
        legend.append(("front", "later candidates stop here"))
    chart.line(stop.epochs, stop.correlation, "best")
    notes = [f"epoch {e}: {c:.3f}" for e, c in zip(stop.epochs, stop.correlation, strict=True)]
    chart.dots(stop.epochs, stop.correlation, "coarse", notes)
    if not in_use:
        words = "Early stopping is off: every candidate is trained in full."
    elif stop.epoch is None:
        words = (
            f"No epoch but the last is and stays at {stop.threshold:g} or more: every candidate "
            "is trained in full."
        )
    else:
        words = (
            f"From epoch {stop.epoch} on the correlation is and stays at {stop.threshold:g} or "
            f"more: candidates after the first batch train for {stop.epoch} of {stop.epochs[-1]} "
            "epochs, and all are compared there."
        )
    return Figure("Rank correlation by epoch", chart.svg(), words, tuple(legend))


def _against(name: str, xs: list[float], ys: list[float], x_label: str, score: str) -> Chart:
    both = Axis.around(x_label, [*xs, *ys])
    chart = Chart(f"{name}: {len(xs)} trials", both, Axis(score, both.low, both.high), height=380)
    chart.line([both.low, both.high], [both.low, both.high], "aid")
    return chart


def outcome(complete: Sequence[Trial], score: str, statistic: str | None) -> Figure | None:
    """Predictions made before training, and what came of them."""
    told = [t for t in complete if t.predicted is not None]
    if not told:
        return None
    name = "Prediction before training, and outcome"
    chart = _against(
        name, [float(t.predicted or 0) for t in told], scores_of(told), f"predicted {score}", score
    )
    for kind, part in _by_stage(told):
        xs = [float(t.predicted or 0) for t in part]
        chart.dots(xs, scores_of(part), kind, [note(t, statistic, score) for t in part])
    words = (
        "Each candidate's score was predicted from the batches before its own. The predictor "
        "chooses what it expects to be good, so the spread is small here and a batch's tau "
        "(in the table) says little."
    )
    return Figure(name, chart.svg(), words, (COARSE, FINE, ("aid", "prediction = outcome")))


def held_out(card: ReportCard, score: str) -> Figure | None:
    """Cross-validated predictions of the last predictor."""
    if not card.held_out:
        return None
    xs, ys = ([float(pair[i]) for pair in card.held_out] for i in (0, 1))
    name = "Predictor, cross-validated"
    chart = _against(name, xs, ys, f"{score}, predicted without its own label", score)
    notes = [f"predicted {x:.4g}, {score} {y:.4g}" for x, y in zip(xs, ys, strict=True)]
    chart.dots(xs, ys, "coarse", notes)
    chance = " That may be chance." if card.no_better_than_chance else ""
    words = (
        f"Kendall's tau {_number(card.kendall)}, Spearman {_number(card.spearman)}, RMSE "
        f"{card.rmse:.3g} on {card.trials} trials.{chance}"
    )
    return Figure(name, chart.svg(), words, (("aid", "prediction = outcome"),))


def with_and_without(rows: Sequence[Comparison]) -> Figure:
    """Kendall's tau by trials, with the pre-trained encoder and without."""
    counts = [float(row.trials) for row in rows]
    with_, without = [row.pretrained for row in rows], [row.plain for row in rows]
    chance = [row.chance for row in rows]
    chart = Chart(
        "Kendall's tau with and without pre-training: "
        + "; ".join(f"{r.trials} trials {r.pretrained:.2f}, {r.plain:.2f}" for r in rows),
        Axis.around("trials that the predictor is fitted on", [0, *counts]),
        Axis.around("Kendall's tau, cross-validated", [0, 1, *with_, *without]),
    )
    chart.line(counts, chance, "aid")
    for kind, values in (("coarse", with_), ("fine", without)):
        chart.line(counts, values, kind)
        notes = [f"{n:.0f} trials: {v:.3f}" for n, v in zip(counts, values, strict=True)]
        chart.dots(counts, values, kind, notes)
    last = rows[-1]
    words = (
        f"On {last.trials} trials: tau {_number(last.pretrained)} with the encoder pre-trained on "
        f"statistics, {_number(last.plain)} without. One fit each, of the same seed; guessing "
        "stays below the dashed line in 19 of 20 cases."
    )
    legend = (("coarse", "pre-trained"), ("fine", "not pre-trained"), ("aid", "chance"))
    return Figure("With and without pre-training", chart.svg(), words, legend)


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "unknown"
