"""The search for files of a data set that cannot be decoded, before training starts."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.progress import track

from fbnetv3.data.dataset import ImageDataset, Subset
from fbnetv3.data.errors import DataError, some

_MAX_THREADS = 8

logger = logging.getLogger(__name__)


def find_broken(dataset: ImageDataset, workers: int | None = None) -> dict[int, str]:
    """Returns the error message of each image that cannot be decoded, by index.

    Args:
        dataset: Data set whose images are all decoded.
        workers: Number of threads. None takes one per core, at most 8.
    """

    def error_of(i: int) -> str | None:
        try:
            dataset.load(i)
        except DataError as error:
            return str(error)
        return None

    threads = workers or min(_MAX_THREADS, os.cpu_count() or 1)
    console = Console(stderr=True)
    with ThreadPoolExecutor(threads) as pool:
        errors = track(
            pool.map(error_of, range(len(dataset))),
            description=f"checking {dataset.name}",
            total=len(dataset),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        return {i: error for i, error in enumerate(errors) if error is not None}


def without_broken(dataset: ImageDataset, workers: int | None = None) -> ImageDataset:
    """Returns the data set without the images that cannot be decoded.

    The names of these files are logged, and listed in ``broken`` of the returned data set.

    Args:
        dataset: Data set whose images are all decoded.
        workers: Number of threads. None takes one per core, at most 8.

    Raises:
        DataError: A class has no image left.
    """
    broken = find_broken(dataset, workers)
    if not broken:
        return dataset
    names = [dataset.file_name(i) for i in broken]
    logger.warning(
        "%s: %d of %d images are broken and left out: %s",
        dataset.name, len(broken), len(dataset), some(names),
    )  # fmt: skip
    kept = Subset(dataset, [i for i in range(len(dataset)) if i not in broken])
    kept.broken = dataset.broken + names
    _check_all_classes_left(kept)
    return kept


def _check_all_classes_left(dataset: ImageDataset) -> None:
    left = set(dataset.targets)
    lost = [c for i, c in enumerate(dataset.classes) if i not in left]
    if lost:
        raise DataError(
            f"{dataset.name}: every image of class {some(lost)} is broken "
            f"({some(dataset.broken, 2)}); replace them or delete the class folder"
        )
