"""``fbnetv3-benchmark``: compares the speed of networks, or measures a latency table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fbnetv3.benchmark.errors import BenchmarkError
from fbnetv3.cli import run_main
from fbnetv3.cli.benchmark_tables import (
    check_same_runtime,
    format_table,
    result_table,
    table_report,
)
from fbnetv3.cli.effects import given_without_effect, no_effect
from fbnetv3.cli.imports import import_code, import_option
from fbnetv3.cli.option_types import integer
from fbnetv3.cli.version_option import version_option
from fbnetv3.io import atomic_write, check_writable

# torch is imported where it is needed: --help and a mistyped option are answered at once
if TYPE_CHECKING:
    from fbnetv3.benchmark.comparison import Measurement
    from fbnetv3.benchmark.formats import FormTime

MEASURES = ("latency", "training", "memory", "ema")
# Not measured by default: loop needs detectron2 and compares no other library; data needs a data
# set
ON_REQUEST = ("loop", "data")
TORCH = "torch"
# the names in fbnetv3.export.runtimes, which imports torch
_FILE_RUNTIMES = (
    "onnxruntime, onnxruntime-int8, openvino, openvino-int8, executorch, executorch-int8, litert"
)
_WIDTH = 120  # columns, if the output is not a terminal
_LARGEST_NUMBER = 10_000
_number = integer(1, _LARGEST_NUMBER)
_DESCRIPTION = """\
Compare the speed and memory of networks on this machine: each network as built,
its deployed form, and timm's network of the same name if timm is installed.
Times are measured in alternating rounds; a result is their median.

With --formats, time PyTorch and exported files of each network side by side.

With --latency-table and --config-file, measure the blocks of a search space
instead, as a table for the search's latency constraints. --export-blocks writes
the blocks as files, to be measured on another device.
"""
_EPILOG = """\
examples:
  %(prog)s --models fbnetv3_a0 fbnetv3_b --measures latency --compile
  %(prog)s --models output/flowers --measures latency
  %(prog)s --measures data --train-batch 64
  %(prog)s --formats eager compiled onnxruntime onnxruntime-int8 --models fbnetv3_a0
  %(prog)s --latency-table nano.json --config-file model_zoo/search/fbnetv3_cifar10_nano.yaml
  %(prog)s --latency-table int8.json --config-file search.yaml --runtime onnxruntime-int8
  %(prog)s --export-blocks blocks --config-file search.yaml
  %(prog)s --latency-table blocks/blocks.csv --runtime 'ONNX Runtime 1.22, Pixel 8'
"""


# options that have an effect, by what is measured
_NETWORKS = {"models", "more_models", "resolution", "batch_sizes", "rounds", "threads", "json"}
_SPACE = {"config_file", "runtime", "networks", "check", "seed"}
_OPTIONS = {
    "the comparison of networks": _NETWORKS | {"measures", "train_batch", "compile"},
    "--measures data": _NETWORKS | {"measures", "train_batch", "compile", "data", "image_size"},
    "--formats": _NETWORKS | {"formats"},
    "--latency-table": _SPACE | {"latency_table", "rounds", "threads"},
    "--latency-table FILE.csv": {"latency_table", "runtime"},
    "--export-blocks": _SPACE | {"export_blocks"},
}
_ALWAYS = {"imports"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BenchmarkError(f"{message}; see {self.prog} --help")


def _size(text: str) -> tuple[int, int]:
    width, by, height = text.lower().partition("x")
    if not by:
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT in pixels, not {text!r}")
    return _number(width), _number(height)


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
        parents=[import_option(), version_option()],
    )
    add = parser.add_argument
    rounds = "rounds of measurement; more are more accurate (default: 10)"
    add("--rounds", type=_number, default=10, metavar="N", help=rounds)
    threads = "CPU threads of PyTorch and other runtimes (default: 1)"
    add("--threads", type=_number, default=1, metavar="N", help=threads)
    _add_comparison_options(parser)
    _add_table_options(parser)
    arguments = parser.parse_args(argv)
    _check_table_options(parser, arguments)
    _check_effects(parser, arguments)
    return arguments


def _check_effects(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuses options that differ from their default but have no effect."""
    what = _what_is_measured(arguments)
    name = given_without_effect(parser, arguments, _OPTIONS[what] | _ALWAYS)
    if name is not None:
        parser.error(no_effect(name, what).replace("--more-models", "MODEL"))


def _what_is_measured(arguments: argparse.Namespace) -> str:
    """Returns a key of ``_OPTIONS``."""
    table = arguments.latency_table
    if arguments.export_blocks is not None:
        return "--export-blocks"
    if table is not None:
        return "--latency-table FILE.csv" if table.suffix == ".csv" else "--latency-table"
    if arguments.formats is not None:
        return "--formats"
    return "--measures data" if "data" in arguments.measures else "the comparison of networks"


