"""``fbnetv3-zoo``: lists, scales, verifies, plots and publishes networks and their weights."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fbnetv3.cli import run_main
from fbnetv3.cli.imports import import_code, import_option
from fbnetv3.cli.version_option import version_option
from fbnetv3.io import atomic_write

# Each command imports the modules that it needs, because fbnetv3.zoo imports torch, and --help
# should print at once.
_WIDTH = 160  # columns, if the output is not a terminal


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="fbnetv3-zoo",
        description="List, scale, verify, download, add and publish models and weights.",
        parents=[version_option()],
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = partial(commands.add_parser, parents=[import_option()])
    _list_arguments(add("list", help="list models, or weights with --pretrained"))
    _verify_arguments(add("verify", help="check recorded costs, hashes and accuracies of weights"))
    _table_arguments(add("table", help="write MODEL_ZOO.md"))
    _download_arguments(add("download", help="download weights into the cache"))
    _add_arguments(add("add", help="add exported weights to the package"))
    _scale_arguments(add("scale", help="write the config of a scaled network"))
    _plot_arguments(add("plot", help="draw accuracy against multiply-adds, and latency if known"))
    _runs_arguments(add("runs", help="print the costs and scores of finished trainings"))
    _card_arguments(add("card", help="write a repository of Hugging Face's hub for a training"))
    arguments, rest = parser.parse_known_args(argv)
    # argparse cannot mix KEY VALUE pairs of a subcommand with its options
    if rest and (arguments.command != "scale" or any(item.startswith("--") for item in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.opts += rest
    return arguments


def _scale_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the config of a scaled network, ready to train: it has the same recipe, and the "
        "resolution of the scaled network."
    )
    parser.add_argument("config", metavar="CONFIG", help="config of a network, such as best.yaml")
    target = "compound scaling of width, depth and resolution to N multiply-adds, such as 3.43e8"
    parser.add_argument("--macs", type=float, metavar="N", help=target)
    parser.add_argument("--width", type=float, metavar="W", help="factor of the channels")
    parser.add_argument("--depth", type=float, metavar="D", help="factor of the layers")
    parser.add_argument("--resolution", type=int, metavar="PX", help="side of the input in pixels")
    output = (
        "file to write (default: CONFIG_343M.yaml beside CONFIG; in ./ if CONFIG is in model_zoo/)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help=output)
    keys = "further keys to change, such as MODEL.DROP_PATH_RATE 0.2"
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help=keys)


def _runs_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print the costs and the scores of finished trainings of FBNet classifiers."
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="RUN_DIR", help="OUTPUT_DIR of a training"
    )


def _card_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the weights of a finished training, their config.json and a model card into a "
        "folder, which `hf upload OWNER/NAME FOLDER` uploads to Hugging Face's hub. Nothing is "
        "uploaded here."
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="OUTPUT_DIR of a training")
    output = "folder to write (default: RUN_DIR/hub)"
    parser.add_argument("--output", type=Path, metavar="DIR", help=output)
    name = "repository on the hub, or a title (default: name of RUN_DIR)"
    parser.add_argument("--name", metavar="OWNER/NAME", help=name)
    licence = "licence of the weights (default: Apache-2.0)"
    parser.add_argument("--licence", default="Apache-2.0", metavar="LICENCE", help=licence)


def _plot_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Draw top-1 accuracy against multiply-adds, and against latency where it is known: of the "
        "zoo, of your trainings, and of published networks (fbnetv3/zoo/peers.yaml)."
    )
    add = parser.add_argument
    add("runs", nargs="*", type=Path, metavar="RUN_DIR", help="OUTPUT_DIR of a training")
    add(
        "--output",
        type=Path,
        default=Path("zoo.png"),
        metavar="FILE",
        help="png, svg or pdf to write (default: zoo.png)",
    )
    data = "data set of the accuracies (default: imagenet_val, that of the published networks)"
    add("--data", default="imagenet_val", metavar="DATASET", help=data)
    columns = "csv of further networks: name, macs, top1 (percent), latency_ms; may be repeated"
    add("--csv", action="append", type=Path, default=[], metavar="FILE", help=columns)
    latencies = "file that fbnetv3-benchmark --json wrote, with measured latencies"
    add("--latencies", type=Path, metavar="FILE", help=latencies)


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        help="shell-style pattern, such as 'fbnetv3*' (default: all)",
    )
    parser.add_argument(
        "--pretrained", action="store_true", help="list weights, as NAME.TAG, instead of models"
    )


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pattern", nargs="?", default="*", help="shell-style pattern of NAME.TAG (default: all)"
    )
    parser.add_argument(
        "--data",
        metavar="NAME",
        help="data set for the accuracies (default: that of each record; skipped if not installed)",
    )


def _table_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("MODEL_ZOO.md"),
        metavar="FILE",
        help="file to write (default: MODEL_ZOO.md)",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if the file is outdated"
    )


def _download_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME[.TAG]",
        help="weights to download, as `fbnetv3-zoo list --pretrained` prints them; without TAG, "
        "the first weights of NAME that are unscaled and have all classes of the architecture",
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Copy exported weights into the package, and print the yaml of their record, which goes "
        "into fbnetv3/weights/records/."
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help=".safetensors file that training exported"
    )
    parser.add_argument("name", metavar="NAME.TAG", help="architecture and a tag of your choice")
    parser.add_argument(
        "--variant",
        choices=["aligned", "low_resolution"],
        help="MODEL.ARCH_VARIANT of the training",
    )
    parser.add_argument("--width", type=float, metavar="W", help="MODEL.WIDTH of the training")
    parser.add_argument("--depth", type=float, metavar="D", help="MODEL.DEPTH of the training")
    dataset = "data set of the accuracy, such as digits_test"
    parser.add_argument("--dataset", metavar="NAME", help=dataset)
    parser.add_argument(
        "--top1", type=float, metavar="PERCENT", help="measured top-1 accuracy in percent"
    )
    note = "description of how the weights were trained and measured"
    parser.add_argument("--note", metavar="TEXT", help=note)
    parser.add_argument(
        "--half",
        action="store_true",
        help="store conv and linear weights as 16-bit floats; biases and batch norms stay in 32 "
        "bits, and loading converts the weights to 32 bits",
    )


def _print(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    grid = Table(title=title)
    for column in columns:
        grid.add_column(column, overflow="fold")  # long names and URLs must not be cut off
    for row in rows:
        grid.add_row(*row)
    console.print(grid)


def _list(arguments: argparse.Namespace) -> int:
    from fbnetv3.arch import count_cost, get_arch
    from fbnetv3.weights.errors import RecordError
    from fbnetv3.zoo import api

    names = api.list_models(arguments.pattern, pretrained=arguments.pretrained)
    if not names:
        raise RecordError(f"no model matches {arguments.pattern!r}; try 'fbnetv3*'")
    if arguments.pretrained:
        return _list_weights(names)
    rows = []
    for arch in map(get_arch, names):
        cost = count_cost(arch)
        macs, params = f"{cost.macs / 1e6:.1f}M", f"{cost.params / 1e6:.2f}M"
        rows.append([arch.name, macs, params, str(arch.resolution)])
    _print("models", ["name", "MACs", "params", "resolution"], rows)
    return 0


def _list_weights(names: Sequence[str]) -> int:
    from fbnetv3.weights.detector_records import is_detector_name

    rows = [_detector_row(name) if is_detector_name(name) else _weight_row(name) for name in names]
    columns = ["name.tag", "resolution", "score", "downloaded", "licence", "recipe"]
    _print("weights", columns, rows)
    return 0


def _weight_row(name: str) -> list[str]:
    from fbnetv3.weights import download
    from fbnetv3.weights.records import find_record

    record = find_record(name)
    top1 = record.metrics.get("top1")
    accuracy = f"top-1 {top1.value:.2f} ({top1.source})" if top1 else "-"
    downloaded = _yes_or_no(download.local_path(record).is_file())
    recipe = record.recipe or "-"
    return [record.full_name, str(record.resolution), accuracy, downloaded, record.licence, recipe]


def _detector_row(name: str) -> list[str]:
    from fbnetv3.weights import detector_records

    record = detector_records.find_detector(name)
    ap = record.metrics["AP"]
    downloaded = _yes_or_no(detector_records.packaged_file(record).is_file())
    score = f"AP {ap.value:.2f} ({ap.source})"
    return [record.name, "-", score, downloaded, record.licence, "-"]


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def _verify(arguments: argparse.Namespace) -> int:
    from fbnetv3.zoo.verification import FAILED, OK, SKIPPED, verify

    rows = verify(arguments.pattern, data=arguments.data)
    _print(
        "verification",
        ["name.tag", "check", "status", "detail"],
        [[row.name, row.check, row.status, row.detail] for row in rows],
    )
    count = {status: sum(row.status == status for row in rows) for status in (OK, FAILED, SKIPPED)}
    print(", ".join(f"{n} {status}" for status, n in count.items()))
    return 1 if count[FAILED] else 0


def _table(arguments: argparse.Namespace) -> int:
    from fbnetv3.zoo import table

    text, path = table.model_zoo_table(), arguments.output
    if arguments.check:
        is_current = path.is_file() and path.read_text("utf-8") == text
        print(f"{path} is {'up to date' if is_current else 'out of date: run fbnetv3-zoo table'}")
        return 0 if is_current else 1
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")
    print(f"wrote {path}")
    return 0


def _download(arguments: argparse.Namespace) -> int:
    from fbnetv3.weights import detector_records, download
    from fbnetv3.weights.records import find_record

    for name in arguments.names:
        if detector_records.is_detector_name(name):
            print(f"{name}: {detector_records.checked_file(detector_records.find_detector(name))}")
            continue
        record = find_record(name)
        print(f"{record.full_name}: {download.fetch(record)}")
    return 0


def _add(arguments: argparse.Namespace) -> int:
    from fbnetv3.weights.errors import RecordError
    from fbnetv3.zoo import adding

    name, _, tag = arguments.name.partition(".")
    if not tag:
        raise RecordError(f"{arguments.name!r} has no tag; use NAME.TAG, such as fbnetv3_a0.digits")
    fields = {k: getattr(arguments, k) for k in ("variant", "width", "depth", "dataset", "note")}
    if arguments.top1 is not None:
        fields["metrics"] = {"top1": {"value": arguments.top1, "source": "measured"}}
    fields |= {"name": name, "tag": tag}
    print(adding.add_weights(arguments.file, half=arguments.half, **fields), end="")
    return 0


def _scale(arguments: argparse.Namespace) -> int:
    from fbnetv3.zoo.scaling import scale_config

    sizes = {key: getattr(arguments, key) for key in ("macs", "width", "depth", "resolution")}
    scaled = scale_config(arguments.config, **sizes, output=arguments.output, opts=arguments.opts)
    for label, cost in (("from", scaled.base_cost), ("to", scaled.cost)):
        print(f"{label}: {cost.macs / 1e6:.1f}M MACs, {cost.params / 1e6:.2f}M params")
    print(f"{scaled.path}: {scaled.arch.resolution} px; train it with:")
    print(f"  fbnetv3-train --config-file {shlex.quote(str(scaled.path))} --resume")
    return 0


def _runs(arguments: argparse.Namespace) -> int:
    from fbnetv3.zoo.runs import read_run

    rows = [
        [
            run.name,
            f"{run.macs / 1e6:.1f}M",
            f"{run.params / 1e6:.2f}M",
            str(run.resolution),
            *("-" if top1 is None else f"{top1:.2f}" for top1 in (run.top1_ema, run.top1)),
        ]
        for run in map(read_run, arguments.folders)
    ]
    columns = ["run", "MACs", "params", "resolution", "top-1 EMA (%)", "top-1 (%)"]
    _print("trainings", columns, rows)
    return 0


def _card(arguments: argparse.Namespace) -> int:
    from fbnetv3.zoo.repositories import write_repository

    output = arguments.output or arguments.run / "hub"
    write_repository(arguments.run, output, name=arguments.name, licence=arguments.licence)
    place = arguments.name if arguments.name and "/" in arguments.name else "OWNER/NAME"
    print(f"wrote {output}; read {output / 'README.md'}, then upload it with:")
    print(f"  hf upload {shlex.quote(place)} {shlex.quote(str(output))}")
    return 0


def _plot(arguments: argparse.Namespace) -> int:
    from fbnetv3.zoo import points
    from fbnetv3.zoo.plot import draw_points

    found = points.zoo_points(arguments.data)
    if arguments.data == points.IMAGENET:
        found += points.peers()
    runs = [points.run_point(folder, arguments.data) for folder in arguments.runs]
    for warning in points.warnings(runs, arguments.data):
        print(warning, file=sys.stderr)
    found += runs
    found += [point for path in arguments.csv for point in points.csv_points(path)]
    if arguments.latencies:
        found = points.with_latencies(found, arguments.latencies)
    draw_points(found, arguments.output, arguments.data)
    print(f"{arguments.output}: {len(found)} networks")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0, or 1 if a check failed."""
    arguments = parse(argv)
    import_code(arguments)
    return _COMMANDS[arguments.command](arguments)


_COMMANDS = {
    "list": _list,
    "verify": _verify,
    "table": _table,
    "download": _download,
    "add": _add,
    "scale": _scale,
    "plot": _plot,
    "runs": _runs,
    "card": _card,
}


def cli() -> None:
    """Entry point of the console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    cli()
