"""The images of a detection data set: checks before training, and batches of mapped images."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from fbnetv3.config import CfgNode
from fbnetv3.data.decode import MAX_BYTES, decode_rgb, open_image, read_image
from fbnetv3.data.errors import DataError, all_problems, some
from fbnetv3.data.modes import shown_size
from fbnetv3.data.scan import check_all
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.detectron2_parts import (
    AugInput,
    Augmentation,
    DatasetMapper,
    ResizeShortestEdge,
    ResizeTransform,
    convert_PIL_to_numpy,
)
from fbnetv3.io import open_regular

_log = logging.getLogger("fbnetv3")
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
        DataError: An image (if ``skip_broken``, every image) is missing, broken or of another size;
            the message contains its file and id.
    """
    problems = check_all(partial(_problem, decode=decode), dataset.records, dataset.name)
    broken = [problem for problem in problems if problem]
    if not broken:
        return dataset
    if not skip_broken:
        raise DataError(f"{dataset.name}: {all_problems(broken)}")
    _log.warning("%s: %d images are left out: %s", dataset.name, len(broken), some(broken, 3))
    pairs = zip(dataset.records, problems, strict=True)
    kept = [record for record, problem in pairs if not problem]
    if not kept:
        raise DataError(f"{dataset.name}: every image is broken; the first: {broken[0]}")
    return dataset.replace_records(kept, f"{len(broken)} broken images are left out")


def _problem(record: dict[str, Any], decode: bool) -> str | None:
    """Returns a description of what is wrong with an image, or None."""
    where, name = f"image {record['image_id']}", record["file_name"]
    try:
        with open_regular(name, MAX_BYTES) as file:
            if decode:
                size = decode_rgb(file.read(), name, _ADVICE).size
            else:
                with open_image(file, name, _ADVICE) as image:
                    size = shown_size(image)
    except DataError as error:
        return f"{where}: {error}"
    except OSError as error:
        return f"{where}: cannot read {name}: {error.strerror or error}; {_ADVICE}"
    except Exception as error:  # decoders raise errors of any kind on damaged files
        return f"{where}: cannot read {name}: {' '.join(str(error).split())[:120]}"
    if size != (record["width"], record["height"]):
        return f"{where}: {_other_size(record, size)}"
    return None


def _other_size(record: dict[str, Any], size: tuple[int, int]) -> str:
    width, height = record["width"], record["height"]
    is_swapped = size == (height, width)
    turned = " once its EXIF orientation, if any, is applied" if is_swapped else ""
    return (
        f"{record['file_name']} has {size[0]} x {size[1]} pixels{turned}, but the JSON file says "
        f"{width} x {height}; correct the JSON file, or {_ADVICE}"
    )


class ShortestEdge(ResizeShortestEdge):
    """detectron2's resize of the short side, without sides of 0 pixels for elongated images."""

    @classmethod
    def like(cls, augmentation: Augmentation) -> Augmentation:
        """Returns a ShortestEdge for detectron2's resize, and any other augmentation as it is."""
        if type(augmentation) is not ResizeShortestEdge:
            return augmentation
        lengths, style = augmentation.short_edge_length, augmentation.sample_style
        return cls(lengths, augmentation.max_size, style, augmentation.interp)

    def get_transform(self, image: np.ndarray) -> Any:
        """Draws the length of the short side, as detectron2 does; sides have 1 pixel or more."""
        transform = super().get_transform(image)
        if isinstance(transform, ResizeTransform):
            transform.new_h, transform.new_w = max(1, transform.new_h), max(1, transform.new_w)
        return transform


class ImageMapper(DatasetMapper):
    """detectron2's mapper from a record to a model's input; ``read_image`` reads the images."""

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Returns detectron2's arguments, with a resize that accepts elongated images."""
        arguments: dict[str, Any] = super().from_config(cfg, is_train)
        arguments["augmentations"] = [ShortestEdge.like(a) for a in arguments["augmentations"]]
        return arguments

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Returns the input of a model for a record of a :class:`CocoDataset`.

        Raises:
            DataError: The image cannot be read, or its size is not that of the record.
        """
        mapped = copy.deepcopy(record)
        image = read_image(record["file_name"], advice=_ADVICE)
        if image.size != (record["width"], record["height"]):
            raise DataError(_other_size(record, image.size))
        augmented = AugInput(convert_PIL_to_numpy(image, self.image_format))
        transforms = self.augmentations(augmented)
        pixels = np.ascontiguousarray(augmented.image.transpose(2, 0, 1))
        mapped["image"] = torch.as_tensor(pixels)
        if self.is_train:
            self._transform_annotations(mapped, transforms, augmented.image.shape[:2])
        else:
            del mapped["annotations"]
        return mapped


class BatchMapper:
    """Maps a list of (image index, seed) pairs to a batch of detectron2 inputs.

    detectron2's augmentations draw from numpy's global generator. This generator is seeded for
    each image, and its state is restored after each batch.

    Args:
        dataset: Data set to read.
        mapper: Mapper from a record of the data set to an input of a model.
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
        except DataError as error:
            raise DataError(f"image {record['image_id']}: {error}") from error


@contextmanager
def _preserved_numpy() -> Iterator[None]:
    state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
