"""The charts and the table of a search for a Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

from fbnetv3.search.objectives import Objective
from fbnetv3.search.report.figures import (
    COARSE,
    FINE,
    Figure,
    by_stage,
    cost_axis,
    tooltip,
)
from fbnetv3.search.report.svg import Axis, Chart, label, short
from fbnetv3.search.result import SearchResult, pareto_front
from fbnetv3.search.trial import SCORE, Trial

RING = ("ring", "Pareto front")


def title_of(objective: Objective, score: str) -> str:
    """Returns the name of an objective as it is written on the page.

    Args:
        objective: Score or cost.
        score: Name of the objective ``score`` on the page, with its unit.
    """
    return score if objective.name == SCORE else label(objective.name)


def fronts(result: SearchResult, score: str) -> list[Figure]:
    """Draws the first score against each other objective, with the front of all objectives.

    Args:
        result: Result of a search with several objectives, with at least one feasible trial.
        score: Name of the objective ``score`` on the page, with its unit.
    """
    first, *others = result.objectives.all
    return [_front(result, other, first, score) for other in others]


def _front(result: SearchResult, x: Objective, y: Objective, score: str) -> Figure:
    """Draws objective y against x; a line joins the front if the search has no other objectives."""
    trials, front = result.feasible, pareto_front(result.feasible, result.objectives)
    values = {o: [result.objectives.value_of(o, t) for t in trials] for o in (x, y)}
    axis, title = cost_axis(x.name, values[x]), title_of(y, score)
    name_of_score = title_of(result.objectives.scores[0], score)
    name = f"{title} against {axis.label}"
    count = f"{len(front)} of {len(trials)} trials are on the Pareto front"
    chart = Chart(f"{name}; {count}", axis, Axis.around(title, values[y]))
    for stage, part in by_stage(trials):
        xs, ys = ([result.objectives.value_of(o, t) for t in part] for o in (x, y))
        chart.dots(xs, ys, stage, [tooltip(t, x.name, name_of_score) for t in part])
    xs, ys = ([result.objectives.value_of(o, t) for t in front] for o in (x, y))
    if len(result.objectives.all) == 2:
        is_cheap = x.direction == "minimize"
        order = sorted(range(len(front)), key=lambda i: xs[i] if is_cheap else -xs[i])
        end = axis.high if is_cheap else axis.low
        line_x, line_y = [xs[i] for i in order], [ys[i] for i in order]
        chart.line([*line_x, end], [*line_y, line_y[-1]], "front", steps=True)
    chart.dots(xs, ys, "front", [tooltip(t, x.name, name_of_score) for t in front])
    text = " and ".join(f"{title_of(o, score)} ({o.direction})" for o in result.objectives.all)
    caption = f"{count} (rings): no other trial is at least as good in {text}, and better in one."
    return Figure(name, chart.svg(), caption, (COARSE, FINE, RING))


def hypervolume_by_batch(result: SearchResult, score: str) -> Figure:
    """Draws the hypervolume of the front after each batch.

    Args:
        result: Result of a search with several objectives, with at least one feasible trial.
        score: Name of the objective ``score`` on the page, with its unit.
    """
    volumes = result.hypervolumes
    batches, values = [float(b + 1) for b in volumes], list(volumes.values())
    names = ["the warm start" if b < 0 else f"batch {b + 1}" for b in volumes]
    texts = [f"after {name}: {short(v)}" for name, v in zip(names, values, strict=True)]
    chart = Chart(
        f"hypervolume of the front {'; '.join(texts)}",
        Axis.around("batch", [*batches, 0.0]),
        Axis.around("hypervolume", [*values, 0.0]),
    )
    chart.line(batches, values, "front")
    chart.dots(batches, values, "coarse", texts)
    at = ", ".join(
        f"{title_of(o, score)} {short(result.reference_point[o.name])}"
        for o in result.objectives.all
    )
    caption = (
        f"The volume between the front and the reference point: {at}. For a score, this point lies "
        "beyond the worst score on the front, by a tenth of the front's range. For a cost, it lies "
        "beyond the worst cost in the pool or on the front, by a tenth of the distance from there "
        "to the best cost on the front."
    )
    return Figure("Hypervolume by batch", chart.svg(), caption)


def front_rows(result: SearchResult) -> Sequence[tuple[Trial, list[float]]]:
    """Returns the trials on the front with the values of the objectives; [] for one objective.

    They are sorted by rising values of the first cost or, if there is no cost, of the first score.
    """
    if not result.objectives.are_several:
        return []
    objectives = result.objectives.all
    return [(t, [result.objectives.value_of(o, t) for o in objectives]) for t in result.pareto()]
