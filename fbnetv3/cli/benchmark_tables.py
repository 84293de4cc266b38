"""What ``fbnetv3-benchmark`` prints: tables of times, and the description of a latency table."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Column, Table

from fbnetv3.benchmark.errors import BenchmarkError

# torch is imported where it is needed: --help and a mistyped option are answered at once
if TYPE_CHECKING:
    from fbnetv3.arch.latency import LatencyTable
    from fbnetv3.benchmark.comparison import Measurement
    from fbnetv3.benchmark.formats import FormTime

IMAGES_PER_SECOND = "images/s"
# Mean absolute error, relative to the measured latencies, and rank correlation of a good table
LARGEST_ERROR, SMALLEST_CORRELATION = 0.10, 0.95


def result_table(measurements: Sequence[Measurement], threads: int) -> Table:
    """Returns the table of a comparison of variants of networks, such as ``deploy``."""
    plural = "s" if threads > 1 else ""
    title = f"{threads} thread{plural}; ratio: speed or size, relative to the group's first variant"
    table = Table(_model_column(), "measure", "batch", "variant", title=title)
    for column in ("median", "best", "ratio"):
        table.add_column(column, justify="right")
    group = None
    for item in measurements:
        if group not in (None, (item.model, item.measure, item.batch)):
            table.add_section()
        group = (item.model, item.measure, item.batch)
        table.add_row(
            f"{item.model} @{item.resolution}",
            item.measure,
            "" if item.batch is None else str(item.batch),
            item.variant,
            f"{item.value:.1f} {item.unit}",
            f"{(max if item.unit == IMAGES_PER_SECOND else min)(item.rounds):.1f}",
            f"{item.ratio:.2f}x",
        )
    return table


def _model_column() -> Column:
    """Returns the column of models, which wraps long paths: cut paths could look the same."""
    return Column("model", overflow="fold")


def format_table(times: Sequence[FormTime], threads: int) -> Table:
    """Returns the table of forms of networks, such as ``compiled``, that were timed together."""
    plural = "s" if threads > 1 else ""
    first = times[0].form
    title = (
        f"{threads} thread{plural}; speed: relative to {first}, median of the rounds' ratios; "
        "spread: 10th to 90th percentile of these ratios"
    )
    table = Table(_model_column(), "batch", "form", "runtime", title=title)
    for column in ("ms", "speed", "spread"):
        table.add_column(column, justify="right")
    group = None
    for item in times:
        if group not in (None, (item.model, item.batch)):
            table.add_section()
        group = (item.model, item.batch)
        table.add_row(
            f"{item.model} @{item.resolution}",
            str(item.batch),
            item.form,
            item.runtime,
            f"{item.ms:.2f}",
            f"{item.speedup:.2f}x",
            f"{item.spread[0]:.2f}-{item.spread[1]:.2f}",
        )
    return table


def check_same_runtime(path: Path, runtime: str) -> None:
    """Refuses to replace the latency table of another runtime.

    Raises:
        BenchmarkError: The file is the table of another runtime.
    """
    from fbnetv3.arch.errors import ArchError
    from fbnetv3.arch.latency import LatencyTable

    try:
        table = LatencyTable.load(path)
    except ArchError:
        return  # there is no table that could be lost
    if table.about.get("runtime", "torch") != runtime:
        raise BenchmarkError(
            f"{path} is a latency table of {table.runtime}, not of {runtime}; give another FILE, "
            "or remove this one"
        )


def table_report(table: LatencyTable, path: os.PathLike[str]) -> list[str]:
    """Describes a new latency table: its content, its check, and how to search with it."""
    about, check = table.about, table.about["check"]
    measured, error = check["measured_ms"], check["mean_absolute_error"]
    correlation = check["rank_correlation"]
    content = (
        f"{path}: {len(table.blocks)} block shapes in {about['networks']} networks of the space "
        f"{about['space']}; {table.runtime}, {about['form']}, batch 1, "
        + (f"threads {about['threads']}, " if "threads" in about else "")
        + about["cpu"]
    )
    quality = (
        f"check on {check['networks']} further random networks, {min(measured):.3g} to "
        f"{max(measured):.3g} ms: mean absolute error {error:.1%}, "
        f"rank correlation {correlation:.3f}"
    )
    lines = [content, quality]
    if not error <= LARGEST_ERROR or not correlation >= SMALLEST_CORRELATION:
        lines.append(
            f"warning: the error should be at most {LARGEST_ERROR:.0%} and the correlation at "
            f"least {SMALLEST_CORRELATION}: measure again while the machine is idle, with more "
            "--rounds or --networks"
        )
    bound = f"latency_ms <= {float(statistics.median(measured)):.3g}"
    lines.append(f"search with it: SEARCH.LATENCY_TABLE {path} SEARCH.CONSTRAINTS '[\"{bound}\"]'")
    return lines
