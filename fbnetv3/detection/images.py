"""The images of a detection data set: checked before training, mapped to batches in it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from detectron2.data import DatasetMapper
from PIL import Image
from rich.console import Console
from rich.progress import track

from fbnetv3.data.decode import MAX_BYTES, decode_rgb, open_image
from fbnetv3.data.errors import DataError, some
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.io import open_regular

_log = logging.getLogger("fbnetv3")
_EXIF_ORIENTATION = 0x0112
_MAX_THREADS = 8
_FIX = "get it again"


def check_images(dataset: CocoDataset, *, decode: bool, skip_broken: bool) -> CocoDataset:
    """Looks at every image: is it there, can it be read, has it the size that the json says.

    Args:
        dataset: Whose images.
        decode: Decode them whole (finds truncated files), not only their headers.
        skip_broken: Leave broken ones out and log them.

    Returns:
        The data set, without what was left out.

    Raises:
        DataError: An image is missing, broken or of another size; names file and id.
    """

    def problem_of(record: dict[str, Any]) -> str | None:
        return _problem(record, decode)

    console = Console(stderr=True)
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        problems = list(
            track(
                pool.map(problem_of, dataset.records),
                description=f"checking {dataset.name}",
                total=len(dataset),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )
        )
    found = [problem for problem in problems if problem]
    if not found:
        return dataset
    if not skip_broken:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise DataError(f"{dataset.name}: {found[0]}{more}")
    _log.warning("%s: %d images left out: %s", dataset.name, len(found), some(found, 3))
    pairs = zip(dataset.records, problems, strict=True)
    kept = [record for record, problem in pairs if not problem]
    if not kept:
        raise DataError(f"{dataset.name}: every image is broken; the first: {found[0]}")
    return dataset.replace_records(kept, f"{len(found)} broken images left out")


def _problem(record: dict[str, Any], decode: bool) -> str | None:
    where = f"image {record['image_id']}"
    try:
        with open_regular(record["file_name"], MAX_BYTES) as file:
            with open_image(file, record["file_name"], _FIX) as image:
                size = _shown_size(image)
            if decode:
                file.seek(0)
                decode_rgb(file.read(), record["file_name"], _FIX)
    except DataError as error:
        return f"{where}: {error}"
    except OSError as error:
        return f"{where}: cannot read {record['file_name']}: {error.strerror or error}; {_FIX}"
    except Exception as error:  # decoders raise anything on damaged files
        return f"{where}: cannot read {record['file_name']}: {' '.join(str(error).split())[:120]}"
    if size != (record["width"], record["height"]):
        return (
            f"{where}: {record['file_name']} has {size[0]} x {size[1]} pixels, the json says "
            f"{record['width']} x {record['height']}; correct the json or get the image again"
        )
    return None


def _shown_size(image: Image.Image) -> tuple[int, int]:
    """Returns (width, height) after the rotation that EXIF asks for, as detectron2 reads it."""
    width, height = image.size
    turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


class Mapped:
    """Makes batches: (index, seed) of each image -> a list of detectron2's input dicts.

    detectron2's augmentations draw from numpy's global generator; it is seeded for each image and
    put back.

    Args:
        dataset: What to read.
        mapper: Record -> input dict.
    """

    def __init__(self, dataset: CocoDataset, mapper: DatasetMapper) -> None:
        self._records, self._mapper = dataset.records, mapper

    def __call__(self, keys: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        with _preserved_numpy():
            return [self._one(index, seed) for index, seed in keys]

    def _one(self, index: int, seed: int) -> dict[str, Any]:
        record = self._records[index]
        np.random.seed(seed % (1 << 32))  # noqa: NPY002 (detectron2 draws from it)
        try:
            return self._mapper(record)
        except OSError as error:
            raise DataError(
                f"image {record['image_id']}: cannot read {record['file_name']}: {error}"
            ) from error


@contextmanager
def _preserved_numpy() -> Iterator[None]:
    state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
