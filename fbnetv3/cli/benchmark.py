"""``fbnetv3-benchmark``: compares the speed of networks, or measures a latency table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fbnetv3.benchmark.errors import BenchmarkError
from fbnetv3.cli import run_main
from fbnetv3.cli.benchmark_tables import format_table, result_table, table_report
from fbnetv3.cli.imports import import_code, import_option
from fbnetv3.io import atomic_write, check_writable

# torch is imported where it is needed: --help and a mistyped option are answered at once
if TYPE_CHECKING:
    from fbnetv3.benchmark.comparison import Measurement
    from fbnetv3.benchmark.formats import FormTime

MEASURES = ("latency", "training", "memory", "ema")
# Not measured by default: loop needs detectron2 and compares no other library; data needs a data
# set
ON_REQUEST = ("loop", "data")
_WIDTH = 120  # columns, if the output is not a terminal
_LARGEST_NUMBER = 10_000
_DESCRIPTION = """\
Compare the speed and memory of networks on this machine: each network as built,
its deployed form, and timm's network of the same name if timm is installed.
All variants are measured in alternating rounds; a result is the median.

With --formats, time PyTorch and exported files of each network side by side.

With --latency-table and --config-file, measure the blocks of a search space
instead, as a table for the search's latency constraints.
"""
_EPILOG = """\
examples:
  %(prog)s --models fbnetv3_a0 fbnetv3_b --measures latency --compile
  %(prog)s --models output/flowers --measures latency
  %(prog)s --measures data --train-batch 64
  %(prog)s --formats eager compiled onnxruntime onnxruntime-int8 --models fbnetv3_a0
  %(prog)s --latency-table nano.json --config-file model_zoo/search/fbnetv3_cifar10_nano.yaml
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BenchmarkError(f"{message}; see {self.prog} --help")


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _LARGEST_NUMBER:
        raise argparse.ArgumentTypeError(
            f"must be an integer from 1 to {_LARGEST_NUMBER}, not {text!r}"
        )
    return int(text)


def _size(text: str) -> tuple[int, int]:
    width, by, height = text.lower().partition("x")
    if not by:
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT in pixels, not {text!r}")
    return _number(width), _number(height)


