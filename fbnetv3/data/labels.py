"""The targets of images as tensors, and the number of images of each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fbnetv3.data.dataset import ImageDataset


def label_tensor(dataset: ImageDataset, indices: Sequence[int]) -> torch.Tensor:
    """Returns the targets of images: class indices (N,) in int64, or (N, classes) in float32.

    A data set with several labels per image has the second form: 1 for each class of the image, and
    0 for the other classes.
    """
    targets = [dataset.targets[i] for i in indices]
    if not dataset.is_multi_label:
        return torch.tensor(targets, dtype=torch.int64)
    rows = torch.zeros(len(targets), len(dataset.classes))
    for row, labels in zip(rows, targets, strict=True):
        row[list(labels)] = 1.0
    return rows


def class_counts_of(dataset: ImageDataset) -> list[int]:
    """Returns the number of images of each class; images with several classes count for each."""
    counts = [0] * len(dataset.classes)
    for target in dataset.targets:
        for label in target if dataset.is_multi_label else (target,):
            counts[label] += 1
    return counts
