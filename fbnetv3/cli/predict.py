"""``fbnetv3-predict``: the classes of images, or the boxes that a detector finds."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from fbnetv3._deprecation import warn_deprecated
from fbnetv3.cli import run_main
from fbnetv3.cli.effects import given_without_effect, no_effect
from fbnetv3.cli.imports import import_code, import_option
from fbnetv3.cli.option_types import integer, share
from fbnetv3.cli.version_option import version_option
from fbnetv3.errors import one_line
from fbnetv3.io import check_writable
from fbnetv3.predictions.annotations import CocoIds, read_ids
from fbnetv3.predictions.errors import PredictError
from fbnetv3.predictions.inputs import ImageFile, find_images
from fbnetv3.predictions.networks import check_source, load_network
from fbnetv3.requires import require_installed

# torch is imported where it is needed: a mistyped option or path is answered at once
if TYPE_CHECKING:
    from fbnetv3.predictions.batches import Prediction
    from fbnetv3.predictions.run import PredictOptions

_FORMATS = (".csv", ".json")
_PICTURES = Path("output/predictions")
_THRESHOLD = 0.3
# options that have an effect, by the kind of the network
_BOTH = {"images", "model", "weights", "device", "batch_size", "output", "json", "imports"}
_OPTIONS = {
    "a classifier": _BOTH | {"top_k", "topk", "explain", "pictures"},
    "a detector": _BOTH | {"threshold", "annotations", "pictures", "explain"},  # explain: an error
}
_DESCRIPTION = """\
Print the most probable classes of images, or the boxes that a detector finds. --output writes
them to a file instead: csv, or json (for a detector, COCO results). Images are read and run in
batches.
"""
_EPILOG = """\
An image that cannot be read is reported in one line; the others are predicted, and the exit
status is 2.

examples:
  %(prog)s photo.jpg --model fbnetv3_g
  %(prog)s photos/ more.zip list.txt --weights output/flowers --top-k 1 --output results.csv
  find . -name '*.jpg' | %(prog)s - --model fbnetv3_g --output results.json
  %(prog)s photo.jpg --model retinanet_fbnetv3_a0.bccd --threshold 0.5 --pictures drawn/
  %(prog)s bccd/images --model retinanet_fbnetv3_a0.bccd --annotations all.json --output boxes.json
