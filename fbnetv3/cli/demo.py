"""``make demo``: trains a small FBNetV3 on digits, and classifies images with it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fbnetv3.cli import predict, run_main, train

_CONFIG = "model_zoo/digits.yaml"
_NUM_CLASSES_SHOWN = 5
_PRETRAINED = "fbnetv3_a0.cifar10"


def _write_images(name: str, folder: Path) -> list[str]:
    """Writes the first image of each of the first classes of a data set as ``a_CLASS.png``.

    Args:
        name: Name of the data set.
        folder: Folder for the images.

    Returns:
        The paths of the images.

    Raises:
        DataError: The data set is not found.
    """
    from fbnetv3.data import build_dataset

    dataset = build_dataset(name)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for label in range(_NUM_CLASSES_SHOWN):
        image, _ = dataset.load(list(dataset.targets).index(label))
        path = folder / f"a_{dataset.classes[label]}.png"
        image.save(path)
        paths.append(str(path))
    return paths


def _write_photographs(folder: Path) -> list[str]:
    """Writes scikit-learn's sample photographs and returns their paths."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    folder.mkdir(parents=True, exist_ok=True)
    samples = load_sample_images()
    paths = [folder / Path(name).with_suffix(".png").name for name in samples.filenames]
    for path, pixels in zip(paths, samples.images, strict=True):
        Image.fromarray(pixels).save(path)
    return [str(path) for path in paths]


def show_pretrained(folder: Path) -> None:
    """Prints the predictions of pretrained weights.

    The images are test images of CIFAR-10 if that data set is found, and otherwise scikit-learn's
    sample photographs.

    Args:
        folder: Folder for the images.
    """
    from fbnetv3.data.errors import DataError

    try:
        paths = _write_images("cifar10_test", folder)
        subject, remark = "test images of CIFAR-10", ""
    except DataError:
        paths = _write_photographs(folder)
        subject = "photographs of a temple and a flower"
        remark = (
            "\n(The network knows only the ten classes of CIFAR-10 and picks the most similar one. "
            "To see test\nimages of CIFAR-10, set FBNETV3_DATA to a folder that has cifar10/.)"
        )
    print(f"\nPredictions of {_PRETRAINED} for {subject}:{remark}", flush=True)
    predict.main(["--model", _PRETRAINED, "--topk", "2", *paths])


def _last_scores(path: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return next(line for line in reversed(lines) if "val/top1" in line)


def _summary(folder: Path, seconds: float) -> str:
    """Describes the finished training: its accuracy, its files, and next steps."""
    weights = folder / "model_ema.safetensors"
    scores = _last_scores(folder / "metrics.json")
    return f"""
Trained in {seconds:.0f} s. Top-1 on the 360 held-out images: {scores["val/top1"]:.1f}% with the
raw weights, {scores["val/top1_ema"]:.1f}% with their moving average (EMA).

  {folder}/curves.png               loss, learning rate, accuracy of raw and EMA weights
  {folder}/metrics.json             the same numbers, one JSON object per line
  {weights}    the averaged weights; {folder}/checkpoint_*.pt to resume from

Next steps (first: . .venv/bin/activate):
  python tools/train_net.py --config-file {_CONFIG} SOLVER.MAX_EPOCHS 20 OUTPUT_DIR output/longer
  python tools/train_net.py --config-file {_CONFIG} DATASETS.TRAIN my/train.zip \\
      DATASETS.TEST my/val INPUT.RESOLUTION 64 OUTPUT_DIR output/mine  # folders or zips
  python tools/predict.py YOUR_IMAGE.png --weights {weights}
  python tools/predict.py YOUR_IMAGE.png --model {_PRETRAINED}
  python tools/zoo.py list                            # architectures; with --pretrained: weights
  tensorboard --logdir output"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo and returns its exit status."""
    about = "Train a small FBNetV3 on handwritten digits, and classify images with it."
    parser = argparse.ArgumentParser(prog="demo.py", description=about)
    output = "folder of the run (default: output/demo)"
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help=output)
    folder = parser.parse_args(argv).output
    print(f"Training a small FBNetV3 on 1,437 handwritten digits ({_CONFIG}) ...\n", flush=True)
    start = time.monotonic()
    status = train.main(["--config-file", _CONFIG, "--overwrite", "OUTPUT_DIR", str(folder)])
    if status:
        return status
    seconds = time.monotonic() - start
    weights = folder / "model_ema.safetensors"
    print("\nPredictions of the trained network for digits that it was not trained on:", flush=True)
    images = _write_images("digits_test", folder / "images")
    predict.main(["--weights", str(weights), "--topk", "2", *images])
    show_pretrained(folder / "photographs")
    print(_summary(folder, seconds))
    return 0


def cli() -> None:
    """Entry point of tools/demo.py."""
    sys.exit(run_main(main))
