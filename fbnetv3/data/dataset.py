"""Labelled images with random access: what loaders read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from fbnetv3.data.decode import decode_rgb
from fbnetv3.data.errors import DataError, some
from fbnetv3.data.sampling import some_classes, stratified_order
from fbnetv3.data.sources import Source

CACHE_BYTES = 256 << 20


class ImageDataset(ABC):
    """Images with one class each.

    Attributes:
        name: As the user named it; errors and logs show it.
        classes: Class names; a target is an index into it.
        targets: The target of each image.
        broken: Files that were left out since they can't be decoded.
    """

    def __init__(self, name: str, classes: Sequence[str], targets: Sequence[int]) -> None:
        self.name = name
        self.classes = list(classes)
        self.targets = list(targets)
        self.broken: list[str] = []

    def __len__(self) -> int:
        return len(self.targets)

    def load(self, i: int) -> tuple[Image.Image, int]:
        """Returns image ``i``, RGB, and its target.

        Raises:
            DataError: The file can't be read or decoded.
        """
        return self.image(i), self.targets[i]

    @abstractmethod
    def image(self, i: int) -> Image.Image:
        """Returns image ``i``, RGB; the caller may change it."""

    @abstractmethod
    def file_name(self, i: int) -> str:
        """Returns how errors name image ``i``."""

    def subset(self, limit: int, seed: int = 0) -> Subset:
        """Returns ``limit`` images, each class with its share of the whole (to one image).

        Args:
            limit: Images to keep; at most ``len(self)``.
            seed: Which images; the same seed gives the same images, and a larger limit adds
                to them.

        Raises:
            DataError: ``limit`` is out of range.
        """
        _check_range(self, f"a subset of {limit} images", limit, len(self))
        return Subset(self, sorted(stratified_order(self.targets, seed)[:limit]))

    def split(self, n_holdout: int, seed: int = 0) -> tuple[Subset, Subset]:
        """Returns (train, holdout): disjoint, stratified, together the whole.

        Raises:
            DataError: ``n_holdout`` is not in 1 ... len(self) - 1.
        """
        _check_range(self, f"{n_holdout} images held out", n_holdout, len(self) - 1)
        order = stratified_order(self.targets, seed)
        return Subset(self, sorted(order[n_holdout:])), Subset(self, sorted(order[:n_holdout]))

    def select_classes(self, k: int, seed: int = 0) -> Subset:
        """Returns the images of ``k`` classes drawn at random, relabelled 0 ... k - 1.

        Raises:
            DataError: ``k`` is not in 1 ... number of classes.
        """
        _check_range(self, f"{k} classes selected", k, len(self.classes))
        chosen = some_classes(len(self.classes), k, seed)
        relabel = {old: new for new, old in enumerate(chosen)}
        indices = [i for i, target in enumerate(self.targets) if target in relabel]
        return Subset(self, indices, [self.classes[c] for c in chosen], relabel)

    def __repr__(self) -> str:
        return f"{self.name}: {len(self)} images of {len(self.classes)} classes"


class ArrayDataset(ImageDataset):
    """Images in memory.

    Args:
        name: Of the data set.
        classes: Class names.
        images: Uint8, N x H x W x 3.
        targets: N indices into ``classes``.
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
        self._images = images

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(self._images[i])

    def file_name(self, i: int) -> str:
        return f"{self.name}[{i}]"


class FileDataset(ImageDataset):
    """Image files of a folder or archive.

    Decoded pixels are kept in memory, as each image is first used, where the whole set is
    expected to fit ``cache_bytes`` (CIFAR-10: 150 MB). Every loader worker has a copy of its own.

    Args:
        name: Of the data set.
        source: The files.
        cache_bytes: Upper bound of the kept pixels per process; 0 keeps none.
    """

    def __init__(self, name: str, source: Source, cache_bytes: int = CACHE_BYTES) -> None:
        super().__init__(name, source.classes, source.targets)
        self._source = source
        self._cache_bytes = cache_bytes
        self._cached_bytes = 0
        self._cache: dict[int, npt.NDArray[np.uint8]] = {}

    def image(self, i: int) -> Image.Image:
        cached = self._cache.get(i)
        if cached is not None:
            return Image.fromarray(cached)
        image = decode_rgb(self._source.read(i), self.file_name(i))
        self._keep(i, image)
        return image

    def file_name(self, i: int) -> str:
        return self._source.file_name(i)

    def _keep(self, i: int, image: Image.Image) -> None:
        size = 3 * image.width * image.height
        # the first image stands for all: a set that won't fit is not cached in part
        expected = size * len(self) if not self._cache else self._cached_bytes + size
        if expected > self._cache_bytes:
            return
        self._cache[i] = np.asarray(image)
        self._cached_bytes += size

    def __getstate__(self) -> dict[str, object]:
        # a worker that is started by pickling fills its own
        return self.__dict__ | {"_cache": {}, "_cached_bytes": 0}


class Subset(ImageDataset):
    """Some images of another data set, in the order of ``indices``.

    Args:
        dataset: The whole.
        indices: Into ``dataset``.
        classes: Names, where they are not those of ``dataset``.
        relabel: Old target -> new target, where ``classes`` differ.
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
        self.broken = list(dataset.broken)
        self.indices = [int(i) for i in indices]
        self._whole = dataset

    def image(self, i: int) -> Image.Image:
        return self._whole.image(self.indices[i])

    def file_name(self, i: int) -> str:
        return self._whole.file_name(self.indices[i])


def _check_range(dataset: ImageDataset, what: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise DataError(f"{dataset.name}: {what}; allowed: 1 to {most}")


def check_same_classes(train: ImageDataset, val: ImageDataset) -> None:
    """Checks that two splits label their images alike.

    Raises:
        DataError: A class is in one only, or the order differs; both sets are named.
    """
    if train.classes == val.classes:
        return
    parts = []
    for here, other in ((train, val), (val, train)):
        only = [c for c in here.classes if c not in set(other.classes)]
        if only:
            parts.append(f"only in {here.name}: {some(only)}")
    what = "; ".join(parts) or "the same names in another order"
    raise DataError(
        f"classes of {train.name} ({len(train.classes)}) and {val.name} ({len(val.classes)}) "
        f"differ: {what}; rename or remove the class folders so that both have the same"
    )
