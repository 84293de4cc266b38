"""``fbnetv3-evaluate``: tables, pictures and scores of a network on a data set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from fbnetv3.cli import printable, run_main
from fbnetv3.cli.effects import given_without_effect, no_effect
from fbnetv3.cli.imports import import_code, import_option
from fbnetv3.cli.option_types import integer, share
from fbnetv3.cli.version_option import version_option
from fbnetv3.evaluation.errors import EvaluationError
from fbnetv3.io import check_writable
from fbnetv3.predictions.networks import check_source, load_network
from fbnetv3.requires import require_installed

# torch, whose import takes seconds, is imported only where it is needed, so that mistyped options
# and paths are reported at once
if TYPE_CHECKING:
    from fbnetv3.evaluation.run import EvaluateOptions

AUGMENTATIONS = ("flip", "scales", "crops")
# options that have an effect, by the kind of the network
_SOURCE = {"model", "weights", "data", "output", "imports"}
_BOTH = _SOURCE | {"worst", "skip_broken", "device", "batch_size"}
_OPTIONS = {
    "a classifier": _BOTH | {"tta", "bins", "ignore_class_names"},
    "a detector": _BOTH | {"images", "threshold", "tta"},  # tta: an error of its own
}
_DESCRIPTION = """\
Evaluate a classifier or a detector on a data set, and write what explains its score.

Classifiers: confusion_matrix.csv and .png (if images have one class each), per_class.csv
(precision, recall, F1), calibration.csv and reliability.png, predictions.csv and worst.png (the
images with the highest loss).
Detectors: ap_per_class.csv, precision_recall.csv and .png, images.csv and worst.png (the images
with the most missed and wrong boxes), results.json (COCO results). Both: scores.json.
"""
_EPILOG = """\
examples:
  %(prog)s --model fbnetv3_a0.cifar10 --data cifar10_test --output report
  %(prog)s --weights output/flowers --data flowers/val --tta flip --output report
  %(prog)s --model retinanet_fbnetv3_a0.bccd --data bccd_test --output report
  %(prog)s --weights output/cells --data cells/val.json --images cells/images --output report
"""


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="fbnetv3-evaluate",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[import_option(), version_option()],
    )
    _source_arguments(parser)
    _option_arguments(parser)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.model is None and arguments.weights is None:
        parser.error("one of --model NAME[.TAG] and --weights FILE is required")
    return arguments


def _source_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", metavar="NAME[.TAG]", help="weights of the zoo (fbnetv3-zoo list --pretrained)")
    weights = (
        "checkpoint, exported weights, or the folder of a finished run; add --model if they do not "
        "name their architecture"
    )
    add("--weights", type=Path, metavar="FILE", help=weights)
    data = "data set: a name or a path as in DATASETS.TEST; for a detector also a COCO json"
    add("--data", required=True, metavar="DATASET", help=data)
    images = (
        "folder of the images of a COCO json (default: a folder named images beside the json or "
        "one level above, else the folder that contains the json)"
    )
    add("--images", type=Path, metavar="DIR", help=images)
    output = "folder of the files (default: output/evaluation)"
    add("--output", type=Path, default=Path("output/evaluation"), metavar="DIR", help=output)


def _option_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    tta = (
        "also score a classifier by the mean probability over views of an image: flip (mirrored), "
        "scales (1 and 1.25 times the resolution), crops (four corners and the centre); the "
        "tables and pictures are those of the image alone"
    )
    add("--tta", nargs="+", choices=AUGMENTATIONS, default=[], help=tta)
    bins = "bins of the calibration, of equal width (default: 15)"
    add("--bins", type=integer(1), default=15, metavar="N", help=bins)
    worst = "images in worst.png; 0 writes none (default: 24, for a detector 8)"
    add("--worst", type=integer(0), metavar="N", help=worst)
    threshold = (
        "minimum score of the boxes from which missed and wrong boxes are counted (default: 0.3); "
        "average precisions use all boxes"
    )
    add("--threshold", type=share, default=0.3, metavar="SCORE", help=threshold)
    skip = "leave out images that cannot be read, instead of refusing the data"
    add("--skip-broken", action="store_true", help=skip)
    names = "compare only the number of a classifier's classes with that of the data"
    add("--ignore-class-names", action="store_true", help=names)
    device = "PyTorch device, such as cpu or cuda (default: cuda if available, else cpu)"
    add("--device", metavar="DEVICE", help=device)
    batch = "images that are run together (default: 32, for a detector 8)"
    add("--batch-size", type=integer(1), metavar="N", help=batch)


def _check_effects(arguments: argparse.Namespace, is_detector: bool) -> None:
    """Refuses options that differ from their default but have no effect.

    Raises:
        EvaluationError: An option has no effect with this kind of network.
    """
    kind = "a detector" if is_detector else "a classifier"
    name = given_without_effect(make_parser(), arguments, _OPTIONS[kind])
    if name is not None:
        raise EvaluationError(no_effect(name, kind))


def _options(arguments: argparse.Namespace) -> EvaluateOptions:
    from fbnetv3.evaluation.run import EvaluateOptions

    return EvaluateOptions(
        batch_size=arguments.batch_size,
        augmentations=tuple(dict.fromkeys(arguments.tta)),
        bins=arguments.bins,
        worst=arguments.worst,
        threshold=arguments.threshold,
        images=arguments.images,
        skip_broken=arguments.skip_broken,
        ignore_class_names=arguments.ignore_class_names,
    )


def _score_lines(scores: dict[str, object]) -> list[str]:
    lines = []
    for name, value in scores.items():
        if isinstance(value, dict):
            lines += [f"{name}/{line}" for line in _score_lines(value)]
        elif isinstance(value, float):
            unit = "" if name == "loss" else "%"
            lines.append(f"{name}: {value:.{4 if name == 'loss' else 2}f}{unit}")
        elif not isinstance(value, list):
            lines.append(f"{name}: {value}")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates, prints the scores and the files, and returns the exit status, 0.

    Raises:
        FBNetError: The weights, the data or an option cannot be used.
    """
    arguments = parse(argv)
    import_code(arguments)
    require_installed("matplotlib", "report")
    arguments.weights = check_source(arguments.model, arguments.weights)
    check_writable(arguments.output / "scores.json")
    from fbnetv3.evaluation.run import evaluate_network, open_data
    from fbnetv3.zoo.classifier import Classifier

    options = _options(arguments)
    network = load_network(arguments.model, arguments.weights, arguments.device)
    _check_effects(arguments, not isinstance(network, Classifier))
    data = open_data(network, arguments.data, options)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("evaluating", total=len(data))
        report = evaluate_network(
            network, data, arguments.output, options, lambda count: progress.advance(task, count)
        )
    for line in [*_score_lines(report.scores), *report.remarks]:
        print(printable(line))
    for file in report.files:
        print(printable(f"wrote {file}"))
    return 0


def cli() -> None:
    """Entry point of the console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    cli()
