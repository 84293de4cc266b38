"""Scenes of handwritten digits with COCO annotations, a data set that needs no download.

Digits of scikit-learn's data set are enlarged, tinted and placed on noisy backgrounds. Training
scenes contain digits of the training split only, test scenes those of the test split.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fbnetv3.data import ImageDataset, build_dataset
from fbnetv3.io import atomic_write

SIDE = 128
"""Width and height of a scene in pixels."""
COUNTS = {"train": 800, "test": 100}
"""Number of scenes of each split."""
_SEED = 2021
_SIZES = (24, 48)  # range of the side of a digit in pixels
# Range of the number of digits drawn for a scene; those that overlap placed ones are left out.
_NUM_TRIES = (6, 16)
_INK = 64  # grey value above which a pixel belongs to the digit
_VERSION = 1  # part of the name of the folder; rises when other scenes are generated


def scenes_folder(cache: Path) -> Path:
    """Returns the folder of the scenes in a cache folder; its name has the scenes' version."""
    return cache / f"digits_scenes_v{_VERSION}"


def make_scenes(folder: Path, split: str) -> tuple[Path, Path]:
    """Generates the scenes of a split, unless they exist.

    Args:
        folder: Folder from :func:`scenes_folder`.
        split: ``train`` or ``test``.

    Returns:
        The file of the annotations and the folder of the images.

    Raises:
        WriteError: The folder cannot be written to.
    """
    annotations, images = folder / f"instances_{split}.json", folder / split
    if annotations.is_file():  # the annotations are written last, so the images exist, too
        return annotations, images
    tree = _empty_tree()
    generator = np.random.default_rng([_SEED, list(COUNTS).index(split)])
    digits = build_dataset(f"digits_{split}")
    for number in range(COUNTS[split]):
        scene, boxes = compose(digits, generator)
        name = f"{number:04d}.png"
        with atomic_write(images / name) as temporary:
            Image.fromarray(scene).save(temporary, "PNG")
        tree["images"].append({"id": number + 1, "file_name": name, "width": SIDE, "height": SIDE})
        tree["annotations"] += [_annotation(number + 1, *box) for box in boxes]
    for number, item in enumerate(tree["annotations"], 1):
        item["id"] = number
    with atomic_write(annotations) as temporary:
        temporary.write_text(json.dumps(tree))
    return annotations, images


def _empty_tree() -> dict[str, list[Any]]:
    categories = [{"id": i + 1, "name": str(i)} for i in range(10)]
    return {"images": [], "annotations": [], "categories": categories}


def _annotation(image: int, label: int, box: tuple[int, int, int, int]) -> dict[str, Any]:
    area = box[2] * box[3]
    category = {"image_id": image, "category_id": label + 1}
    return {"id": 0, **category, "bbox": list(box), "area": area, "iscrowd": 0}


def compose(
    digits: ImageDataset, generator: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], list[tuple[int, tuple[int, int, int, int]]]]:
    """Returns the pixels (SIDE, SIDE, 3) of a random scene, and its objects.

    Args:
        digits: Data set of the digits.
        generator: Random generator of the scene.

    Returns:
        Pixels, and the digit and box (x, y, width, height in pixels) of each object.
    """
    scene = _background(generator)
    boxes: list[tuple[int, tuple[int, int, int, int]]] = []
    for _ in range(int(generator.integers(*_NUM_TRIES, endpoint=True))):
        index = int(generator.integers(len(digits)))
        image, label = digits.load(index)
        side = int(generator.integers(*_SIZES, endpoint=True))
        ink = np.asarray(image.convert("L").resize((side, side), Image.Resampling.BILINEAR))
        x, y = (int(v) for v in generator.integers(0, SIDE - side, size=2, endpoint=True))
        box = _ink_box(ink, x, y)
        tint = generator.uniform(160, 255, size=3)
        if any(_overlap(box, other) > 0 for _, other in boxes):
            continue
        part = scene[y : y + side, x : x + side]
        share = ink[..., None] / 255.0
        part[:] = part * (1 - share) + tint * share
        boxes.append((label, box))
    return np.round(scene).astype(np.uint8), boxes


def _background(generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Returns a smooth dark gradient with noise, (SIDE, SIDE, 3) values from 0 to 255."""
    corners = generator.uniform(0, 110, size=(4, 4, 3)).astype(np.uint8)
    smooth = Image.fromarray(corners).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    noise = generator.normal(0, 12, size=(SIDE, SIDE, 3))
    return np.clip(np.asarray(smooth) + noise, 0, 255)


def _ink_box(ink: npt.NDArray[np.uint8], x: int, y: int) -> tuple[int, int, int, int]:
    rows, columns = (np.flatnonzero((ink > _INK).any(axis)) for axis in (1, 0))
    width, height = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
    return int(x + columns[0]), int(y + rows[0]), int(width), int(height)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> int:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)