def _check_table_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuses options of latency tables that do not fit together."""
    table, config, folder = arguments.latency_table, arguments.config_file, arguments.export_blocks
    if table is not None and table.suffix == ".csv":
        if config or folder:
            parser.error(f"--latency-table {table} reads a csv, which needs --runtime TEXT only")
        if not arguments.runtime:
            parser.error(
                f"--latency-table {table} needs --runtime TEXT, which says what measured it: "
                "runtime, version and device"
            )
    elif folder is not None:
        if table is not None or not config:
            parser.error("--export-blocks DIR needs --config-file CONFIG, and no --latency-table")
    elif bool(table) != bool(config):
        parser.error("--latency-table FILE and --config-file CONFIG must be given together")
    elif arguments.runtime and table is None:
        parser.error("--runtime NAME needs --latency-table FILE and --config-file CONFIG")


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
        help="measures to run (default: all but loop and data); loop: the training loop with its "
        "hooks; data: the preparation of training batches",
    )
    resolution = "side of the images in pixels (default: that of each network's architecture)"
    add("--resolution", type=_number, metavar="PX", help=resolution)
    sizes = "images per forward pass (default: 1 16)"
    add("--batch-sizes", type=_number, nargs="+", default=[1, 16], metavar="N", help=sizes)
    training = "images per training step (default: 16)"
    add("--train-batch", type=_number, default=16, metavar="N", help=training)
    data = "data set for the measure 'data' (default: imagenette_train)"
    add("--data", default="imagenette_train", metavar="NAME", help=data)
    size = "size in pixels of the JPEG files made from the --data set (default: 500x375)"
    add("--image-size", type=_size, default=(500, 375), metavar="WxH", help=size)
    add("--compile", action="store_true", help="also measure fbnetv3.deploy(compile=True)")
    add(
        "--formats",
        nargs="*",
        metavar="FORM",
        help="time these forms of the networks instead: eager, deploy, compiled, "
        f"{_FILE_RUNTIMES}, timm (default: all but litert)",
    )
    models = "the same as --models"
    add("more_models", nargs="*", default=[], metavar="MODEL", help=models)
    add("--json", type=Path, metavar="FILE", help="write the results of all rounds to this file")


def _add_table_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("latency table of a search space").add_argument
    table = "JSON file to write; or a filled blocks.csv, whose table is written beside it"
    add("--latency-table", type=Path, metavar="FILE", help=table)
    config = "config of a search, such as those in model_zoo/search/"
    add("--config-file", metavar="CONFIG", help=config)
    add(
        "--runtime",
        metavar="NAME",
        help=f"runtime of the measurement: torch (deployed, eager), {_FILE_RUNTIMES} "
        "(default: torch); for a csv: text that says what measured it",
    )
    folder = "write the blocks as files for another device, with a blocks.csv to fill (name,ms)"
    add("--export-blocks", type=Path, metavar="DIR", help=folder)
    networks = (
        "random networks whose blocks are measured (default: 100 in torch; 24 in another --runtime "
        "and with --export-blocks)"
    )
    add("--networks", type=_number, metavar="N", help=networks)
    # a rank correlation needs two networks
    check = "random networks to validate the table on, at least 2 (default: 30)"
    add("--check", type=integer(2, _LARGEST_NUMBER), default=30, metavar="N", help=check)
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
    return [*(arguments.models or []), *arguments.more_models] or ["fbnetv3_b"]


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


def _compare_formats(arguments: argparse.Namespace) -> None:
    from fbnetv3.benchmark.formats import DEFAULT_FORMS, FormatSettings, compare_formats, split

    forms, networks = split(arguments.formats)
    arguments.more_models += networks
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
    from fbnetv3.benchmark.block_times import NETWORKS, measure_runtime_table
    from fbnetv3.benchmark.latency import measure_latency_table

    path, runtime = arguments.latency_table, arguments.runtime or TORCH
    check_same_runtime(path, runtime)
    with _progress() as progress:
        options: dict[str, Any] = {
            "check_networks": arguments.check,
            "rounds": arguments.rounds,
            "threads": arguments.threads,
            "seed": arguments.seed,
            "progress": progress,
        }
        config, count = arguments.config_file, arguments.networks
        if runtime == TORCH:
            table = measure_latency_table(config, networks=count or 100, **options)
        else:
            table = measure_runtime_table(config, runtime, networks=count or NETWORKS, **options)
    table.save(path)
    print(*table_report(table, path), sep="\n")


def _read_blocks(arguments: argparse.Namespace) -> None:
    from fbnetv3.benchmark.block_times import read_blocks

    path: Path = arguments.latency_table.with_name("latency_table.json")
    check_same_runtime(path, arguments.runtime)
    table = read_blocks(arguments.latency_table, arguments.runtime)
    table.save(path)
    print(*table_report(table, path), sep="\n")


def _export_blocks(arguments: argparse.Namespace) -> None:
    from fbnetv3.benchmark.block_times import NETWORKS, export_blocks

    folder: Path = arguments.export_blocks
    with _progress() as progress:
        count = export_blocks(
            folder,
            arguments.config_file,
            runtime=arguments.runtime,
            networks=arguments.networks or NETWORKS,
            check_networks=arguments.check,
            seed=arguments.seed,
            progress=progress,
        )
    csv = folder / "blocks.csv"
    print(f"{folder}: {count} blocks and networks to measure, batch 1; fill {csv} (name,ms), then:")
    print(f"  fbnetv3-benchmark --latency-table {csv} --runtime 'RUNTIME, DEVICE'")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and prints its results.

    Returns:
        The exit status, 0.
    """
    arguments = parse(argv)
    import_code(arguments)
    table = arguments.latency_table
    is_csv = table is not None and table.suffix == ".csv"
    for path in (arguments.json, None if is_csv else table):
        if path is not None:
            check_writable(path)
    if arguments.export_blocks is not None:
        _export_blocks(arguments)
    elif is_csv:
        _read_blocks(arguments)
    elif table is not None:
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
