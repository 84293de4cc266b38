"""Loaders of trainings and evaluations; batches do not depend on the number of workers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from fbnetv3.data.errors import DataError
from fbnetv3.data.image_batches import LoadBatch, SizedNamed, Transform, image_loader
from fbnetv3.data.order import EpochOrder
from fbnetv3.data.seeding import mix_seed
from fbnetv3.errors import FBNetError
from fbnetv3.user_code import UserCode

# First key of the seeds of augmentations, so that they differ from the seeds in data/order.py.
_AUGMENT = 1


@dataclass(frozen=True)
class LoaderOptions:
    """Options of a loader's workers and memory, none of which changes the content of batches.

    Attributes:
        prefetch: Batches that each worker process prepares in advance, 1 or more.
        persistent: Whether the workers stay alive between passes of an ``EvalLoader``.
        pin_memory: Whether batches are put into pinned memory, from which they are copied to
            a CUDA device while it computes.

    Raises:
        DataError: ``prefetch`` is below 1.
    """

    prefetch: int = 2
    persistent: bool = True
    pin_memory: bool = False

    def __post_init__(self) -> None:
        if self.prefetch < 1:
            raise DataError(f"the batches to prefetch are {self.prefetch}; allowed: 1 or more")


class TrainLoader:
    """An endless sequence of shuffled and augmented batches.

    In epoch e the images come in an order drawn with (seed, e), see ``EpochOrder``, and the
    images after the last full batch are dropped. The augmentation of an image is drawn with (seed,
    e, index of the image) and, if the image appears several times in the epoch, the number of the
    copy. Hence the batches do not depend on ``num_workers``, and the joined batches of all ranks do
    not depend on ``world_size``. Transforms draw from torch's global CPU generator, whose state is
    restored after each batch; a transform must not draw from ``random`` or numpy.

    Args:
        dataset: Data set to read.
        transform: Function from a Pillow image to a (3, H, W) tensor, drawing from torch's global
            generator. None if ``load_batch`` is given.
        total_batch: Images per step over all ranks.
        seed: Seed of order and augmentation.
        num_workers: Number of worker processes; 0 prepares batches in this process.
        rank: Rank of this process, which gets slice ``rank`` of each batch.
        world_size: Number of ranks.
        load_batch: Function that loads the batches, if they are not images and labels.
        uint8: Whether images are yielded as uint8 pixels, which ``Normalize`` converts to the
            network's input on its device. Otherwise the transform normalises them in the loader.
        options: Options of workers and memory; None uses the defaults.
        order: Order of the images in each epoch; None shows each image once.

    Raises:
        DataError: The batch exceeds the data set, or is no multiple of ``world_size``; another
            number is out of range; or ``transform`` does not fit the data set or ``uint8``.
    """

    def __init__(
        self,
        dataset: SizedNamed,
        transform: Transform | None = None,
        *,
        total_batch: int,
        seed: int,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        load_batch: LoadBatch | None = None,
        uint8: bool = False,
        options: LoaderOptions | None = None,
        order: EpochOrder | None = None,
    ) -> None:
        _check_ranks(rank, world_size, num_workers)
        _check_batch(dataset, total_batch, world_size)
        self.dataset = dataset
        self.iters_per_epoch = len(dataset) // total_batch
        self._num_workers, self._options = num_workers, options or LoaderOptions()
        load = load_batch or image_loader(dataset, transform, uint8)
        order = order or EpochOrder(len(dataset), seed)
        self._batches = _TrainBatches(
            len(dataset), load, order, total_batch, seed, rank, world_size
        )

    def batches(self, start_iter: int = 0) -> Iterator[Any]:
        """Yields the batches from number ``start_iter`` on, without end.

        Earlier batches are not read, so a late start takes no extra time.

        Yields:
            Images (N, 3, H, W) in channels_last, float32 or (if the loader was made with ``uint8``)
            uint8, and labels: class indices (N,) in int64 or, if images have several labels, zeros
            and ones (N, classes) in float32. N is ``total_batch / world_size``. If there is a
            ``load_batch``, the batches that it returns.

        Raises:
            DataError: ``start_iter`` is negative, an image cannot be decoded, or a worker died.
        """
        if start_iter < 0:
            raise DataError(f"start_iter is {start_iter}; allowed: 0 or more")
        numbers = _EndlessSampler(start_iter)
        return _checked(_data_loader(self._batches, numbers, self._num_workers, self._options))


class EvalLoader:
    """Batches of one rank; those of all ranks together contain every image once.

    Rank r gets the images r, r + world_size, r + 2 world_size, ... No image is repeated, so
    the ranks' numbers of images may differ by one: scores must be summed over ranks, not averaged.

    Args:
        dataset: Data set to read.
        transform: Function from a Pillow image to a (3, H, W) tensor. None if ``load_batch`` is
            given.
        batch_size: Images per step of this rank; the last batch may be smaller.
        num_workers: Number of worker processes; 0 prepares batches in this process.
        rank: Rank of this process.
        world_size: Number of ranks.
        load_batch: Function that loads the batches, if they are not images and labels.
        uint8: Whether images are yielded as uint8 pixels, which ``Normalize`` converts to the
            network's input on its device. Otherwise the transform normalises them in the loader.
        options: Options of workers and memory; None uses the defaults.

    Raises:
        DataError: There are no images, the batch size, the rank or the number of workers is out of
            range, or ``transform`` does not fit the data set or ``uint8``.
    """

    def __init__(
        self,
        dataset: SizedNamed,
        transform: Transform | None = None,
        *,
        batch_size: int,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        load_batch: LoadBatch | None = None,
        uint8: bool = False,
        options: LoaderOptions | None = None,
    ) -> None:
        _check_ranks(rank, world_size, num_workers)
        if not len(dataset):
            raise DataError(f"{dataset.name} has no images to evaluate")
        if batch_size < 1:
            raise DataError(f"the batch size is {batch_size}; allowed: 1 or more")
        self.dataset = dataset
        self.num_images = len(range(rank, len(dataset), world_size))
        load = load_batch or image_loader(dataset, transform, uint8)
        self._batches = _EvalBatches(len(dataset), load, batch_size, rank, world_size)
        numbers = range(len(self._batches))
        self._loader = _data_loader(self._batches, numbers, num_workers, options or LoaderOptions())

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        """Yields images (N, 3, H, W) and labels (N,) or (N, classes), or ``load_batch``'s batches.

        Raises:
            DataError: An image cannot be decoded, or a worker died.
        """
        return _checked(self._loader)


class _Batches(Dataset[Any]):
    """Batches by number.

    An FBNetError is returned instead of a batch, since DataLoader rewrites errors that are raised.
    """

    def __init__(self, load: LoadBatch) -> None:
        self._code = UserCode()  # pickled first: a worker imports it before it unpickles the rest
        self._load = load

    def keys(self, number: int) -> list[tuple[int, int]]:
        """Returns (index, seed) of each image of batch ``number``."""
        raise NotImplementedError

    def __getitem__(self, number: int) -> Any:
        try:
            return self._load(self.keys(number))
        except FBNetError as error:
            return error


class _TrainBatches(_Batches):
    def __init__(
        self,
        size: int,
        load: LoadBatch,
        order: EpochOrder,
        total_batch: int,
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        super().__init__(load)
        self._size, self._total, self._seed = size, total_batch, seed
        local = total_batch // world_size
        self._slice = slice(rank * local, (rank + 1) * local)
        self._order = order

    def keys(self, number: int) -> list[tuple[int, int]]:
        epoch, step = divmod(number, self._size // self._total)
        batch = self._order.of_epoch(epoch)[step * self._total : (step + 1) * self._total]
        # Copy 0 of an image has the same seed as in a training that shows each image once.
        return [
            (i, mix_seed(_AUGMENT, self._seed, epoch, i, *((copy,) if copy else ())))
            for i, copy in batch[self._slice]
        ]


class _EvalBatches(_Batches):
    def __init__(
        self,
        size: int,
        load: LoadBatch,
        batch_size: int,
        rank: int,
        world_size: int,
    ) -> None:
        super().__init__(load)
        self._indices = range(rank, size, world_size)
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._indices) // self._batch_size)  # rounded up

    def keys(self, number: int) -> list[tuple[int, int]]:
        start = number * self._batch_size
        batch = self._indices[start : start + self._batch_size]
        return [(i, mix_seed(_AUGMENT, i)) for i in batch]


class _EndlessSampler:
    """An endless sampler of the numbers from ``start`` on."""

    def __init__(self, start: int) -> None:
        self._start = start

    def __iter__(self) -> Iterator[int]:
        return count(self._start)


def _data_loader(
    batches: _Batches, numbers: _EndlessSampler | range, num_workers: int, options: LoaderOptions
) -> DataLoader[Any]:
    return DataLoader(
        batches,
        batch_size=None,
        sampler=numbers,
        num_workers=num_workers,
        collate_fn=_unchanged,
        persistent_workers=options.persistent and num_workers > 0,
        prefetch_factor=options.prefetch if num_workers else None,
        pin_memory=options.pin_memory,
        worker_init_fn=_start_process_group,
        # Otherwise each pass would draw a seed from the global generator.
        generator=torch.Generator(),
    )


def _start_process_group(worker: int) -> None:
    # A terminal (Ctrl-C) and some batch systems send signals to a whole process group. A worker
    # leaves the main process's group, so that these signals do not reach it.
    os.setpgid(0, 0)
    _ignore_sigterm_unless_from_parent()


def _ignore_sigterm_unless_from_parent() -> None:
    # Other batch systems, such as Slurm, send SIGTERM to every process of a job in any group. The
    # main process then finishes its step, and needs the workers for it. Hence SIGTERM ends
    # a worker only if the main process sends it.
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        return
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _unchanged(item: Any) -> Any:
    return item


def _checked(loader: DataLoader[Any]) -> Iterator[Any]:
    try:
        for item in loader:
            if isinstance(item, FBNetError):
                raise item
            yield item
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a data worker died ({' '.join(str(error).split())}), usually for lack of memory; use "
            "fewer workers (DATALOADER.NUM_WORKERS 0 starts none) or a larger /dev/shm"
        ) from error


def _check_ranks(rank: int, world_size: int, num_workers: int) -> None:
    if not 0 <= rank < world_size:
        raise DataError(f"the rank is {rank}; allowed: 0 to {world_size - 1} (world size - 1)")
    if num_workers < 0:
        raise DataError(f"the number of data workers is {num_workers}; allowed: 0 or more")


def _check_batch(dataset: SizedNamed, total_batch: int, world_size: int) -> None:
    if total_batch < 1 or total_batch % world_size:
        raise DataError(
            f"the batch size is {total_batch}; allowed with {world_size} processes: positive "
            f"multiples of {world_size}"
        )
    if len(dataset) < total_batch:
        raise DataError(
            f"{dataset.name} has {len(dataset)} images, fewer than one batch ({total_batch}); "
            "lower the batch size or add images"
        )
