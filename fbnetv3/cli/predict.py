"""``fbnetv3-predict``: prints the likeliest classes of images, with scores."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from fbnetv3.cli import run_main
from fbnetv3.data import DataError
from fbnetv3.data.decode import IMAGE_SUFFIXES, decode_rgb
from fbnetv3.errors import FBNetError
from fbnetv3.zoo.classifier import Classifier, from_file, from_zoo

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
    if arguments.weights is not None:
        return from_file(arguments.weights, arguments.model)
    return from_zoo(arguments.model)


def _to_device(classifier: Classifier, device: str | None) -> None:
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        classifier.model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PredictError(f"cannot use device {device!r}: {reason}; try --device cpu") from error


def lines(classifier: Classifier, images: Iterable[Path], topk: int) -> Iterator[str]:
    """Yields the lines that are printed.

    Raises:
        DataError: a file is not an image that can be read.
    """
    for path in images:
        try:
            image = decode_rgb(path.read_bytes(), str(path), "replace or leave out the file")
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        yield str(path)
        for name, score in classifier.top(image, topk):
            yield f"  {100 * score:6.2f}%  {name}"


def main(argv: Sequence[str] | None = None) -> int:
    """Predicts; returns the exit status."""
    arguments = parse(argv)
    images = find_images(arguments.images)
    classifier = load(arguments)
    _to_device(classifier, arguments.device)
    for line in lines(classifier, images, arguments.topk):
        print(line, flush=True)
    return 0


def cli() -> None:
    """Entry point of the console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    cli()
