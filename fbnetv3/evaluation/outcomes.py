"""What a classifier predicts for the images of a data set, as arrays."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fbnetv3 import imagenet
from fbnetv3.data import ImageDataset
from fbnetv3.data.labels import label_tensor
from fbnetv3.errors import FBNetError, data_errors
from fbnetv3.evaluation.errors import EvaluationError
from fbnetv3.evaluation.views import View, views_of
from fbnetv3.predictions.batches import CLASSIFIER_BATCH, in_threads, memory_errors
from fbnetv3.weights.classes import class_order, other_classes
from fbnetv3.zoo.classifier import Classifier

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_WORDNET = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Outcomes:
    """The predictions for a data set.

    Attributes:
        classes: Names of the data's classes.
        probabilities: (images, classes) probabilities of the network.
        losses: (images,) cross-entropy of each image; with several labels per image, the mean over
            all classes of the binary cross-entropy.
        targets: (images,) index of the true class; with several labels per image, (images,
            classes) 1 for each class that the image has, otherwise 0.
        augmented: (images, classes) mean probabilities of all views; None without test-time
            augmentation.
        views: Number of views of an image in ``augmented``.
    """

    classes: Sequence[str]
    probabilities: Floats
    losses: Floats
    targets: Ints
    augmented: Floats | None = None
    views: int = 1


def matching_order(
    classifier: Classifier, dataset: ImageDataset, *, ignore_names: bool = False
) -> list[int] | None:
    """Returns for each class of the data its index in the network's outputs.

    Args:
        classifier: Classifier. The names ``class 0``, ``class 1`` and so on, which weights without
            names have, fit any data with as many classes.
        dataset: Data set. Its classes fit any network with 1,000 classes if they are 1,000 WordNet
            ids, as those of ImageNet's folders.
        ignore_names: Whether only the number of classes is compared.

    Returns:
        The indices; None if the classes differ.
    """
    names, data = classifier.classes, dataset.classes
    is_unnamed = names == tuple(f"class {i}" for i in range(len(names)))
    # networks for ImageNet have their outputs in the order of WordNet ids
    is_unnamed |= len(data) == imagenet.NUM_CLASSES and all(map(_WORDNET.fullmatch, data))
    order = class_order(names, data)
    if order is None and (ignore_names or is_unnamed) and len(names) == len(data):
        return list(range(len(data)))
    return order


def order_of_classes(
    classifier: Classifier, dataset: ImageDataset, *, ignore_names: bool = False
) -> list[int]:
    """Returns the indices of :func:`matching_order`.

    Args:
        classifier: Classifier.
        dataset: Data set.
        ignore_names: Whether only the number of classes is compared.

    Raises:
        EvaluationError: The classes differ.
    """
    order = matching_order(classifier, dataset, ignore_names=ignore_names)
    if order is None:
        names, data = classifier.classes, dataset.classes
        end = ", or compare only the number of classes with --ignore-class-names"
        raise EvaluationError(
            f"{dataset.name}: {other_classes(names, data)}; use the data set of the weights"
            f"{end if len(names) == len(data) else ''}"
        )
    return order


def predict_dataset(
    classifier: Classifier,
    dataset: ImageDataset,
    order: Sequence[int],
    *,
    augmentations: Sequence[str] = (),
    batch_size: int = CLASSIFIER_BATCH,
    advance: Callable[[int], Any] = lambda count: None,
) -> Outcomes:
    """Predicts all images of a data set.

    Args:
        classifier: Classifier on its device.
        dataset: Data set.
        order: For each class of the data, its index in the network's outputs.
        augmentations: Test-time augmentations, see :func:`fbnetv3.evaluation.views.views_of`.
        batch_size: Number of images that are run together.
        advance: Function called after each batch with its number of images.

    Raises:
        FBNetError: An image cannot be read, or the network does not take the size of a view.
    """
    plain = views_of(classifier.transform)
    extra = views_of(classifier.transform, augmentations) if augmentations else []
    logits: list[torch.Tensor] = []
    means: list[torch.Tensor] = []
    for batch in _batches(dataset, [*plain, *extra], batch_size):
        outputs = [_logits(classifier, pixels)[:, list(order)] for pixels in batch]
        logits.append(outputs[0])
        if extra:
            probabilities = [_probabilities(x, dataset.is_multi_label) for x in outputs[1:]]
            means.append(torch.stack(probabilities).mean(0))
        advance(len(outputs[0]))
    augmented = torch.cat(means).numpy() if means else None
    return _outcomes(dataset, torch.cat(logits).double(), augmented, max(1, len(extra)))


def _outcomes(
    dataset: ImageDataset, logits: torch.Tensor, augmented: Floats | None, views: int
) -> Outcomes:
    targets = label_tensor(dataset, range(len(dataset)))
    return Outcomes(
        tuple(dataset.classes),
        _probabilities(logits, dataset.is_multi_label).numpy(),
        _losses(logits, targets).numpy(),
        targets.to(torch.int64).numpy(),
        augmented,
        views,
    )


def _batches(
    dataset: ImageDataset, views: Sequence[View], size: int
) -> Iterator[list[list[npt.NDArray[np.uint8]]]]:
    """Yields a list for each batch of images: for each view, the pixels of all images."""

    def load(index: int) -> list[npt.NDArray[np.uint8]] | FBNetError:
        try:
            image = dataset.image(index)
            return [view(image) for view in views]
        except FBNetError as error:
            return error

    batch: list[list[npt.NDArray[np.uint8]]] = []
    for index, pixels in in_threads(load, range(len(dataset)), 2 * size):
        if isinstance(pixels, FBNetError):
            raise pixels
        batch.append(pixels)
        if len(batch) == size or index + 1 == len(dataset):
            yield [list(of_view) for of_view in zip(*batch, strict=True)]
            batch = []


def _logits(classifier: Classifier, pixels: list[npt.NDArray[np.uint8]]) -> torch.Tensor:
    height, width = pixels[0].shape[:2]
    where = f"{classifier.source} at {width} x {height} pixels"
    with memory_errors(len(pixels)), data_errors(EvaluationError, where):
        return classifier.logits_of_pixels(pixels)


def _probabilities(logits: torch.Tensor, several: bool) -> torch.Tensor:
    return logits.double().sigmoid() if several else logits.double().softmax(1)


def _losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    functional = torch.nn.functional
    if targets.ndim == 1:
        return functional.cross_entropy(logits, targets, reduction="none")
    losses = functional.binary_cross_entropy_with_logits(logits, targets.double(), reduction="none")
    return losses.mean(1)
