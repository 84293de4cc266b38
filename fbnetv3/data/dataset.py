"""Data sets of labelled images with random access, which the loaders read."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch.utils.data import Dataset

from fbnetv3.data.decode import decode_rgb, file_suffix
from fbnetv3.data.errors import DataError, class_counts, plural, some
from fbnetv3.data.jpeg import JpegImage, open_jpeg
from fbnetv3.data.sampling import random_classes, stratified_order
from fbnetv3.data.sources import Source

CACHE_BYTES = 256 << 20  # per process, and thus in each loader worker
_RANDOM_SPLIT = 31  # mixed into the seed, so that other draws do not get the same numbers


class ImageDataset(Dataset[tuple[Any, int]], ABC):
    """A data set of images that have one class each, or several: a map-style torch Dataset.

    ``dataset[i]`` is a pair of a Pillow image in RGB and its target; use :meth:`transformed` for a
    DataLoader, which needs tensors.

    Attributes:
        name: Name of the data set in error messages and logs, as the user gave it.
        classes: Names of the classes. A target is an index into this list.
        targets: Target of each image; a tuple of indices if ``is_multi_label``.
        is_multi_label: Whether an image has any number of targets, instead of one.
        has_files: Whether images are decoded from files, which may be broken.
        broken: Files that were left out because they cannot be decoded.
    """

    is_multi_label = has_files = False

    def __init__(self, name: str, classes: Sequence[str], targets: Sequence[Any]) -> None:
        self.name = name
        self.classes = list(classes)
        self.targets: list[Any] = list(targets)
        self.broken: list[str] = []

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        """Returns image ``i``, which may be negative, and its target."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"{self.name} has {len(self)} images; there is no image {i}")
        return self.load(range(len(self))[i])

    def transformed(self, transform: Callable[[Image.Image], Any]) -> TransformedDataset:
        """Returns a torch Dataset of ``transform(image)`` and the target.

        Args:
            transform: Function of a Pillow image in RGB, such as a torchvision transform, or
                ``fbnetv3.data.EvalTransform(32)``.
        """
        return TransformedDataset(self, transform)

    def load(self, i: int) -> tuple[Image.Image, int]:
        """Returns image ``i`` in RGB, and its target.

        Raises:
            DataError: The file cannot be read or decoded.
        """
        return self.image(i), self.targets[i]

    @abstractmethod
    def image(self, i: int) -> Image.Image:
        """Returns image ``i`` in RGB; the caller may modify it.

        Raises:
            DataError: The file cannot be read or decoded.
        """

    def undecoded(self, i: int) -> Image.Image | JpegImage:
        """Returns image ``i`` for a transform that may need only a part of its pixels.

        Returns:
            A JPEG file whose pixels are decoded on request, or else ``image(i)``.

        Raises:
            DataError: The file cannot be read or decoded.
        """
        return self.image(i)

    @abstractmethod
    def file_name(self, i: int) -> str:
        """Returns the name of image ``i`` in error messages."""

    def short_name(self, i: int) -> str:
        """Returns the name of image ``i`` within the data set, such as ``cat/1.jpg``."""
        return f"{i:08}"

    def content(self, i: int) -> tuple[str, bytes]:
        """Returns image ``i`` as a file: its suffix, such as ``.jpg``, and its content.

        Images that do not come from files are encoded as PNG.

        Raises:
            DataError: The file cannot be read, or is no image file.
        """
        out = io.BytesIO()
        self.image(i).save(out, "PNG")
        return ".png", out.getvalue()

    def summary(self) -> str:
        """Returns the name, the number of images, and the number of images of each class."""
        counts = [0] * len(self.classes)
        for target in self.targets:
            for label in target if self.is_multi_label else (target,):
                counts[label] += 1
        images = plural(len(self), "image")
        return f"{self.name}: {images}, {class_counts(self.classes, counts)}"

    def subset(self, n_images: int, seed: int = 0) -> Subset:
        """Returns a stratified random subset.

        Args:
            n_images: Number of images, from 1 to ``len(self)``.
            seed: Random seed of the selection. With the same seed, a larger subset contains every
                smaller one.

        Raises:
            DataError: ``n_images`` is out of range.
        """
        _check_range(self, f"cannot take a subset of {n_images} images", n_images, len(self))
        return Subset(self, sorted(stratified_order(self._strata(), seed)[:n_images]))

    def split(
        self, n_holdout: int, seed: int = 0, *, stratified: bool = True
    ) -> tuple[Subset, Subset]:
        """Returns a random split into (train, holdout).

        Args:
            n_holdout: Number of held-out images, from 1 to ``len(self) - 1``.
            seed: Random seed of the selection.
            stratified: Whether to hold out about the same fraction of each class; otherwise, the
                held-out images are drawn uniformly from all images.

        Raises:
            DataError: ``n_holdout`` is out of range.
        """
        _check_range(self, f"cannot hold out {n_holdout} images", n_holdout, len(self) - 1)
        if stratified:
            order = stratified_order(self._strata(), seed)
        else:
            order = np.random.default_rng([seed, _RANDOM_SPLIT]).permutation(len(self)).tolist()
        return Subset(self, sorted(order[n_holdout:])), Subset(self, sorted(order[:n_holdout]))

    def select_classes(self, n_classes: int, seed: int = 0) -> Subset:
        """Returns the images of randomly chosen classes, with targets from 0 to n_classes - 1.

        Args:
            n_classes: Number of classes, from 1 to ``len(self.classes)``.
            seed: Random seed of the selection.

        Raises:
            DataError: ``n_classes`` is out of range, or images have several labels.
        """
        if self.is_multi_label:
            raise DataError(f"{self.name}: images have several labels; cannot select classes")
        _check_range(self, f"cannot select {n_classes} classes", n_classes, len(self.classes))
        chosen = random_classes(len(self.classes), n_classes, seed)
        relabel = {old: new for new, old in enumerate(chosen)}
        indices = [i for i, target in enumerate(self.targets) if target in relabel]
        return Subset(self, indices, [self.classes[c] for c in chosen], relabel)

    def _strata(self) -> list[int]:
        """Returns a number for each image: its class, or a number that stands for its labels."""
        if not self.is_multi_label:
            return self.targets
        numbers = {labels: i for i, labels in enumerate(sorted(set(self.targets)))}
        return [numbers[labels] for labels in self.targets]

    def __repr__(self) -> str:
        return f"{self.name}: {len(self)} images of {len(self.classes)} classes"


