"""Checks, before training starts, that all images of a data set can be decoded."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from fbnetv3.data.dataset import ImageDataset, Subset
from fbnetv3.data.errors import DataError, all_problems, some
from fbnetv3.data.labels import class_counts_of

T = TypeVar("T")
_MAX_THREADS = 8

logger = logging.getLogger(__name__)


def check_all(
    problem_of: Callable[[T], str | None], items: Sequence[T], name: str
) -> list[str | None]:
    """Returns the problem of each item, or None; threads check the items under a progress bar.

    Args:
        problem_of: Function that describes the problem of an item, or returns None.
        items: Items to check.
        name: Name of the items on the progress bar, which is shown on a terminal only.
    """
    console = Console(stderr=True)
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        problems = track(
            pool.map(problem_of, items),
            description=f"checking {name}",
            total=len(items),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        return list(problems)


def find_broken(dataset: ImageDataset) -> dict[int, str]:
    """Returns the error message of each image that cannot be decoded, by index."""

    problems = check_all(lambda i: _problem(dataset, i), range(len(dataset)), dataset.name)
    return {i: problem for i, problem in enumerate(problems) if problem is not None}


def _problem(dataset: ImageDataset, i: int) -> str | None:
    try:
        dataset.load(i)
    except DataError as error:
        return str(error)
    return None


def refuse_broken(dataset: ImageDataset, seconds: float | None = None) -> int:
    """Checks that every image can be decoded, or as many as time allows.

    Args:
        dataset: Data set to check.
        seconds: Time after which no further image is decoded; None: there is no limit. The images
            come in a random order, which is always the same.

    Returns:
        Number of decoded images.

    Raises:
        DataError: Images cannot be decoded; the message has their number and the first errors.
    """
    order, start = np.random.default_rng(0).permutation(len(dataset)).tolist(), time.monotonic()
    decoded: list[int] = []

    def problem_of(i: int) -> str | None:
        if seconds is not None and time.monotonic() - start > seconds:
            return None
        decoded.append(i)  # list.append is thread-safe
        return _problem(dataset, i)

    problems = zip(order, check_all(problem_of, order, dataset.name), strict=True)
    broken = [problem for _, problem in sorted(problems) if problem is not None]
    if broken:
        images = "images" if len(decoded) == len(dataset) else "checked images"
        raise DataError(
            f"{dataset.name}: {len(broken)} of {len(decoded)} {images} are broken: "
            f"{all_problems(broken)}"
        )
    return len(decoded)


def without_broken(dataset: ImageDataset) -> ImageDataset:
    """Returns the data set without the images that cannot be decoded.

    The names of these files are logged, and listed in ``broken`` of the returned data set.

    Raises:
        DataError: All images of a class are broken.
    """
    broken = find_broken(dataset)
    if not broken:
        return dataset
    names = [dataset.file_name(i) for i in broken]
    logger.warning(
        "%s: %d of %d images are broken and left out: %s",
        dataset.name, len(broken), len(dataset), some(names),
    )  # fmt: skip
    kept = Subset(dataset, [i for i in range(len(dataset)) if i not in broken])
    kept.broken = dataset.broken + names
    _check_classes_left(dataset, kept)
    return kept


def _check_classes_left(dataset: ImageDataset, kept: ImageDataset) -> None:
    before, after = class_counts_of(dataset), class_counts_of(kept)
    numbers = zip(kept.classes, before, after, strict=True)
    lost = [name for name, count, left in numbers if count > left == 0]
    if lost:
        raise DataError(
            f"{kept.name}: every image of class {some(lost)} is broken "
            f"({some(kept.broken, 2)}); replace them or delete the class folder"
        )
