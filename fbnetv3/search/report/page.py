"""Renders the report of a search."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fbnetv3.io import atomic_write
from fbnetv3.requires import require
from fbnetv3.search.acquisition.early_stopping import EarlyStop, find_early_stop
from fbnetv3.search.direction import gain
from fbnetv3.search.replicates import Spread
from fbnetv3.search.report import figures
from fbnetv3.search.report.curve_figures import learning_curves
from fbnetv3.search.report.figures import Figure
from fbnetv3.search.report.front_figures import front_rows, fronts, hypervolume_by_batch, title_of
from fbnetv3.search.report.marginals import Marginal, marginals
from fbnetv3.search.report.network_figure import LayerBar, draw_network
from fbnetv3.search.report.pretraining import Comparison
from fbnetv3.search.report.rung_figures import scores_by_rung
from fbnetv3.search.report.svg import Axis, label, short
from fbnetv3.search.report.variable_figures import (
    importance_figure,
    importances,
    parallel_coordinates,
)
from fbnetv3.search.result import SearchResult
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial

_FOLDER = Path(__file__).parent
_UNREACHABLE = 2.0
"""A threshold above every rank correlation."""


@dataclass(frozen=True)
class Winner:
    """A candidate that was written as the config of a training.

    Attributes:
        name: Name of the winner, such as ``best``.
        facts: Lines about the winner: its score, its cost and the like.
        command: Command that trains the winner.
        layers: Layers of its network, to be drawn; empty if it has no table of layers.
    """

    name: str
    facts: tuple[str, ...]
    command: str
    layers: tuple[LayerBar, ...] = ()


@dataclass(frozen=True)
class About:
    """Content of a report in addition to the search's result.

    Attributes:
        title: Title of the page.
        score: Name of the objective ``score``, with its unit; other scores keep their names.
        unit: Unit of the progress at which a training reports scores: ``epoch`` or ``iteration``.
        facts: Facts about the search, by name.
        statistic: Statistic that scores are drawn against; None takes the first one in
            alphabetical order.
        budgets: Upper bounds on that statistic. The table of the best candidates has a row for each
            bound that a trial meets, and rows for round values of the statistic.
        resume: Command that resumes the search; empty leaves it out.
        commands: Commands other than ``resume``, by a description of their effect.
        winners: Candidates that were written as configs.
        pretraining: Predictors compared with and without pre-training; see
            :func:`~fbnetv3.search.report.pretraining.compare_pretraining`.
    """

    title: str = "Search"
    score: str = "score"
    unit: str = "epoch"
    facts: Mapping[str, str] = field(default_factory=dict)
    statistic: str | None = None
    budgets: tuple[float, ...] = ()
    resume: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)
    winners: tuple[Winner, ...] = ()
    pretraining: Sequence[Comparison] = ()


def write_report(
    path: str | os.PathLike[str],
    space: SearchSpace,
    result: SearchResult,
    about: About | None = None,
) -> None:
    """Writes the report of a search, finished or not.

    Args:
        path: Path of the html file.
        space: Space that was searched.
        result: Result from ``JointNAS.result()``.
        about: Further content; None adds nothing.

    Raises:
        WriteError: The file cannot be written.
        MissingPackageError: A package of the extra ``report`` is not installed.
    """
    text = render(space, result, about or About())
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(space: SearchSpace, result: SearchResult, about: About) -> str:
    """Returns the report as html, in which all text from trials is escaped.

    Args:
        space: Space that was searched.
        result: Result of the search, finished or not.
        about: Further content.
    """
    jinja2 = require("jinja2", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "number": _number, "fixed": _fixed, "label": label}
    return environment.get_template("page.html").render(_content(space, result, about))


def _number(value: float | None, digits: int = 4) -> str:
    """Returns a number as text; a dash if it is None or not finite."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def _fixed(value: float) -> str:
    """Returns a correlation as text; a dash if it is not finite."""
    return f"{value:.2f}" if math.isfinite(value) else "–"


def _content(space: SearchSpace, result: SearchResult, about: About) -> dict[str, Any]:
    """Returns the variables of the template."""
    complete, feasible = result.complete, result.feasible
    best = result.best_of(feasible)
    failed = [t for t in result.trials if t.state == "failed"]
    statistics = sorted({name for t in result.trials for name in t.statistics})
    statistic = about.statistic or (statistics[0] if statistics else None)
    score = title_of(result.objectives.scores[0], about.score)  # of each trial
    return {
        "about": about,
        "score": score,
        "best": best,
        "best_score": None if best is None else best.score,
        "complete": complete,
        "failed": failed,
        "reasons": Counter(t.reason or "no reason was given" for t in failed).most_common(),
        "predicted_failures": result.failures and str(result.failures),
        "put_back": sum(bool(t.earlier_reasons) for t in result.trials),
        "trials": result.trials,
        "statistics": statistics,
        "statistic": statistic,
        "best_by_budget": _best_by_budget(result, statistic, about.budgets),
        "front": front_rows(result),
        "objectives": [(title_of(o, about.score), o.direction) for o in result.objectives.all],
        "report_cards": result.report_cards,
        "rungs": result.rungs,
        "spreads": _spread_rows(result),
        "proxy": result.proxy_correlation,
        "figures": _figures(result, about, complete, statistic, score),
        "networks": [draw_network(w.name, w.layers) for w in about.winners if w.layers],
        "variables": _variables(space, result, score),
        "parts": _parts(space, complete, score),
        "active": partial(_active, space),
        "parameters": space.parameters,
    }


