"""Which images go into a smaller data set: deterministic, every class represented."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def stratified_order(targets: Sequence[int], seed: int) -> list[int]:
    """Returns all indices so that any head holds each class in proportion (to one image).

    Args:
        targets: Class of each image.
        seed: Which images of a class come first, and which class wins a tie.
    """
    # RandomState: its streams are frozen, those of numpy's Generator may change
    random = np.random.RandomState(seed)
    classes = np.asarray(targets)
    position = np.empty(len(classes))
    for c in np.unique(classes):
        members = np.flatnonzero(classes == c)
        # the j-th of n images of a class stands at (j + 1/2) / n of the way
        position[members] = (random.permutation(len(members)) + 0.5) / len(members)
    ties = random.permutation(len(classes))
    order: list[int] = np.lexsort((ties, position)).tolist()
    return order


def some_classes(count: int, k: int, seed: int) -> list[int]:
    """Returns ``k`` of ``count`` class numbers, drawn at random, ascending."""
    return sorted(np.random.RandomState(seed).permutation(count)[:k].tolist())