def _number_from_2(text: str) -> int:
    number = _number(text)
    if number == 1:  # a rank correlation needs two networks
        raise argparse.ArgumentTypeError(f"must be an integer from 2 to {_LARGEST_NUMBER}, not '1'")
    return number


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line.

    Raises:
        BenchmarkError: An option is unknown, or its value is not allowed.
    """
    parser = _Parser(
        prog="fbnetv3-benchmark",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[import_option()],
    )
    add = parser.add_argument
    rounds = "rounds of measurement; more are more accurate (default: 10)"
    add("--rounds", type=_number, default=10, metavar="N", help=rounds)
    threads = "CPU threads of PyTorch (default: 1)"
    add("--threads", type=_number, default=1, metavar="N", help=threads)
    _add_comparison_options(parser)
    _add_table_options(parser)
    arguments = parser.parse_args(argv)
    if bool(arguments.latency_table) != bool(arguments.config_file):
        parser.error("--latency-table FILE and --config-file CONFIG must be given together")
    return arguments


def _add_comparison_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("comparison of networks").add_argument
    add(
        "--models",
        nargs="+",
        metavar="NAME",
        help="networks of the zoo, torchvision/NAME, timm/NAME, or weights of your own: a file or "
        "the folder of a run (default: fbnetv3_b)",
    )
    add(
        "--measures",
        nargs="+",
        choices=(*MEASURES, *ON_REQUEST),
        default=list(MEASURES),
        help="measures to run; loop is the training loop with its hooks, data the batches of a "
        "training (default: all but these two)",
    )
    resolution = "side of the images in pixels (default: that of each network's architecture)"
    add("--resolution", type=_number, metavar="PX", help=resolution)
    sizes = "images per forward pass (default: 1 16)"
    add("--batch-sizes", type=_number, nargs="+", default=[1, 16], metavar="N", help=sizes)
    training = "images per training step (default: 16)"
    add("--train-batch", type=_number, default=16, metavar="N", help=training)
    data = "data set of the measure data (default: imagenette_train)"
    add("--data", default="imagenette_train", metavar="NAME", help=data)
    size = "size of the JPEG files that are made of it (default: 500x375)"
    add("--image-size", type=_size, default=(500, 375), metavar="WxH", help=size)
    add("--compile", action="store_true", help="also measure fbnetv3.deploy(compile=True)")
    add(
        "--formats",
        nargs="*",
        metavar="FORM",
        help="time these forms of the networks instead: eager, deploy, compiled, onnxruntime, "
        "onnxruntime-int8, openvino, executorch, litert, timm (default: all but litert)",
    )
    add("networks", nargs="*", metavar="MODEL", help="the same as --models")
    add("--json", type=Path, metavar="FILE", help="write the results of all rounds to this file")


def _add_table_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("latency table of a search space").add_argument
    add("--latency-table", type=Path, metavar="FILE", help="JSON file to write")
    config = "config of a search, such as those in model_zoo/search/"
    add("--config-file", metavar="CONFIG", help=config)
    networks = "random networks whose blocks are measured (default: 100)"
    add("--networks", type=_number, default=100, metavar="N", help=networks)
    check = "random networks to validate the table on, at least 2 (default: 30)"
    add("--check", type=_number_from_2, default=30, metavar="N", help=check)
    seed = "random seed of the networks (default: 1)"
    add("--seed", type=_number, default=1, metavar="N", help=seed)


def _write_json(path: Path, threads: int, measurements: Sequence[Measurement | FormTime]) -> None:
    from fbnetv3.benchmark.machine import describe_machine

    rows = [asdict(measurement) for measurement in measurements]
    content = {**describe_machine(), "threads": threads, "rows": rows}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _compare(arguments: argparse.Namespace) -> None:
    from fbnetv3.benchmark.comparison import Settings, compare

    settings = Settings(
        measures=arguments.measures,
        resolution=arguments.resolution,
        batch_sizes=arguments.batch_sizes,
        train_batch=arguments.train_batch,
        rounds=arguments.rounds,
        threads=arguments.threads,
        compile=arguments.compile,
        data=arguments.data,
        image_size=arguments.image_size,
    )
    with _progress() as progress:
        measurements = compare(_models(arguments), settings, progress)
    _console().print(result_table(measurements, arguments.threads))
    if arguments.json is not None:
        _write_json(arguments.json, arguments.threads, measurements)


def _models(arguments: argparse.Namespace) -> list[str]:
    return [*(arguments.models or []), *arguments.networks] or ["fbnetv3_b"]


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


def _compare_formats(arguments: argparse.Namespace) -> None:
    from fbnetv3.benchmark.formats import DEFAULT_FORMS, FormatSettings, compare_formats, split

    forms, networks = split(arguments.formats)
    arguments.networks += networks
    settings = FormatSettings(
        forms or DEFAULT_FORMS,
        arguments.resolution,
        arguments.batch_sizes,
        arguments.rounds,
        arguments.threads,
    )
    with _progress() as progress:
        result = compare_formats(_models(arguments), settings, progress)
    _console().print(format_table(result.times, arguments.threads))
    print(*result.notes, sep="\n", end="\n" if result.notes else "")
    if arguments.json is not None:
        _write_json(arguments.json, arguments.threads, result.times)


def _measure_table(arguments: argparse.Namespace) -> None:
    from fbnetv3.benchmark.latency import measure_latency_table

    with _progress() as progress:
        table = measure_latency_table(
            arguments.config_file,
            networks=arguments.networks,
            check_networks=arguments.check,
            rounds=arguments.rounds,
            threads=arguments.threads,
            seed=arguments.seed,
            progress=progress,
        )
    table.save(arguments.latency_table)
    print(*table_report(table, arguments.latency_table), sep="\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and prints its results.

    Returns:
        The exit status, 0.
    """
    arguments = parse(argv)
    import_code(arguments)
    for path in (arguments.json, arguments.latency_table):
        if path is not None:
            check_writable(path)
    if arguments.latency_table is not None:
        _measure_table(arguments)
    elif arguments.formats is not None:
        _compare_formats(arguments)
    else:
        _compare(arguments)
    return 0


def cli() -> None:
    """Entry point of the console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    cli()
