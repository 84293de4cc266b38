"""Images for calibration and checks of an exported detector: of a data set of boxes, or random."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from fbnetv3.config import get_cfg
from fbnetv3.data import read_image
from fbnetv3.data.datasets import find_data
from fbnetv3.data.errors import DataError, all_problems
from fbnetv3.detection.coco import CocoDataset, read_coco
from fbnetv3.detection.datasets import build_detection_dataset, list_detection_datasets
from fbnetv3.detection.detector import Detector
from fbnetv3.detection.formats.opening import (
    format_of,
    open_boxes,
    open_coco,
    splits_of,
    write_coco,
)
from fbnetv3.detection.images import check_images
from fbnetv3.export.detectors.network import DetectorNetwork
from fbnetv3.export.job import Pixels

_log = logging.getLogger("fbnetv3")
_SIZES = ((640, 480), (375, 500), (512, 512), (300, 200))  # (width, height) of random images


def open_data(name: str) -> CocoDataset:
    """Opens the data set to score on, as ``fbnetv3-evaluate`` does, also in formats beside COCO's.

    Args:
        name: Name of a data set of boxes, or the path of boxes in a known format. Of a yaml of
            YOLO, the split ``val`` is opened, or else ``test`` or ``train``, with a warning.

    Raises:
        DataError: The name is unknown, the data cannot be read, an image is missing, broken or of
            another size than its annotation states, or a box is faulty.
    """
    return check_images(_open(name, ("val", "test", "train")), decode=False, skip_broken=False)


def open_calibration(name: str) -> CocoDataset:
    """Opens the data set from which calibration images are drawn.

    Args:
        name: Name of a data set of boxes, or the path of boxes in a known format. Of a yaml of
            YOLO, the split ``train`` is opened, or else ``val`` or ``test``, with a warning.

    Raises:
        DataError: The name is unknown, the data cannot be read, or an image or box in another
            format than COCO's is faulty.
    """
    return _open(name, ("train", "val", "test"))


def _open(name: str, splits: Sequence[str]) -> CocoDataset:
    """Opens a data set; of a yaml of YOLO, the first of some splits that it names."""
    path = None if name in list_detection_datasets() else find_data(name)
    try:
        format = "" if path is None else format_of(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if path is None or not format:
        return build_detection_dataset(name, get_cfg())
    if format == "coco":
        return open_coco(path)
    split = _split(name, path, splits) if format == "yolo" else ""
    boxes = open_boxes(path, split=split)
    if boxes.faults:
        chosen = f" --split {split}" if split else ""
        raise DataError(
            f"{name}: {all_problems(boxes.faults)}; correct the files, or write a COCO json "
            f"without these images and boxes: fbnetv3-data convert {shlex.quote(str(path))} "
            f"boxes.json{chosen} --skip-broken"
        )
    with TemporaryDirectory() as folder:
        json_file = Path(folder) / "boxes.json"
        write_coco(boxes, json_file)
        return read_coco(name, json_file, boxes.root)


def _split(name: str, path: Path, splits: Sequence[str]) -> str:
    """Returns the first split that a yaml names; warns if it is not the first of all."""
    named = splits_of(path)
    split = next((split for split in splits if split in named), splits[0])
    if split != splits[0]:
        _log.warning("%s has no split %s: the images of %s are used", name, splits[0], split)
    return split


def sample(data: CocoDataset, count: int, seed: int) -> list[Path]:
    """Returns ``count`` image files, drawn without replacement; all files if there are fewer."""
    files = [Path(record["file_name"]) for record in data.records]
    if len(files) <= count:
        return files
    chosen = np.random.default_rng(seed).choice(len(files), count, replace=False)
    return [files[i] for i in sorted(chosen)]


def images_to_compare(files: Sequence[Path], seed: int) -> list[Image.Image]:
    """Returns images of several sizes for the comparison of an exported file with torch.

    Args:
        files: Image files. If there are none, the images are random: coarse and fine blocks of
            colour, in which a detector may find objects.
        seed: Seed of random images.
    """
    if not files:
        generator = np.random.default_rng(seed)
        return [_random_image(generator, size, 4 << i) for i, size in enumerate(_SIZES)]
    images = [read_image(file) for file in files]
    width, height = images[0].size  # a data set may have images of one size only
    parts = ((0, 0, (width + 1) // 2, height), (0, 0, width, (2 * height + 2) // 3))
    return [images[0], *(images[0].crop(part) for part in parts), *images[1:]]


def _random_image(
    generator: np.random.Generator, size: tuple[int, int], blocks: int
) -> Image.Image:
    pixels = generator.integers(0, 256, (blocks, blocks, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def pixels_of(detector: Detector, network: DetectorNetwork, image: Image.Image) -> Pixels:
    """Returns an image, resized, as input (1, 3, H, W) of an exported detector."""
    resized = np.ascontiguousarray(detector.resized(image).transpose(2, 0, 1))[None]
    if network.input_type == "uint8":
        return resized.astype(np.uint8)
    return resized.astype(np.float32) / np.float32(255)
