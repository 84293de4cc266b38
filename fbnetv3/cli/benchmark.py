"""``fbnetv3-benchmark``: times networks, their deploy form and timm's networks side by side.

Everything that is compared is measured in one run, in alternating rounds; a ratio is the median
time of the first row (timm's network in default layout where timm has it) over that of the row.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fbnetv3.benchmark.errors import BenchmarkError
from fbnetv3.cli import run_main
from fbnetv3.io import atomic_write, check_writable

# torch is imported where it is needed: --help and a mistyped option are answered at once
if TYPE_CHECKING:
    from fbnetv3.benchmark.rows import Row

MEASURES = ("latency", "training", "memory", "ema")
# needs detectron2, and compares nothing with peers: measured when it is named
LOOP = "loop"
_WIDTH = 120  # columns, where the output is not a terminal
_LARGEST_NUMBER = 10_000


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BenchmarkError(f"{message}; see {self.prog} --help")


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _LARGEST_NUMBER:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_LARGEST_NUMBER}")
    return int(text)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line.

    Raises:
        BenchmarkError: an option is unknown or its value not allowed.
    """
    parser = _Parser(prog="fbnetv3-benchmark", description=__doc__)
    add = parser.add_argument
    add("--models", nargs="+", default=["fbnetv3_b"], metavar="NAME", help="(fbnetv3_b)")
    add(
        "--measures",
        nargs="+",
        choices=(*MEASURES, LOOP),
        default=list(MEASURES),
        help="(all but loop)",
    )
    add("--resolution", type=_number, metavar="PX", help="(each network's own)")
    add("--batch-sizes", type=_number, nargs="+", default=[1, 16], metavar="N", help="(1 16)")
    add("--train-batch", type=_number, default=16, metavar="N", help="of training steps (16)")
    add("--rounds", type=_number, default=10, metavar="N", help="whose median is taken (10)")
    add("--threads", type=_number, default=1, metavar="N", help="of torch (1)")
    add("--compile", action="store_true", help="also measure deploy(compile=True)")
    add("--json", type=Path, metavar="FILE", help="write the numbers, with every round's")
    _add_table_options(parser)
    arguments = parser.parse_args(argv)
    if bool(arguments.latency_table) != bool(arguments.config_file):
        parser.error("--latency-table FILE and --config-file CONFIG go together")
    return arguments


def _add_table_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "latency table", "measure the blocks of a search space instead, for latency constraints"
    )
    add = group.add_argument
    add("--latency-table", type=Path, metavar="FILE", help="json that is written")
    add("--config-file", metavar="CONFIG", help="of a search, such as those in model_zoo/search/")
    add("--networks", type=_number, default=100, metavar="N", help="to measure blocks in (100)")
    add("--check", type=_number, default=30, metavar="N", help="others, to check the sums (30)")
    add("--seed", type=_number, default=1, metavar="N", help="of the networks drawn (1)")


def _table(rows: Sequence[Row], threads: int) -> Table:
    title = f"{threads} thread{'s' * (threads > 1)}; ratio: the first row of a group / this one"
    table = Table("model", "measure", "batch", "variant", title=title)
    for column in ("median", "best", "ratio"):
        table.add_column(column, justify="right")
    group = None
    for row in rows:
        if group not in (None, (row.model, row.measure, row.batch)):
            table.add_section()
        group = (row.model, row.measure, row.batch)
        table.add_row(
            f"{row.model} @{row.resolution}",
            row.measure,
            str(row.batch or ""),
            row.variant,
            f"{row.value:.1f} {row.unit}",
            f"{min(row.rounds):.1f}",
            f"{row.ratio:.2f}x",
        )
    return table


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _write(path: Path, arguments: argparse.Namespace, rows: Sequence[Row]) -> None:
    import torch

    found = {
        "cpu": _cpu(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": arguments.threads,
        "rows": [asdict(row) for row in rows],
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _measure_table(arguments: argparse.Namespace) -> int:
    from fbnetv3.benchmark import latency as benchmark_latency

    with _progress() as progress:
        table = benchmark_latency.make_table(arguments, progress, _cpu())
    print(*benchmark_latency.report(table, arguments.latency_table), sep="\n")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints a table, writes JSON if asked; returns the exit status."""
    arguments = parse(argv)
    for path in (arguments.json, arguments.latency_table):
        if path is not None:
            check_writable(path)
    if arguments.latency_table is not None:
        return _measure_table(arguments)
    from fbnetv3.benchmark.rows import run

    with _progress() as progress:
        rows = run(arguments, progress)
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    console.print(_table(rows, arguments.threads))
    if arguments.json is not None:
        _write(arguments.json, arguments, rows)
    return 0


def cli() -> None:
    """Entry point of the console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    cli()