class TransformedDataset(Dataset[tuple[Any, int]]):
    """The items of an :class:`ImageDataset` with transformed images.

    Attributes:
        classes: Names of the classes.
        targets: Target of each image, as in the data set.
    """

    def __init__(self, dataset: ImageDataset, transform: Callable[[Image.Image], Any]) -> None:
        self.classes, self.targets = dataset.classes, dataset.targets
        self._dataset, self._transform = dataset, transform

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        image, target = self._dataset[i]
        return self._transform(image), target


class ArrayDataset(ImageDataset):
    """A data set of images in memory.

    Args:
        name: Name of the data set.
        classes: Names of the classes.
        images: (N, H, W, 3) RGB pixels, uint8.
        targets: N indices into ``classes``.

    Raises:
        DataError: ``images`` does not have the shape (len(targets), H, W, 3) or the type uint8.
    """

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        images: npt.NDArray[np.uint8],
        targets: Sequence[int],
    ) -> None:
        super().__init__(name, classes, targets)
        if images.shape[0] != len(targets) or images.ndim != 4 or images.shape[3] != 3:
            raise DataError(
                f"{name}: images have shape {images.shape}, expected ({len(targets)}, H, W, 3)"
            )
        if images.dtype != np.uint8:
            raise DataError(f"{name}: images are {images.dtype}; allowed: uint8, from 0 to 255")
        self._images = images

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(self._images[i])

    def file_name(self, i: int) -> str:
        return f"{self.name}[{i}]"