def _spread_rows(result: SearchResult) -> list[tuple[str, Spread]]:
    """Returns the finalists with several trainings, the finalist with the best mean first."""
    return sorted(result.spreads.items(), key=lambda row: -gain(row[1].mean, result.direction))


def _figures(
    result: SearchResult, about: About, complete: list[Trial], statistic: str | None, score: str
) -> list[Figure]:
    if not complete:
        return []
    charts: list[Figure | None] = []
    if result.feasible:
        charts.append(figures.best_so_far(result, score, statistic))
    if result.objectives.are_several and result.feasible:
        charts += [*fronts(result, about.score), hypervolume_by_batch(result, about.score)]
    elif statistic is not None and any(statistic in t.statistics for t in result.feasible):
        charts.append(figures.score_by_cost(result, statistic, score))
    charts.append(figures.score_by_prediction(complete, score, statistic))
    if result.report_cards:
        charts.append(figures.cross_validated(result.report_cards[-1], score))
    charts.append(learning_curves(result, score, about.unit))
    charts.append(scores_by_rung(result, score, about.unit))
    stop, in_use = _early_stop(result)
    if stop is not None:
        charts.append(figures.rank_by_epoch(stop, in_use=in_use, unit=about.unit))
    if about.pretraining:
        charts.append(figures.pretraining(about.pretraining))
    return [chart for chart in charts if chart is not None]


def _early_stop(result: SearchResult) -> tuple[EarlyStop | None, bool]:
    """Returns the rank correlation by epoch, and whether the search uses it to stop candidates.

    A search with rungs, which ends trainings at fixed lengths instead, has None.
    """
    if result.early_stop is not None:
        return result.early_stop, True
    if result.rungs:
        return None, False
    complete = [t for t in result.trials if t.state == "complete"]
    reports = [t.reports for t in complete if 0 <= t.batch < result.first_parts]
    return find_early_stop(reports, _UNREACHABLE, result.early_stop_over, result.direction), False


def _best_by_budget(
    result: SearchResult, statistic: str | None, budgets: Sequence[float]
) -> list[tuple[float, Trial]]:
    """Returns the best feasible trial within each of the given budgets and some round values.

    Values that no trial meets are left out, and so are round values with the same best trial as the
    row before. If all values are below the largest cost, that cost is added.
    """
    trials = [t for t in result.feasible if statistic in t.statistics]
    if statistic is None or not trials:
        return []
    costs = [t.statistics[statistic] for t in trials]
    ticks = [value for value, _ in Axis("", min(costs), max(costs) + 1e-9).ticks()]
    bounds = sorted({*ticks, *budgets} - {0.0})
    if not any(bound >= max(costs) for bound in bounds):
        bounds.append(max(costs))
    rows: list[tuple[float, Trial]] = []
    for bound in bounds:
        best = result.best_of([t for t in trials if t.statistics[statistic] <= bound])
        if best is None:
            continue
        if bound in budgets or not rows or rows[-1][1] is not best:
            rows.append((bound, best))
    return rows


def _variables(space: SearchSpace, result: SearchResult, score: str) -> list[Figure]:
    """Returns the charts of all variables at once; [] if there are too few trials."""
    found = importances(space, result.complete)
    if found is None:
        return []
    lines = parallel_coordinates(space, result.complete, found.names, score, result.direction)
    return [importance_figure(found, score), lines]


def _parts(
    space: SearchSpace, complete: list[Trial], score: str
) -> list[tuple[str, list[Marginal]]]:
    parts = [(part, marginals(space, complete, part, score)) for part in ("recipe", "architecture")]
    return [(part, charts) for part, charts in parts if charts]


def _active(space: SearchSpace, trial: Trial) -> list[tuple[str, str]]:
    """Returns the names and values of the variables that are active in a trial."""
    mask = space.active(space.levels([trial.config]))[0]
    return [
        (name, short(v) if isinstance(v := trial.config[name], float) else str(v))
        for name, is_active in zip(space.names, mask, strict=True)
        if is_active
    ]
