"""Images for calibration and checks of an exported detector: of a data set of boxes, or random."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from fbnetv3.config import get_cfg
from fbnetv3.data import read_image
from fbnetv3.data.datasets import find_data
from fbnetv3.detection.coco import CocoDataset, read_coco
from fbnetv3.detection.datasets import build_detection_dataset, list_detection_datasets
from fbnetv3.detection.detector import Detector
from fbnetv3.detection.formats.opening import format_of, open_boxes, write_coco
from fbnetv3.export.detectors.network import DetectorNetwork
from fbnetv3.export.job import Pixels

_SIZES = ((640, 480), (375, 500), (512, 512), (300, 200))  # (width, height) of random images


def open_data(name: str) -> CocoDataset:
    """Opens a data set of boxes by its name, or by the path of boxes in a known format.

    Raises:
        DataError: The name is unknown, or the data cannot be read.
    """
    path = None if name in list_detection_datasets() else find_data(name)
    if path is None or not format_of(path):
        return build_detection_dataset(name, get_cfg())
    boxes = open_boxes(path)
    with TemporaryDirectory() as folder:
        json_file = Path(folder) / "boxes.json"
        write_coco(boxes, json_file)
        return read_coco(name, json_file, boxes.root)


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