"""


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="fbnetv3-predict",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[import_option(), version_option()],
    )
    images = (
        "image file, folder or .zip of images, .txt file with one of these per line (relative to "
        "its folder), or - for such lines from standard input"
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help=images)
    _network_arguments(parser)
    _output_arguments(parser)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.model is None and arguments.weights is None:
        parser.error("one of --model NAME[.TAG] and --weights FILE is required")
    if arguments.topk is not None:
        warn_deprecated("--topk", since="0.2.0", removed_in="0.4.0", instead="--top-k")
        arguments.top_k = arguments.topk
    return arguments


def _network_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", metavar="NAME[.TAG]", help="weights of the zoo (fbnetv3-zoo list --pretrained)")
    weights = (
        "checkpoint, exported weights, or the folder of a finished run; add --model if they do not "
        "name their architecture"
    )
    add("--weights", type=Path, metavar="FILE", help=weights)
    device = "PyTorch device, such as cpu or cuda (default: cuda if available, else cpu)"
    add("--device", metavar="DEVICE", help=device)
    batch = "images that are run together (default: 32, for a detector 8)"
    add("--batch-size", type=integer(1), metavar="N", help=batch)


def _output_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    topk = "number of classes for an image (default: 5)"
    add("--top-k", type=integer(1), default=5, metavar="N", help=topk)
    add("--topk", type=integer(1), help=argparse.SUPPRESS)  # the name in 0.1.0
    threshold = (
        f"minimum score of boxes, from 0 to 1 (default: {_THRESHOLD:g}; 0 for a json of COCO "
        "results, since average precision needs boxes of all scores)"
    )
    add("--threshold", type=share, metavar="SCORE", help=threshold)
    output = "results.csv or results.json to write; a path without suffix is read as --pictures"
    add("--output", type=Path, metavar="FILE", help=output)
    annotations = "COCO json with the ids of images and categories for a json of COCO results"
    add("--annotations", type=Path, metavar="FILE", help=annotations)
    pictures = (
        "folder for the images with drawn boxes, and the pictures of --explain (default: "
        f"{_PICTURES}); with --output, boxes are drawn only if this folder is given"
    )
    add("--pictures", type=Path, metavar="DIR", help=pictures)
    explain = "write class-activation pictures (LayerCAM) of the --top-k classes of a classifier"
    add("--explain", action="store_true", help=explain)
    lines = "print one line per image: a JSON object with its classes or boxes"
    add("--json", action="store_true", help=lines)


def _check(arguments: argparse.Namespace) -> tuple[list[ImageFile], CocoIds | None]:
    """Checks the command line as far as this is possible without torch.

    Returns:
        The images, and the ids in the COCO json of ``--annotations`` (None without this option).

    Raises:
        FBNetError: A file is missing or an option does not fit.
    """
    _split_output(arguments)
    results: Path | None = arguments.output
    if arguments.explain:
        require_installed("pytorch_grad_cam", "explain")
    if arguments.annotations and (results is None or results.suffix.lower() != ".json"):
        raise PredictError(
            "--annotations applies to a json of COCO results; add --output results.json"
        )
    images = find_images(arguments.images)
    arguments.weights = check_source(arguments.model, arguments.weights)
    ids = None
    if arguments.annotations:
        images, ids = read_ids(arguments.annotations, images)
    if results is not None:
        check_writable(results)
    return images, ids


def _split_output(arguments: argparse.Namespace) -> None:
    """Moves the value of --output to --pictures if it is a folder or has no suffix.

    Raises:
        PredictError: The suffix is unknown, or both options name a folder.
    """
    output: Path | None = arguments.output
    if output is None or (output.suffix.lower() in _FORMATS and not output.is_dir()):
        return
    if output.suffix and not output.is_dir():
        raise PredictError(
            f"--output {output}: unknown suffix; allowed: {', '.join(_FORMATS)}, or a folder for "
            "pictures"
        )
    if arguments.pictures is not None:
        raise PredictError(f"--output {output} and --pictures both name a folder; leave out one")
    arguments.output, arguments.pictures = None, output


def _check_effects(arguments: argparse.Namespace, is_detector: bool, folder: Path | None) -> None:
    """Refuses options that differ from their default but have no effect.

    Args:
        arguments: Command line.
        is_detector: Whether the network is a detector.
        folder: Value of --output if it names a folder; None otherwise.

    Raises:
        PredictError: An option has no effect.
    """
    kind = "a detector" if is_detector else "a classifier"
    name = given_without_effect(make_parser(), arguments, _OPTIONS[kind])
    if name == "top_k" and arguments.topk is not None:
        name = "topk"  # as it was given
    if name is not None:
        raise PredictError(no_effect(name, kind))
    if is_detector or arguments.explain or arguments.pictures is None:
        return
    if folder is None:
        raise PredictError(
            "--pictures has no effect with a classifier without --explain; leave it out, or add "
            "--explain"
        )
    raise PredictError(
        f"--output {folder} is read as a folder of pictures, which a classifier writes with "
        "--explain only; give a file such as results.csv or results.json, or add --explain"
    )


def _options(arguments: argparse.Namespace, ids: CocoIds | None) -> PredictOptions:
    from fbnetv3.predictions.run import PredictOptions

    results: Path | None = arguments.output
    threshold = arguments.threshold
    if threshold is None:
        threshold = 0.0 if results and results.suffix.lower() == ".json" else _THRESHOLD
    pictures = arguments.pictures
    if pictures is None and (results is None or arguments.explain):
        pictures = _PICTURES
    return PredictOptions(
        top_k=arguments.top_k,
        threshold=threshold,
        batch_size=arguments.batch_size,
        results=results,
        ids=ids,
        pictures=pictures,
        explain=arguments.explain,
    )


def _json_line(prediction: Prediction, is_detector: bool) -> str:
    from fbnetv3.predictions.outputs import box_record, class_record

    record = (box_record if is_detector else class_record)(prediction)
    drawn = {} if prediction.picture is None else {"drawn": str(prediction.picture)}
    return json.dumps({**record, **drawn})


def _text_lines(prediction: Prediction, threshold: float) -> Iterator[str]:
    arrow = "" if prediction.picture is None else f" -> {prediction.picture}"
    yield f"{prediction.image}{arrow}"
    for name, score in prediction.classes:
        yield f"  {100 * score:6.2f}%  {name}"
    for box in prediction.boxes:
        corners = " ".join(f"{value:7.1f}" for value in box.box)
        yield f"  {100 * box.score:6.2f}%  {corners}  {box.name}"
    if not prediction.classes and not prediction.boxes:
        yield f"  no box with a score of {threshold:g} or more (--threshold)"


def _print_prediction(
    prediction: Prediction, arguments: argparse.Namespace, is_detector: bool
) -> None:
    if prediction.problem:
        print(one_line(f"unreadable: {prediction.problem}"), file=sys.stderr, flush=True)
    elif arguments.json:
        print(_json_line(prediction, is_detector), flush=True)
    elif arguments.output is None:
        threshold = _THRESHOLD if arguments.threshold is None else arguments.threshold
        for line in _text_lines(prediction, threshold):
            print(one_line(line), flush=True)


def _with_progress(
    predictions: Iterator[Prediction], total: int, prints: bool
) -> Iterator[Prediction]:
    """Yields predictions, with a progress bar on standard error if that is a terminal.

    Args:
        predictions: Predictions.
        total: Number of predictions.
        prints: Whether predictions are printed to standard output; if that is a terminal, there is
            no bar.
    """
    console = Console(stderr=True)
    shown = console.is_terminal and total > 1 and not (prints and sys.stdout.isatty())
    # By default, rich redirects printed lines to the bar's console, which is standard error.
    bar = Progress(console=console, transient=True, disable=not shown, redirect_stdout=False)
    with bar as progress:
        yield from progress.track(predictions, total=total, description="predicting")


def main(argv: Sequence[str] | None = None) -> int:
    """Predicts the images of the command line.

    Returns:
        The exit status, 0.

    Raises:
        FBNetError: The options, images or weights cannot be used, the results cannot be written, or
            some of the images cannot be read.
    """
    arguments = parse(argv)
    import_code(arguments)
    output = arguments.output
    images, ids = _check(arguments)
    network = load_network(arguments.model, arguments.weights, arguments.device)
    from fbnetv3.predictions.run import predict
    from fbnetv3.zoo.classifier import Classifier

    is_detector = not isinstance(network, Classifier)
    _check_effects(arguments, is_detector, output if arguments.output is None else None)
    unreadable = 0
    predictions = predict(network, images, _options(arguments, ids))
    prints = arguments.json or arguments.output is None
    for prediction in _with_progress(predictions, len(images), prints):
        _print_prediction(prediction, arguments, is_detector)
        unreadable += bool(prediction.problem)
    if arguments.output is not None:
        count = len(images) - unreadable
        print(one_line(f"{arguments.output}: {count} of {len(images)} images"))
    if unreadable:
        raise PredictError(
            f"{unreadable} of {len(images)} images cannot be read, see the lines above"
        )
    return 0


def cli() -> None:
    """Entry point of the console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    cli()
