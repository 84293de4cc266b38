"""``fbnetv3-export``: writes a network as files of other runtimes, and checks those it can run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from fbnetv3.cli import run_main
from fbnetv3.cli.export_detectors import export_detectors, is_detector
from fbnetv3.cli.imports import import_code, import_option
from fbnetv3.cli.option_types import LARGEST_SEED, integer
from fbnetv3.cli.version_option import version_option
from fbnetv3.errors import FBNetError
from fbnetv3.weights.run_folder import weights_in

# torch is imported where it is needed: --help and a mistyped option are answered at once
if TYPE_CHECKING:
    from fbnetv3.export.run import Exported, ExportOptions
    from fbnetv3.zoo.classifier import Classifier

_DESCRIPTION = """\
Write a network in the formats of other runtimes. Each file takes RGB pixels, N x 3 x H x W; mean
and standard deviation are applied inside. A classifier returns logits. A RetinaNet takes one image
of any size and returns boxes, scores and classes. Each file except a Core ML package is run in its
own runtime and compared with PyTorch before the command ends.
"""
_EPILOG = """\
formats: onnx, pt2, torchscript, openvino, executorch, litert, coreml (written anywhere, run on
macOS only); with 8-bit integers, which need --calibration: onnx-int8, openvino-int8,
executorch-int8; of detectors: onnx, onnx-int8, pt2, torchscript

examples:
  %(prog)s --model fbnetv3_a0.cifar10 --format onnx pt2 --output exported
  %(prog)s --weights output/flowers --format onnx-int8 --calibration flowers/train \\
      --data flowers/val --output exported
  %(prog)s --model retinanet_fbnetv3_a0.bccd --format onnx --data bccd_test
"""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="fbnetv3-export",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[import_option(), version_option()],
    )
    add = parser.add_argument
    add("--model", metavar="NAME[.TAG]", help="weights of the zoo (fbnetv3-zoo list --pretrained)")
    weights = (
        "checkpoint, exported weights, or the folder of a finished run; add --model if they do not "
        "name their architecture"
    )
    add("--weights", type=Path, metavar="FILE", help=weights)
    add("--format", nargs="+", required=True, metavar="FORMAT", help="formats, listed below")
    add(
        "--output",
        type=Path,
        default=Path("output/exported"),
        metavar="DIR",
        help="folder of the files (default: output/exported)",
    )
    prefix = "prefix of the files' names (default: name of the model, the weights' file or the run)"
    add("--name", help=prefix)
    pixels = "pixels that the files take: float32 in 0..1, or uint8 in 0..255 (default: float)"
    add("--input", choices=("float", "uint8"), default="float", help=pixels)
    calibration = "training set from which the ranges of 8-bit integers are measured: name or path"
    add("--calibration", metavar="DATASET", help=calibration)
    images = "number of calibration images (default: 512)"
    add("--calibration-images", type=integer(1), default=512, metavar="N", help=images)
    seed = "random seed of the calibration images (default: 0)"
    add("--seed", type=integer(0, LARGEST_SEED), default=0, metavar="N", help=seed)
    add("--data", metavar="DATASET", help="data set on which each file is scored (top-1 or AP)")
    arguments = parser.parse_args(argv)
    if arguments.model is None and arguments.weights is None:
        parser.error("one of --model NAME[.TAG] and --weights FILE is required")
    return arguments


def _options(arguments: argparse.Namespace) -> ExportOptions:
    from fbnetv3.data import build_dataset
    from fbnetv3.export.run import ExportOptions

    calibration, data = (
        None if name is None else build_dataset(name)
        for name in (arguments.calibration, arguments.data)
    )
    return ExportOptions(
        arguments.input, calibration, arguments.calibration_images, data, arguments.seed
    )


def _weights(arguments: argparse.Namespace) -> tuple[Path | None, str]:
    """Returns the file of --weights (None: not given) and the default name of exported files."""
    path: Path | None = arguments.weights
    if path is None:
        return None, str(arguments.model)
    if not path.exists():
        raise FBNetError(f"cannot read weights {path}: there is no such file; check the path")
    stem = path.resolve().name if path.is_dir() else path.stem
    return weights_in(path) if path.is_dir() else path, stem


def _classifier(model: str | None, weights: Path | None) -> Classifier:
    from fbnetv3.zoo.classifier import from_file, from_zoo

    if weights is not None:
        return from_file(weights, model)
    assert model is not None  # parse() asks for one of them
    return from_zoo(model)


def _row(exported: Exported, *, is_scored: bool) -> tuple[str, ...]:
    def text(value: float | None, form: str) -> str:
        return "not run here" if value is None else format(value, form)

    top1 = "" if exported.top1 is None else f"{exported.top1:.2f}"
    cells = (
        exported.format,
        str(exported.path),
        f"{exported.megabytes:.2f}",
        text(exported.difference, ".2g"),
        text(exported.milliseconds, ".2f"),
    )
    return (*cells, top1) if is_scored else cells


def main(argv: Sequence[str] | None = None) -> int:
    """Exports, prints a table of the files, and returns the exit status, 0.

    Raises:
        FBNetError: The network, a format or the data cannot be used, or a file does not compute
            what PyTorch computes.
    """
    arguments = parse(argv)
    import_code(arguments)
    from fbnetv3.export.run import check_formats, export_classifier

    weights, name = _weights(arguments)
    if is_detector(arguments.model, weights):
        return export_detectors(arguments, weights, name)
    options = _options(arguments)
    formats = check_formats(arguments.format, options)
    classifier = _classifier(arguments.model, weights)
    name = classifier.source if weights is None else name
    scores = ["top-1"] if arguments.data else []
    table = Table("format", "file", "MB", "difference", "ms", *scores, box=None)
    for column in table.columns[2:]:
        column.justify = "right"
    folder, name = arguments.output, arguments.name or name
    for exported in export_classifier(classifier, formats, folder, name, options):
        print(f"{exported.path}: checked", file=sys.stderr, flush=True)
        table.add_row(*_row(exported, is_scored=bool(scores)))
    Console(width=200, soft_wrap=True).print(table)
    return 0


def cli() -> None:
    """Entry point of the console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    cli()