class FileDataset(ImageDataset):
    """A data set of the image files in a folder or archive.

    The pixels of an image are kept in memory after its first use, if they fit into ``cache_bytes``.
    While nothing is kept, only an image is kept of which the cache could hold as many as the data
    set has images (CIFAR-10 takes 150 MB). Each loader worker has its own cache.

    Args:
        name: Name of the data set.
        source: The image files and their targets.
        cache_bytes: Largest size of the cache per process in bytes; 0 disables it.
    """

    has_files = True

    def __init__(self, name: str, source: Source, cache_bytes: int = CACHE_BYTES) -> None:
        super().__init__(name, source.classes, source.targets)
        self.is_multi_label = source.is_multi_label
        self._source = source
        self._cache_bytes = cache_bytes
        self._cached_bytes = 0
        self._cache: dict[int, npt.NDArray[np.uint8]] = {}
        # EXIF orientation of cached images from JPEG files; None for other files
        self._turns: dict[int, int | None] = {}

    def image(self, i: int) -> Image.Image:
        cached = self._cache.get(i)
        if cached is not None:
            return Image.fromarray(cached)
        data, name = self._source.read(i), self.file_name(i)
        image = decode_rgb(data, name)
        if self._has_room(image.size):
            jpeg = open_jpeg(data, name)
            self._keep(i, np.asarray(image), None if jpeg is None else jpeg.turn)
        return image

    def undecoded(self, i: int) -> Image.Image | JpegImage:
        read, name = partial(self._source.read, i), self.file_name(i)
        cached = self._cache.get(i)
        if cached is not None:
            # The result of a transform must not depend on whether the image is in the cache.
            turn, size = self._turns[i], (cached.shape[1], cached.shape[0])
            if turn is None:
                return Image.fromarray(cached)
            return JpegImage(read, name, size, whole=cached, turn=turn)
        data = read()
        jpeg = open_jpeg(data, name)
        if jpeg is None:
            image = decode_rgb(data, name)
            if self._has_room(image.size):
                self._keep(i, np.asarray(image), None)
            return image
        if self._has_room(jpeg.size):
            self._keep(i, jpeg.pixels(), jpeg.turn)
            return self.undecoded(i)
        return jpeg

    def file_name(self, i: int) -> str:
        return self._source.file_name(i)

    def short_name(self, i: int) -> str:
        return self._source.files[i]

    def content(self, i: int) -> tuple[str, bytes]:
        data = self._source.read(i)
        return file_suffix(data, self.file_name(i)), data

    def _has_room(self, image_size: tuple[int, int]) -> bool:
        """Returns whether the pixels of an image of (width, height) fit into the cache."""
        size = 3 * image_size[0] * image_size[1]
        # Until an image is cached, the size of the data set is estimated from the current image;
        # nothing is cached while this estimate exceeds the limit.
        expected = size * len(self) if not self._cache else self._cached_bytes + size
        return expected <= self._cache_bytes

    def _keep(self, i: int, pixels: npt.NDArray[np.uint8], turn: int | None) -> None:
        self._cache[i], self._turns[i] = pixels, turn
        self._cached_bytes += pixels.nbytes

    def __getstate__(self) -> dict[str, object]:
        # Spawned loader workers get a pickled copy. It is sent without the cache, which may be
        # large; each worker fills its own.
        return self.__dict__ | {"_cache": {}, "_turns": {}, "_cached_bytes": 0}


class Subset(ImageDataset):
    """A subset of another data set, in the order of ``indices``.

    Args:
        dataset: Data set that the images are taken from.
        indices: Indices of the images in ``dataset``.
        classes: Names of the classes. None keeps the classes of ``dataset``.
        relabel: Mapping from each target of the chosen images in ``dataset`` to its index in
            ``classes``. None keeps the targets.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        indices: Sequence[int],
        classes: Sequence[str] | None = None,
        relabel: dict[int, int] | None = None,
    ) -> None:
        targets = [dataset.targets[i] for i in indices]
        if relabel is not None:
            targets = [relabel[t] for t in targets]
        super().__init__(dataset.name, dataset.classes if classes is None else classes, targets)
        self.is_multi_label, self.has_files = dataset.is_multi_label, dataset.has_files
        self.broken = list(dataset.broken)
        self.indices = [int(i) for i in indices]
        self._parent = dataset

    def image(self, i: int) -> Image.Image:
        return self._parent.image(self.indices[i])

    def undecoded(self, i: int) -> Image.Image | JpegImage:
        return self._parent.undecoded(self.indices[i])

    def file_name(self, i: int) -> str:
        return self._parent.file_name(self.indices[i])

    def short_name(self, i: int) -> str:
        return self._parent.short_name(self.indices[i])

    def content(self, i: int) -> tuple[str, bytes]:
        return self._parent.content(self.indices[i])


def _check_range(dataset: ImageDataset, problem: str, value: int, maximum: int) -> None:
    if not 1 <= value <= maximum:
        raise DataError(f"{dataset.name}: {problem}; allowed: 1 to {maximum}")


class HasClasses(Protocol):
    """A data set of any kind: its name in messages, and the names of its classes."""

    name: str
    classes: list[str]


def check_same_classes(train: HasClasses, val: HasClasses) -> None:
    """Checks that two data sets have the same classes in the same order.

    Raises:
        DataError: The classes or their order differ; the message lists the differences.
    """
    if train.classes == val.classes:
        return
    parts = []
    for dataset, other in ((train, val), (val, train)):
        only = [c for c in dataset.classes if c not in set(other.classes)]
        if only:
            parts.append(f"only in {dataset.name}: {some(only)}")
    difference = "; ".join(parts) or "the same names in another order or number"
    raise DataError(
        f"the classes of {train.name} ({len(train.classes)}) and {val.name} ({len(val.classes)}) "
        f"differ: {difference}; rename or remove classes (class folders) to make them equal"
    )
