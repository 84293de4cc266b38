"""Puts a search's report together."""

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
from fbnetv3.search.report import figures
from fbnetv3.search.report.figures import Figure
from fbnetv3.search.report.marginals import Marginal, marginals
from fbnetv3.search.report.pretraining import Comparison
from fbnetv3.search.report.svg import Axis, label, short
from fbnetv3.search.result import SearchResult
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial

_FOLDER = Path(__file__).parent
_NEVER = 2.0  # no rank correlation reaches this


@dataclass(frozen=True)
class Winner:
    """A candidate that was written as a config.

    Attributes:
        name: of it.
        told: score, costs and the like, in words.
        command: trains it.
    """

    name: str
    told: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class About:
    """What a report says beyond the search's result.

    Attributes:
        title: of the page.
        score: what scores are, with their unit.
        facts: what was searched, by name.
        statistic: that scores are drawn against; None: the first that trials have.
        budgets: of this statistic, for the table of the best under each; further ones are added.
        resume: the command that goes on with the search.
        commands: further ones, by what they do.
        winners: candidates that were written as configs.
        running: trials that have no result yet.
        pretraining: see compare_pretraining.
    """

    title: str = "Search"
    score: str = "score"
    facts: Mapping[str, str] = field(default_factory=dict)
    statistic: str | None = None
    budgets: tuple[float, ...] = ()
    resume: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)
    winners: tuple[Winner, ...] = ()
    running: int = 0
    pretraining: Sequence[Comparison] = ()


def write_report(
    path: str | os.PathLike[str],
    space: SearchSpace,
    result: SearchResult,
    about: About | None = None,
) -> None:
    """Writes the report of a search, finished or not.

    Args:
        path: of the html file.
        space: that was searched.
        result: of ``JointNAS.result()``.
        about: what else to say.

    Raises:
        WriteError: the file can't be written.
    """
    text = render(space, result, about or About())
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(space: SearchSpace, result: SearchResult, about: About) -> str:
    """Returns the page; whatever comes from trials is escaped."""
    jinja2 = require("jinja2", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "number": _number, "fixed": _fixed, "label": label}
    return environment.get_template("page.html").render(_contents(space, result, about))


def _number(value: float | None, digits: int = 4) -> str:
    """Returns a number, or a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def _fixed(value: float) -> str:
    """Returns a correlation, or a dash where there is none."""
    return f"{value:.2f}" if math.isfinite(value) else "–"


def _contents(space: SearchSpace, result: SearchResult, about: About) -> dict[str, Any]:
    complete = [t for t in result.trials if t.state == "complete"]
    failed = [t for t in result.trials if t.state == "failed"]
    statistics = sorted({name for t in result.trials for name in t.statistics})
    statistic = about.statistic or (statistics[0] if statistics else None)
    return {
        "about": about,
        "best": result.best if complete else None,
        "best_score": max(figures.scores_of(complete), default=None),
        "complete": complete,
        "failed": failed,
        "reasons": Counter(t.reason or "no reason was given" for t in failed).most_common(),
        "trials": result.trials,
        "statistics": statistics,
        "statistic": statistic,
        "ladder": _ladder(complete, statistic, about.budgets),
        "cards": result.cards,
        "proxy": result.proxy_correlation,
        "figures": _figures(result, about, complete, statistic),
        "parts": _parts(space, complete, about.score),
        "active": partial(_active, space),
        "parameters": space.parameters,
    }


def _figures(
    result: SearchResult, about: About, complete: list[Trial], statistic: str | None
) -> list[Figure]:
    if not complete:
        return []
    found: list[Figure | None] = [figures.progress(complete, about.score, statistic)]
    if any(statistic in t.statistics for t in complete) and statistic is not None:
        found.append(figures.trade_off(result, statistic, about.score))
    found.append(figures.outcome(complete, about.score, statistic))
    if result.cards:
        found.append(figures.held_out(result.cards[-1], about.score))
    curve, in_use = _curve(result)
    if curve is not None:
        found.append(figures.rank_by_epoch(curve, in_use=in_use))
    if about.pretraining:
        found.append(figures.with_and_without(about.pretraining))
    return [figure for figure in found if figure is not None]


def _curve(result: SearchResult) -> tuple[EarlyStop | None, bool]:
    """Returns the rank correlation by epoch, and whether the search stops early by it."""
    if result.early_stop is not None:
        return result.early_stop, True
    full = [t.reports for t in result.trials if t.state == "complete" and t.batch == 0]
    return find_early_stop(full, _NEVER), False


def _ladder(
    complete: list[Trial], statistic: str | None, budgets: Sequence[float]
) -> list[tuple[float, Trial]]:
    """Returns the best trial under each of some budgets."""
    having = [t for t in complete if statistic in t.statistics]
    if statistic is None or not having:
        return []
    costs = [t.statistics[statistic] for t in having]
    steps = [value for value, _ in Axis("", min(costs), max(costs) + 1e-9).ticks()]
    rungs = sorted({*steps, *budgets} - {0.0})
    if not any(rung >= max(costs) for rung in rungs):
        rungs.append(max(costs))
    found: list[tuple[float, Trial]] = []
    for rung in rungs:
        under = [t for t in having if t.statistics[statistic] <= rung]
        if not under:
            continue
        best = max(under, key=lambda t: (figures.scores_of([t])[0], -t.number))
        if rung in budgets or not found or found[-1][1] is not best:
            found.append((rung, best))
    return found


def _parts(
    space: SearchSpace, complete: list[Trial], score: str
) -> list[tuple[str, list[Marginal]]]:
    parts = [(part, marginals(space, complete, part, score)) for part in ("recipe", "architecture")]
    return [(part, found) for part, found in parts if found]


def _active(space: SearchSpace, trial: Trial) -> list[tuple[str, str]]:
    """Returns the variables that matter in a trial, and their values."""
    mask = space.active(space.levels([trial.config]))[0]
    return [
        (name, short(v) if isinstance(v := trial.config[name], float) else str(v))
        for name, is_on in zip(space.names, mask, strict=True)
        if is_on
    ]
