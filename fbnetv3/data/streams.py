"""Images and labels that are read in order, such as those of a WebDataset or an IterableDataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import Any

import numpy as np
import torch

from fbnetv3.data.errors import DataError, plural
from fbnetv3.data.image_batches import Batch
from fbnetv3.data.items import as_rgb, check_label, pair_of, whole_label
from fbnetv3.data.loaders import EvalLoader, TrainLoader
from fbnetv3.data.seeding import mix_seed, preserved_rng
from fbnetv3.data.transforms import ImageTransform

_AUGMENT = 1  # first key of the seeds of augmentations, as in loaders.py


class ImageStream:
    """An iterable of (image, label) pairs with a known length.

    In each epoch the iterable is read from its beginning. Before that, its method ``set_epoch``, if
    it has one, is called with the number of the epoch. A training uses the first ``length`` items,
    without the last ones that do not fill a batch, in the order of the iterable, which has to
    shuffle them itself, as a WebDataset does. A training that is resumed within an epoch first
    reads again, without transforming them, the items that this epoch has already used. It continues
    bit for bit only if the iterable yields the same items in the same order whenever it is at the
    same epoch. Otherwise some images may be seen twice in that epoch, and others not at all.

    Args:
        iterable: The pairs; an image is anything that ``fbnetv3.data.read_image`` reads.
        length: Number of items per epoch. None: ``len(iterable)``.
        classes: Names of the classes. None: the numbers 0 to ``num_classes - 1``.
        num_classes: Number of classes, if there are no names.
        name: Name in error messages.

    Raises:
        DataError: The length or the classes are missing, or the length is below 1.
    """

    def __init__(
        self,
        iterable: Iterable[Any],
        length: int | None = None,
        classes: Sequence[str] | None = None,
        num_classes: int = 0,
        name: str = "stream",
    ) -> None:
        self.name, self._iterable = name, iterable
        try:
            self._length = len(iterable) if length is None else int(length)  # type: ignore[arg-type]
        except TypeError as error:
            raise DataError(
                f"{name}: a {type(iterable).__name__} has no length; give "
                "ImageStream(iterable, length=N)"
            ) from error
        if self._length < 1:
            raise DataError(f"{name}: the length is {self._length}; allowed: 1 or more")
        if not classes and num_classes < 1:
            raise DataError(f"{name}: the classes are unknown; give classes=[...] or num_classes=N")
        self.classes = list(classes or map(str, range(num_classes)))

    def __len__(self) -> int:
        return self._length

    def summary(self) -> str:
        """Returns the name, the number of images, and the number of classes."""
        classes = plural(len(self.classes), "class", "es")
        return f"{self.name}: {plural(len(self), 'image')} of {classes}, read in order"

    def items(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, int]]:
        """Yields the pairs of an epoch from item ``start`` on; labels are checked.

        Raises:
            DataError: The iterable ends early, or an item or label is not allowed.
        """
        if hasattr(self._iterable, "set_epoch"):
            self._iterable.set_epoch(epoch)
        number = 0
        for number, item in enumerate(islice(self._iterable, self._length), start=1):
            if number <= start:
                continue
            where = f"{self.name}, item {number - 1}"
            image, label = pair_of(item, where)
            target = whole_label(label, where)
            check_label(target, len(self.classes), where)
            yield image, target
        if number < self._length:
            raise DataError(
                f"{self.name} ended after {number} of {self._length} images; give its number of "
                "images per epoch as the length"
            )


class StreamTrainLoader(TrainLoader):
    """Augmented batches of a stream, without end; see :class:`ImageStream`.

    Every rank reads the whole stream and uses its slice of each batch. The augmentation of an
    image is drawn with (seed, epoch, number of the image in the epoch).

    Args:
        dataset: The stream.
        transform: Transform of the images.
        total_batch: Images per step over all ranks.
        seed: Seed of the augmentation.
        rank: Rank of this process.
        world_size: Number of ranks.

    Raises:
        DataError: The batch exceeds the stream, or is no multiple of ``world_size``; or the rank is
            out of range.
    """

    def __init__(
        self,
        dataset: ImageStream,
        transform: ImageTransform,
        *,
        total_batch: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        load: Callable[[Any], Any] = _unused
        super().__init__(
            dataset,
            total_batch=total_batch,
            seed=seed,
            rank=rank,
            world_size=world_size,
            load_batch=load,
        )
        self._stream, self._transform = dataset, transform
        self._total, self._seed = total_batch, seed
        local = total_batch // world_size
        self._slice = slice(rank * local, (rank + 1) * local)

    def batches(self, start_iter: int = 0) -> Iterator[Batch]:
        """Yields uint8 images (N, 3, H, W) and labels (N,) from batch ``start_iter`` on.

        Raises:
            DataError: The stream ends early, or an item, a label or an image is not allowed.
        """
        first, step = divmod(start_iter, self.iters_per_epoch)
        for epoch in count(first):
            begin = step * self._total
            items = self._stream.items(epoch, begin)
            for number in range(step, self.iters_per_epoch):
                batch = list(islice(items, self._total))
                keys = range(number * self._total, (number + 1) * self._total)
                seeds = [mix_seed(_AUGMENT, self._seed, epoch, i) for i in keys]
                part = self._slice
                yield _batch(self._stream, self._transform, batch[part], seeds[part])
            step = 0


class StreamEvalLoader(EvalLoader):
    """Batches that contain each of a stream's first ``len(dataset)`` images once, over all ranks.

    Rank r gets the images r, r + world_size, r + 2 world_size, ...

    Args:
        dataset: The stream.
        transform: Transform of the images.
        batch_size: Images per step of this rank; the last batch may be smaller.
        rank: Rank of this process.
        world_size: Number of ranks.

    Raises:
        DataError: The batch size or the rank is out of range.
    """

    def __init__(
        self,
        dataset: ImageStream,
        transform: ImageTransform,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(
            dataset, batch_size=batch_size, rank=rank, world_size=world_size, load_batch=_unused
        )
        self._stream, self._transform = dataset, transform
        self._size, self._rank, self._world = batch_size, rank, world_size

    def __iter__(self) -> Iterator[Batch]:
        """Yields uint8 images (N, 3, H, W) and labels (N,).

        Raises:
            DataError: The stream ends early, or an item, a label or an image is not allowed.
        """
        items = islice(self._stream.items(0), self._rank, None, self._world)
        while batch := list(islice(items, self._size)):
            yield _batch(self._stream, self._transform, batch, [0] * len(batch))


def _unused(keys: Sequence[tuple[int, int]]) -> Any:
    raise NotImplementedError("a stream has no random access")


def _batch(
    stream: ImageStream, transform: ImageTransform, items: list[tuple[Any, int]], seeds: list[int]
) -> Batch:
    pixels = []
    with preserved_rng() as generator:
        for (image, _), seed in zip(items, seeds, strict=True):
            generator.manual_seed(seed)
            pixels.append(transform.pixels(as_rgb(image, stream.name)))
    labels = torch.tensor([label for _, label in items], dtype=torch.int64)
    return torch.from_numpy(np.stack(pixels)).movedim(-1, -3), labels
