"""The images of a detection data set: checks before training, and batches of mapped images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from detectron2.data import DatasetMapper
from PIL import Image

from fbnetv3.data.decode import MAX_BYTES, decode_rgb, open_image
from fbnetv3.data.errors import DataError, some
from fbnetv3.data.scan import check_all
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.io import open_regular

_log = logging.getLogger("fbnetv3")
_EXIF_ORIENTATION = 0x0112
_ADVICE = "download the image again"


def check_images(dataset: CocoDataset, *, decode: bool, skip_broken: bool) -> CocoDataset:
    """Checks that every image can be read and has the size that the JSON file states.

    Args:
        dataset: Data set whose images are checked.
        decode: Whether to decode the whole images, which finds truncated files, instead of reading
            only their headers.
        skip_broken: Whether to leave out and log broken images, instead of raising an error.

    Returns:
        The data set without the broken images.

    Raises:
        DataError: An image is missing, broken or of another size; the message names file and id.
    """
    problems = check_all(partial(_problem, decode=decode), dataset.records, dataset.name)
    broken = [problem for problem in problems if problem]
    if not broken:
        return dataset
    if not skip_broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise DataError(f"{dataset.name}: {broken[0]}{more}")
    _log.warning("%s: %d images are left out: %s", dataset.name, len(broken), some(broken, 3))
    pairs = zip(dataset.records, problems, strict=True)
    kept = [record for record, problem in pairs if not problem]
    if not kept:
        raise DataError(f"{dataset.name}: every image is broken; the first: {broken[0]}")
    return dataset.replace_records(kept, f"{len(broken)} broken images are left out")


def _problem(record: dict[str, Any], decode: bool) -> str | None:
    """Returns a description of what is wrong with an image, or None."""
    where = f"image {record['image_id']}"
    try:
        with open_regular(record["file_name"], MAX_BYTES) as file:
            with open_image(file, record["file_name"], _ADVICE) as image:
                size = _shown_size(image)
            if decode:
                file.seek(0)
                decode_rgb(file.read(), record["file_name"], _ADVICE)
    except DataError as error:
        return f"{where}: {error}"
    except OSError as error:
        return f"{where}: cannot read {record['file_name']}: {error.strerror or error}; {_ADVICE}"
    except Exception as error:  # decoders raise errors of any kind on damaged files
        return f"{where}: cannot read {record['file_name']}: {' '.join(str(error).split())[:120]}"
    if size != (record["width"], record["height"]):
        return (
            f"{where}: {record['file_name']} has {size[0]} x {size[1]} pixels, but the JSON file "
            f"says {record['width']} x {record['height']}; correct the JSON file, or {_ADVICE}"
        )
    return None


def _shown_size(image: Image.Image) -> tuple[int, int]:
    """Returns (width, height) after applying the EXIF orientation, as detectron2 does."""
    width, height = image.size
    is_rotated = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    return (height, width) if is_rotated else (width, height)


class BatchMapper:
    """Maps a list of (image index, seed) pairs to a batch of detectron2 inputs.

    detectron2's augmentations draw from numpy's global generator. This generator is seeded for
    each image, and its state is restored after each batch.

    Args:
        dataset: Data set to read.
        mapper: detectron2's mapper from a record of the data set to an input of a model.
    """

    def __init__(self, dataset: CocoDataset, mapper: DatasetMapper) -> None:
        self._records, self._mapper = dataset.records, mapper

    def __call__(self, keys: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        with _preserved_numpy():
            return [self._mapped(index, seed) for index, seed in keys]

    def _mapped(self, index: int, seed: int) -> dict[str, Any]:
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
