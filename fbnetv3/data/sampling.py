"""Deterministic choice of the images and classes of a smaller data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def stratified_order(targets: Sequence[int], seed: int) -> list[int]:
    """Returns all indices in a random order in which every prefix is stratified.

    A prefix has the same fraction of the images of each class, to within one image per class.

    Args:
        targets: Class of each image.
        seed: Random seed of the order, at least 0; its lowest 32 bits count.
    """
    random = _random(seed)
    classes = np.asarray(targets)
    position = np.empty(len(classes))
    for c in np.unique(classes):
        members = np.flatnonzero(classes == c)
        # The image at place j (from 0) in a random order of a class's n images has the position
        # (j + 1/2) / n.
        position[members] = (random.permutation(len(members)) + 0.5) / len(members)
    ties = random.permutation(len(classes))
    order: list[int] = np.lexsort((ties, position)).tolist()  # by position first
    return order


def random_classes(count: int, k: int, seed: int) -> list[int]:
    """Returns ``k`` randomly drawn numbers below ``count`` in ascending order.

    Args:
        count: Number of numbers to draw from.
        k: Number of numbers to draw, from 0 to ``count``.
        seed: Random seed, at least 0; its lowest 32 bits count.
    """
    return sorted(_random(seed).permutation(count)[:k].tolist())


def _random(seed: int) -> np.random.RandomState:
    # Unlike numpy's Generator, RandomState has the same streams in every version of numpy.
    return np.random.RandomState(seed % 2**32)
