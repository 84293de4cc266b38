"""Parts of a detection data set: images held out for evaluation, or a smaller training set."""

from __future__ import annotations

import numpy as np

from fbnetv3.data.errors import DataError
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.evaluation import count_scored_boxes


def split_images(
    dataset: CocoDataset, held: int, seed: int, *, stratified: bool = True
) -> tuple[CocoDataset, CocoDataset]:
    """Divides the images of a data set into two parts; both keep the order of the images.

    Args:
        dataset: Data set to divide.
        held: Number of images of the second part; above 0 and below the number of images.
        seed: Seed of the draw.
        stratified: Whether both parts have about the same share of the images with each class, and
            of those without a box. An image can have several classes, so that the shares cannot be
            equal exactly. False: images are drawn at random.

    Returns:
        The first part, with all other images, and the second part.

    Raises:
        DataError: ``held`` is out of range.
    """
    count = len(dataset)
    if not 0 < held < count:
        raise DataError(
            f"{dataset.name}: {held} of {count} images cannot be split off; allowed: 1 to "
            f"{count - 1}"
        )
    generator = np.random.default_rng([seed, held, count])
    labels = _labels(dataset) if stratified else np.ones((count, 1), dtype=bool)
    chosen = iterative_stratification(labels, held, generator)
    parts = [[r for r, c in zip(dataset.records, chosen, strict=True) if c == p] for p in (0, 1)]
    first, second = (dataset.replace_records(records) for records in parts)
    return first, second


def _labels(dataset: CocoDataset) -> np.ndarray:
    """Returns bools (images, classes + 1): the classes of each image, and whether it has no box.

    Boxes that mark a crowd do not count.
    """
    labels = np.zeros((len(dataset), len(dataset.classes) + 1), dtype=bool)
    for i, record in enumerate(dataset.records):
        for item in record["annotations"]:
            if not item["iscrowd"]:
                labels[i, item["category_id"]] = True
        labels[i, -1] = not count_scored_boxes(record["annotations"])
    return labels


def iterative_stratification(
    labels: np.ndarray, held: int, generator: np.random.Generator
) -> np.ndarray:
    """Draws images so that each label has about the same share among them as among all images.

    This is the iterative stratification of Sechidis et al. (On the stratification of multi-label
    data, 2011) for two parts of given sizes: the images of the rarest label are assigned first,
    each to the part that lacks the most images with this label.

    Args:
        labels: Labels of each image as a boolean array of shape (images, labels).
        held: Number of images to draw.
        generator: Source of the random draws.

    Returns:
        A boolean array of shape (images,), with ``held`` entries that are True.
    """
    count = len(labels)
    sizes = np.array([count - held, held], dtype=np.float64)  # images that each part lacks
    lacks = np.outer(sizes / count, labels.sum(0))  # (2, labels)
    chosen = np.zeros(count, dtype=bool)
    order = generator.permutation(count)
    is_open = np.ones(count, dtype=bool)  # images that are in no part yet
    remaining = labels.sum(0)
    while is_open.any():
        rare = np.flatnonzero(remaining)
        label = rare[np.argmin(remaining[rare])] if rare.size else -1
        due = order[is_open[order] & (labels[order, label] if rare.size else True)]
        for image in due:
            part = _neediest(sizes, lacks[:, label] if rare.size else sizes)
            chosen[image], is_open[image] = bool(part), False
            sizes[part] -= 1
            lacks[part] -= labels[image]
        remaining = labels[is_open].sum(0)
    return chosen


def _neediest(sizes: np.ndarray, lacks: np.ndarray) -> int:
    """Returns the part with room that lacks the most images with a label.

    In a tie, it is the part that lacks the most images.
    """
    parts = [part for part in (0, 1) if sizes[part] >= 1]
    return max(parts, key=lambda part: (lacks[part], sizes[part]))
