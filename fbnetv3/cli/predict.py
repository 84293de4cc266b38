"""Prints the likeliest classes of images, with scores; a detector prints and draws boxes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3.cli import printable, run_main
from fbnetv3.errors import FBNetError, first_line
from fbnetv3.io import atomic_write
from fbnetv3.requires import require_detectron2

# torch is imported where it is needed: --help and a mistyped option are answered at once
if TYPE_CHECKING:
    from PIL import Image

    from fbnetv3.detection.detector import Detector
    from fbnetv3.zoo.classifier import Classifier

_EPILOG = """\
examples:
  %(prog)s photo.jpg --model fbnetv3_g
  %(prog)s folder/ --weights output/digits/model_ema.safetensors --topk 1
"""


class PredictError(FBNetError):
    """There is nothing to predict, or nothing to predict with."""


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="fbnetv3-predict",
        description="Print the likeliest classes of images, with scores.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="file or folder")
    parser.add_argument("--model", metavar="NAME[.TAG]", help="zoo weights, as in fbnetv3_g")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint or .safetensors")
    parser.add_argument("--topk", type=_positive, default=5, help="classes an image (5)")
    add = parser.add_argument
    add("--threshold", type=float, default=0.3, help="lowest score of a detector's boxes (0.3)")
    add("--output", type=Path, help="folder of the images with boxes (output/predictions)")
    parser.add_argument("--device", help="as in cpu, cuda (default: cuda where there is one)")
    arguments = parser.parse_args(argv)
    if arguments.model is None and arguments.weights is None:
        parser.error("give --model NAME[.TAG], --weights FILE, or both")
    return arguments


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Returns the files that paths name; of folders, the images in them, sorted.

    Raises:
        PredictError: a path does not exist, or a folder holds no image.
    """
    from fbnetv3.data.decode import IMAGE_SUFFIXES

    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise PredictError(f"no such image or folder: {path}")
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        images = [f for f in files if f == path or f.suffix.lower() in IMAGE_SUFFIXES]
        if not images:
            raise PredictError(
                f"no images in {path}; looked for {' '.join(sorted(IMAGE_SUFFIXES))}"
            )
        found += images
    return found


def load(arguments: argparse.Namespace) -> Classifier:
    """Makes the classifier that the command line asks for."""
    from fbnetv3.zoo.classifier import from_file, from_zoo

    if arguments.weights is not None:
        return from_file(arguments.weights, arguments.model)
    return from_zoo(arguments.model)


def _to_device(classifier: Classifier | Detector, device: str | None) -> None:
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        classifier.model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise PredictError(f"cannot use device {device!r}: {reason}; try --device cpu") from error


def lines(classifier: Classifier, images: Iterable[Path], topk: int) -> Iterator[str]:
    """Yields the lines that are printed.

    Raises:
        DataError: a file is not an image that can be read.
    """
    for path in images:
        image = _read(path)
        yield str(path)
        for name, score in classifier.top(image, topk):
            yield f"  {100 * score:6.2f}%  {name}"


def load_detector(arguments: argparse.Namespace) -> Detector | None:
    """Makes the detector that the command line asks for; None where it asks for a classifier."""
    from fbnetv3.weights.detector_records import is_detector_name
    from fbnetv3.weights.files import read_tensors

    of_zoo = arguments.weights is None and is_detector_name(arguments.model)
    of_file = arguments.weights is not None and arguments.model is None
    if not of_zoo and not (of_file and read_tensors(arguments.weights)[1].get("task")):
        return None
    require_detectron2()
    from fbnetv3.detection.detector import detector_from_file
    from fbnetv3.zoo.detectors import get_detector

    return get_detector(arguments.model) if of_zoo else detector_from_file(arguments.weights)


def boxes(
    detector: Detector, images: Iterable[Path], threshold: float, folder: Path
) -> Iterator[str]:
    """Yields the lines that are printed, and writes each image with its boxes as PNG.

    Raises:
        DataError: a file is not an image that can be read.
        WriteError: the folder can't be written.
    """
    for number, path in enumerate(images):
        image = _read(path)
        found = detector.detect(image, threshold)
        target = folder / f"{number:04d}_{path.stem}.png"
        with atomic_write(target) as temporary:
            detector.draw(image, found).save(temporary, "PNG")
        yield f"{path} -> {target}"
        for item in found:
            corners = " ".join(f"{value:7.1f}" for value in item.box)
            yield f"  {100 * item.score:6.2f}%  {corners}  {item.name}"


def _read(path: Path) -> Image.Image:
    from fbnetv3.data import DataError
    from fbnetv3.data.decode import decode_rgb, read_image_file

    try:
        return decode_rgb(read_image_file(path), str(path), "replace or leave out the file")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Predicts; returns the exit status."""
    arguments = parse(argv)
    images = find_images(arguments.images)
    detector = load_detector(arguments)
    if detector is not None:
        _to_device(detector, arguments.device)
        folder = arguments.output or Path("output/predictions")
        printed = boxes(detector, images, arguments.threshold, folder)
    else:
        classifier = load(arguments)
        _to_device(classifier, arguments.device)
        printed = lines(classifier, images, arguments.topk)
    for line in printed:
        print(printable(line), flush=True)
    return 0


def cli() -> None:
    """Entry point of the console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    cli()
