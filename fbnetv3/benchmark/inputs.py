"""Preparation of training batches on one core: by this project, torchvision and timm.

Every variant reads the same JPEG files of the same size from a folder, and applies the augmentation
of the paper: a random resized crop, a random flip and AutoAugment. Each variant prepares batches in
this process, as a worker of a loader would, up to the point at which they would be sent to a GPU.
At this point, batches of ``ours`` and ``timm`` are uint8, which a GPU normalises, and those of the
other variants are normalised float32.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from fbnetv3 import imagenet
from fbnetv3.benchmark.variants import OURS, TIMM, Shape, Step
from fbnetv3.data import ImageDataset, TrainLoader, TrainTransform, build_dataset
from fbnetv3.data.dataset import FileDataset
from fbnetv3.data.opening import open_source

TORCHVISION = "torchvision v2"
NORMALIZED = "ours, normalised on the CPU"
_MAX_IMAGES = 256  # images that are written as JPEG files, unless a batch has more
_QUALITY = 95  # of the JPEG files
_FILL = [128, 128, 128]  # color of the areas that AutoAugment's geometric operations uncover


@contextmanager
def input_steps(name: str, size: tuple[int, int], shape: Shape) -> Iterator[dict[str, Step]]:
    """Yields functions that prepare one batch per call, by variant.

    The variant ``timm`` is left out if timm is not installed.

    Args:
        name: Name or path of a data set. 256 of its images, or as many as a batch has if that is
            more, are written as JPEG files; all images if the data set has fewer.
        size: Width and height of these files in pixels.
        shape: Number of images of a batch, and their resolution.

    Raises:
        DataError: The data set cannot be opened.
    """
    dataset = build_dataset(name)
    dataset = dataset.subset(min(len(dataset), max(_MAX_IMAGES, shape.batch)))
    with TemporaryDirectory() as folder:
        _write_jpegs(dataset, size, Path(folder))
        loaders: dict[str, Iterator[Any]] = {
            TORCHVISION: cycle_loader(_torchvision(folder, shape)),
            OURS: _ours(folder, shape, uint8=True),
            NORMALIZED: _ours(folder, shape, uint8=False),
        }
        if importlib.util.find_spec("timm") is not None:
            loaders[TIMM] = cycle_loader(_timm(folder, shape))
        yield {variant: loader.__next__ for variant, loader in loaders.items()}


def _write_jpegs(dataset: ImageDataset, size: tuple[int, int], folder: Path) -> None:
    for i, target in enumerate(dataset.targets):
        path = folder / f"{target:04}" / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = dataset.image(i).resize(size, Image.Resampling.BICUBIC)
        image.save(path, quality=_QUALITY)


def cycle_loader(loader: Iterable[Any]) -> Iterator[Any]:
    """Yields the batches of a loader again and again, without end."""
    for _ in cycle([None]):
        yield from loader


def _ours(folder: str, shape: Shape, *, uint8: bool) -> Iterator[Any]:
    dataset = FileDataset("benchmark", open_source(Path(folder)), cache_bytes=0)
    transform = TrainTransform(shape.resolution, auto_augment="imagenet")
    loader = TrainLoader(dataset, transform, total_batch=shape.batch, seed=0, uint8=uint8)
    return loader.batches()


def _torchvision(folder: str, shape: Shape) -> DataLoader[Any]:
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(shape.resolution),
            v2.RandomHorizontalFlip(),
            v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, fill=_FILL),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(imagenet.MEAN, imagenet.STD),
        ]
    )
    data = ImageFolder(folder, transform)
    return DataLoader(data, shape.batch, shuffle=True, drop_last=True)


def _timm(folder: str, shape: Shape) -> Any:
    """Returns the part of timm's loader that runs before its batches go to a GPU."""
    from timm.data import create_dataset, create_loader

    loader = create_loader(
        create_dataset("", root=folder),
        (3, shape.resolution, shape.resolution),
        shape.batch,
        is_training=True,
        auto_augment="original",
        interpolation="bilinear",
        num_workers=0,
        persistent_workers=False,
        pin_memory=False,
        device=torch.device("cpu"),
    )
    return loader.loader
