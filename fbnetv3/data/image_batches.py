"""Functions that load batches of transformed images, each batch in a single process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from fbnetv3.data.dataset import ImageDataset
from fbnetv3.data.errors import DataError
from fbnetv3.data.labels import label_tensor
from fbnetv3.data.seeding import preserved_rng
from fbnetv3.data.transforms import ImageTransform

T = TypeVar("T")
Transform = Callable[[Image.Image], torch.Tensor]
Batch = tuple[torch.Tensor, torch.Tensor]
# A function that maps a list of (image index, seed) pairs to a batch of any kind. It must restore
# the state of the random generators that it uses.
LoadBatch = Callable[[Sequence[tuple[int, int]]], Any]


class SizedNamed(Protocol):
    """A data set of any kind: its number of images, and its name in error messages."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...


def image_loader(dataset: SizedNamed, transform: Transform | None, uint8: bool) -> LoadBatch:
    """Returns a function that loads batches of transformed images and their labels.

    Args:
        dataset: Data set of images.
        transform: Function from a Pillow image to a (3, H, W) tensor, drawing from torch's global
            generator, which is seeded for each image.
        uint8: Whether batches hold uint8 pixels; otherwise, they hold the transform's output.

    Raises:
        DataError: There is no transform, ``dataset`` is no ImageDataset, or ``uint8`` is set and
            ``transform`` is no ImageTransform.
    """
    if transform is None or not isinstance(dataset, ImageDataset):
        raise DataError(
            f"{dataset.name}: pass a transform for an ImageDataset, or load_batch for other data"
        )
    if uint8 and not isinstance(transform, ImageTransform):
        raise DataError(f"{dataset.name}: batches of uint8 need an ImageTransform")
    return partial(_load_batch, dataset, transform, uint8)


def _load_batch(
    dataset: ImageDataset,
    transform: Transform,
    uint8: bool,
    index_seed_pairs: Sequence[tuple[int, int]],
) -> Batch:
    """Loads the images of (index, seed) pairs; the seed is set before each load and transform."""
    labels = label_tensor(dataset, [i for i, _ in index_seed_pairs])
    if isinstance(transform, ImageTransform):
        pixels = _stacked(
            _transformed(dataset.undecoded, transform.pixels, index_seed_pairs),
            len(index_seed_pairs),
        )
        if uint8:
            return pixels.movedim(-1, -3), labels
        return transform.normalize(pixels.numpy()), labels
    images = torch.stack(
        list(_transformed(lambda i: dataset.load(i)[0], transform, index_seed_pairs))
    )
    return images.contiguous(memory_format=torch.channels_last), labels


def _stacked(images: Iterator[npt.NDArray[np.uint8]], count: int) -> torch.Tensor:
    """Returns pixels (N, H, W, 3) of images that have the same shape.

    Each image is copied while it is in the processor's cache. In a worker process, the copies are
    in shared memory, where the main process needs them.

    Raises:
        DataError: The shapes differ.
    """
    batch = torch.empty(0)
    for i, image in enumerate(images):
        if i == 0:
            batch = _empty((count, *image.shape))
            rows = batch.numpy()
        if image.shape != rows.shape[1:]:
            raise DataError(
                f"the transform makes images of shapes {rows.shape[1:]} and {image.shape}; the "
                "images of a batch must have the same shape"
            )
        rows[i] = image
    return batch


def _empty(shape: tuple[int, ...]) -> torch.Tensor:
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(storage).reshape(shape)


def _transformed(
    load: Callable[[int], Any],
    transform: Callable[[Any], T],
    index_seed_pairs: Sequence[tuple[int, int]],
) -> Iterator[T]:
    with preserved_rng() as generator:
        for index, seed in index_seed_pairs:
            try:
                generator.manual_seed(seed)  # for data sets that draw random numbers themselves
                image = load(index)
                # The transform's draws do not depend on the number of draws of the data set.
                generator.manual_seed(seed)
                yield transform(image)
            except DataError as error:
                raise DataError(
                    f"{error}; fbnetv3-train --check-data names all such files"
                ) from error
