"""``fbnetv3-predict``: prints the classes of images, or the boxes that a detector finds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3.cli import run_main
from fbnetv3.errors import FBNetError, first_line, one_line
from fbnetv3.io import atomic_write
from fbnetv3.requires import require_detectron2

# torch is imported where it is needed: --help and a mistyped option are answered at once
if TYPE_CHECKING:
    from PIL import Image

    from fbnetv3.detection.detector import Detector
    from fbnetv3.zoo.classifier import Classifier

_DESCRIPTION = """\
Print the most probable classes of images. A detector prints the boxes that it finds, and writes
each image with its boxes drawn.
"""
_EPILOG = """\
examples:
  %(prog)s photo.jpg --model fbnetv3_g
  %(prog)s photo.jpg --model retinanet_fbnetv3_a0.bccd --threshold 0.5
  %(prog)s folder/ --weights output/digits/model_ema.safetensors --topk 1
"""


class PredictError(FBNetError):
    """The images or the device cannot be used."""


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, not {text!r}")
    return int(text)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="fbnetv3-predict",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="image file, or folder of images")
    add("--model", metavar="NAME[.TAG]", help="weights of the zoo (fbnetv3-zoo list --pretrained)")
    weights = "checkpoint or exported weights; add --model if they do not name their architecture"
    add("--weights", type=Path, metavar="FILE", help=weights)
    topk = "number of classes to print for an image (default: 5)"
    add("--topk", type=_positive, default=5, metavar="N", help=topk)
    threshold = "minimum score of the boxes to show, in [0, 1] (default: 0.3)"
    add("--threshold", type=float, default=0.3, metavar="SCORE", help=threshold)
    output = "folder for the images with drawn boxes (default: output/predictions)"
    add("--output", type=Path, default=Path("output/predictions"), metavar="DIR", help=output)
    device = "PyTorch device, such as cpu or cuda (default: cuda if available, else cpu)"
    add("--device", metavar="DEVICE", help=device)
    arguments = parser.parse_args(argv)
    if arguments.model is None and arguments.weights is None:
        parser.error("one of --model NAME[.TAG] and --weights FILE is required")
    return arguments


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Lists image files.

    Args:
        paths: Files, which are listed as they are, and folders, whose images are listed in
            alphabetical order, with those of subfolders.

    Raises:
        PredictError: A path does not exist, or a folder contains no image.
    """
    from fbnetv3.data.decode import IMAGE_SUFFIXES

    images: list[Path] = []
    for path in paths:
        if not path.exists():
            raise PredictError(f"no such image or folder: {path}")
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        new = [file for file in files if file == path or file.suffix.lower() in IMAGE_SUFFIXES]
        if not new:
            suffixes = " ".join(sorted(IMAGE_SUFFIXES))
            raise PredictError(f"no images in {path}; files with these suffixes count: {suffixes}")
        images += new
    return images


def load_classifier(arguments: argparse.Namespace) -> Classifier:
    """Builds the classifier that the command line names."""
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


def classify(classifier: Classifier, images: Iterable[Path], topk: int) -> Iterator[str]:
    """Yields the lines to print: each image, then its most probable classes.

    Args:
        classifier: Classifier on its device.
        images: Image files.
        topk: Number of classes per image.

    Raises:
        DataError: A file cannot be read as an image.
    """
    for path in images:
        image = _read(path)
        yield str(path)
        for name, score in classifier.top(image, topk):
            yield f"  {100 * score:6.2f}%  {name}"


def load_detector(arguments: argparse.Namespace) -> Detector | None:
    """Builds the detector that the command line names; None if it names a classifier."""
    from fbnetv3.weights.detector_records import is_detector_name
    from fbnetv3.weights.files import read_tensors

    from_zoo = arguments.weights is None and is_detector_name(arguments.model)
    bare_file = arguments.weights is not None and arguments.model is None
    if not from_zoo and not (bare_file and read_tensors(arguments.weights)[1].get("task")):
        return None
    require_detectron2()
    from fbnetv3.detection.detector import detector_from_file
    from fbnetv3.zoo.detectors import get_detector

    return get_detector(arguments.model) if from_zoo else detector_from_file(arguments.weights)


def detect(
    detector: Detector, images: Iterable[Path], threshold: float, folder: Path
) -> Iterator[str]:
    """Yields the lines to print, and writes each image with its boxes as PNG.

    Args:
        detector: Detector on its device.
        images: Image files.
        threshold: Minimum score of the boxes, in [0, 1].
        folder: Folder for the images with boxes.

    Raises:
        DataError: A file cannot be read as an image.
        WriteError: The folder cannot be written.
    """
    for number, path in enumerate(images):
        image = _read(path)
        detections = detector.detect(image, threshold)
        target = folder / f"{number:04d}_{path.stem}.png"
        with atomic_write(target) as temporary:
            detector.draw(image, detections).save(temporary, "PNG")
        yield f"{path} -> {target}"
        for detection in detections:
            corners = " ".join(f"{value:7.1f}" for value in detection.box)
            yield f"  {100 * detection.score:6.2f}%  {corners}  {detection.name}"


def _read(path: Path) -> Image.Image:
    from fbnetv3.data import DataError
    from fbnetv3.data.decode import decode_rgb, read_image_file

    try:
        return decode_rgb(read_image_file(path), str(path), "replace the file or leave it out")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the predictions for the images of the command line.

    Returns:
        The exit status, 0.
    """
    arguments = parse(argv)
    images = find_images(arguments.images)
    detector = load_detector(arguments)
    if detector is not None:
        _to_device(detector, arguments.device)
        lines = detect(detector, images, arguments.threshold, arguments.output)
    else:
        classifier = load_classifier(arguments)
        _to_device(classifier, arguments.device)
        lines = classify(classifier, images, arguments.topk)
    for line in lines:
        print(one_line(line), flush=True)
    return 0


def cli() -> None:
    """Entry point of the console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    cli()
