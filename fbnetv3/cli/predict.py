"""``fbnetv3-predict``: prints the classes of images, or the boxes that a detector finds."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3.cli import run_main
from fbnetv3.cli.imports import import_code, import_option
from fbnetv3.errors import FBNetError, first_line, one_line
from fbnetv3.image_files import IMAGE_SUFFIXES, count_suffixes, list_folder
from fbnetv3.io import atomic_write
from fbnetv3.requires import require_detectron2
from fbnetv3.weights.run_folder import weights_in

# torch is imported where it is needed: --help and a mistyped option are answered at once
if TYPE_CHECKING:
    from PIL import Image

    from fbnetv3.detection.detector import Detection, Detector
    from fbnetv3.zoo.classifier import Classifier

_DESCRIPTION = """\
Print the most probable classes of images. A detector prints the boxes that it finds, and writes
each image with its boxes drawn.
"""
_EPILOG = """\
examples:
  %(prog)s photo.jpg --model fbnetv3_g
  %(prog)s photo.jpg --model retinanet_fbnetv3_a0.bccd --threshold 0.5
  %(prog)s folder/ --weights output/digits --topk 1 --json > predictions.jsonl
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
        parents=[import_option()],
    )
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="image file, or folder of images")
    add("--model", metavar="NAME[.TAG]", help="weights of the zoo (fbnetv3-zoo list --pretrained)")
    weights = (
        "checkpoint, exported weights, or the folder of a finished run; add --model if they do not "
        "name their architecture"
    )
    add("--weights", type=Path, metavar="FILE", help=weights)
    topk = "number of classes to print for an image (default: 5)"
    add("--topk", type=_positive, default=5, metavar="N", help=topk)
    threshold = "minimum score of the boxes to show, in [0, 1] (default: 0.3)"
    add("--threshold", type=float, default=0.3, metavar="SCORE", help=threshold)
    output = "folder for the images with drawn boxes (default: output/predictions)"
    add("--output", type=Path, default=Path("output/predictions"), metavar="DIR", help=output)
    lines = "print one JSON object per image and line, with its classes or boxes"
    add("--json", action="store_true", help=lines)
    device = "PyTorch device, such as cpu or cuda (default: cuda if available, else cpu)"
    add("--device", metavar="DEVICE", help=device)
    arguments = parser.parse_args(argv)
    if arguments.model is None and arguments.weights is None:
        parser.error("one of --model NAME[.TAG] and --weights FILE is required")
    return arguments


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Lists image files.

    Files in a folder that are not images are left out, with a note on standard error.

    Args:
        paths: Files, which are listed as they are, and folders, whose images are listed in
            alphabetical order, with those of subfolders. As in data sets, links are followed, and
            hidden files and folders are passed over.

    Raises:
        PredictError: A path does not exist or cannot be read, or a folder contains no image.
    """
    images: list[Path] = []
    for path in paths:
        try:
            path.stat()
            images += _images_of_folder(path) if path.is_dir() else [path]
        except FileNotFoundError:
            raise PredictError(f"no such image or folder: {path}") from None
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            reason = getattr(error, "strerror", None) or str(error)
            raise PredictError(f"cannot read {path}: {reason}; check the path") from error
    return images


def _images_of_folder(folder: Path) -> list[Path]:
    listing = list_folder(folder)
    others = count_suffixes(listing.others)
    if not listing.images:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        there = f"; there are other files ({others})" if others else ""
        raise PredictError(
            f"no images in {folder}; files with these suffixes count: {suffixes}{there}"
        )
    if others:
        note = f"{folder}: files without the suffix of an image: {others}"
        print(one_line(note), file=sys.stderr)
    return sorted(folder / name for name in listing.images)


def find_weights(path: Path) -> Path:
    """Returns the path itself if it is a file, or the weights of the run if it is a run's folder.

    Raises:
        FBNetError: The path does not exist, or the folder has no weights.
    """
    if not path.exists():
        raise PredictError(f"cannot read weights {path}: No such file or directory; check the path")
    return weights_in(path) if path.is_dir() else path


def load_classifier(arguments: argparse.Namespace) -> Classifier:
    """Builds the classifier that the command line asks for."""
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


def classify(
    classifier: Classifier, images: Sequence[Path], topk: int, *, as_json: bool = False
) -> Iterator[str]:
    """Yields the lines to print: each image, then its most probable classes.

    Args:
        classifier: Classifier on its device.
        images: Image files.
        topk: Number of classes per image.
        as_json: Whether to yield one JSON object per image instead.

    Raises:
        DataError: Files cannot be read as images; raised after the lines of all readable images.
    """

    def lines(number: int, image: Image.Image) -> Iterator[str]:
        classes = classifier.top(image, topk)
        if as_json:
            named = [{"name": name, "score": score} for name, score in classes]
            yield json.dumps({"image": str(images[number]), "classes": named})
            return
        yield str(images[number])
        for name, score in classes:
            yield f"  {100 * score:6.2f}%  {name}"

    return _lines_of_all(images, lines)


def _lines_of_all(
    images: Sequence[Path], lines: Callable[[int, Image.Image], Iterator[str]]
) -> Iterator[str]:
    """Yields the lines of each readable image, then raises one error about the other images."""
    from fbnetv3.data import DataError, read_image
    from fbnetv3.data.errors import all_problems

    problems: list[str] = []
    for number, path in enumerate(images):
        try:
            image = read_image(path)
        except DataError as error:
            problems.append(str(error))
            continue
        yield from lines(number, image)
    if problems:
        raise DataError(all_problems(problems))


def load_detector(arguments: argparse.Namespace) -> Detector | None:
    """Builds the detector that the command line asks for; None if it asks for a classifier."""
    from fbnetv3.weights.detector_records import is_detector_name
    from fbnetv3.weights.load import read_weights

    from_zoo = arguments.weights is None
    if not (
        is_detector_name(arguments.model)
        if from_zoo
        else read_weights(arguments.weights).is_detector
    ):
        return None
    if not from_zoo and arguments.model is not None:
        raise PredictError(
            f"--model {arguments.model} does not apply: {arguments.weights} holds a detector with "
            "its config; leave out --model"
        )
    require_detectron2()
    from fbnetv3.detection.detector import detector_from_file
    from fbnetv3.zoo.detectors import get_detector

    return get_detector(arguments.model) if from_zoo else detector_from_file(arguments.weights)


def detect(
    detector: Detector,
    images: Sequence[Path],
    threshold: float,
    folder: Path,
    *,
    as_json: bool = False,
) -> Iterator[str]:
    """Yields the lines to print, and writes each image with its boxes as PNG.

    Args:
        detector: Detector on its device.
        images: Image files.
        threshold: Minimum score of the boxes, in [0, 1].
        folder: Folder for the images with boxes.
        as_json: Whether to yield one JSON object per image instead. A box is [x0, y0, x1, y1] in
            pixels of the image after its EXIF orientation was applied.

    Raises:
        DataError: Files cannot be read as images; raised after the lines of all readable images.
        WriteError: The folder cannot be written.
    """

    def lines(number: int, image: Image.Image) -> Iterator[str]:
        detections = detector.detect(image, threshold)
        target = folder / f"{number:04d}_{images[number].stem}.png"
        with atomic_write(target) as temporary:
            detector.draw(image, detections).save(temporary, "PNG")
        if as_json:
            boxes = [_box(detection) for detection in detections]
            yield json.dumps({"image": str(images[number]), "drawn": str(target), "boxes": boxes})
            return
        yield f"{images[number]} -> {target}"
        for detection in detections:
            corners = " ".join(f"{value:7.1f}" for value in detection.box)
            yield f"  {100 * detection.score:6.2f}%  {corners}  {detection.name}"

    return _lines_of_all(images, lines)


def _box(detection: Detection) -> dict[str, Any]:
    box = [float(value) for value in detection.box]
    return {"name": detection.name, "score": float(detection.score), "box": box}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the predictions for the images of the command line.

    Returns:
        The exit status, 0.

    Raises:
        FBNetError: The images or weights cannot be used, or some of the images cannot be read.
    """
    arguments = parse(argv)
    import_code(arguments)
    images = find_images(arguments.images)
    if arguments.weights is not None:
        arguments.weights = find_weights(arguments.weights)
    detector = load_detector(arguments)
    if detector is not None:
        _to_device(detector, arguments.device)
        threshold, folder = arguments.threshold, arguments.output
        lines = detect(detector, images, threshold, folder, as_json=arguments.json)
    else:
        classifier = load_classifier(arguments)
        _to_device(classifier, arguments.device)
        lines = classify(classifier, images, arguments.topk, as_json=arguments.json)
    for line in lines:
        print(line if arguments.json else one_line(line), flush=True)
    return 0


def cli() -> None:
    """Entry point of the console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    cli()
