"""Conversion of a user's data sets, of any Python type, to data sets of this project."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import ConcatDataset
from torch.utils.data import Subset as TorchSubset

from fbnetv3.data.dataset import ImageDataset
from fbnetv3.data.errors import DataError
from fbnetv3.data.hugging_face import HuggingFaceDataset
from fbnetv3.data.items import as_rgb, check_label, pair_of, whole_label
from fbnetv3.data.streams import ImageStream
from fbnetv3.errors import FBNetError, first_line

_LABEL_ATTRIBUTES = ("targets", "labels", "_labels")


class MapDataset(ImageDataset):
    """A map-style data set of (image, label) pairs, such as torchvision's.

    An image is anything that ``fbnetv3.data.read_image`` reads, such as a Pillow image, or a tensor
    (C, H, W) of uint8, or of floats from 0 to 1. A pair may also be a mapping with the keys
    ``image`` and ``label``. Before a training reads an item, the generators of torch, ``random``
    and numpy are seeded from the seed, the epoch and the index, so that random transforms in the
    data set are reproducible.

    The labels are taken from the attribute ``targets``, ``labels`` or ``_labels`` if it has one
    value per image and there is no ``target_transform``, and otherwise by reading every item once.

    Args:
        dataset: Object with ``__len__`` and ``__getitem__``.
        name: Name in error messages.
        classes: Names of the classes. None: the attribute ``classes``, or else numbers from 0 on.
        num_classes: Number of classes, if there are no names; 0: the largest label + 1.

    Raises:
        DataError: ``dataset`` has no length, no ``__getitem__`` or no item, an item cannot be read
            or is not allowed, a label is not a whole number from 0 to the number of classes - 1, or
            the parts of a torch ``ConcatDataset`` name their classes differently and neither
            ``classes`` nor its own attribute ``classes`` names all.
    """

    def __init__(
        self, dataset: object, name: str, classes: Sequence[str] | None = None, num_classes: int = 0
    ) -> None:
        length = _length(dataset, name)
        if not hasattr(dataset, "__getitem__"):
            raise DataError(
                f"{name}: a {type(dataset).__name__} has no __getitem__; allowed: a map-style "
                "Dataset, or fbnetv3.data.ImageStream(iterable, length=..., classes=...)"
            )
        if not length:
            raise DataError(f"{name} is empty; allowed: one image or more")
        self._dataset, self._name = dataset, name
        read_image_of(dataset, 0, name)
        labels = labels_of(dataset)
        if labels is None:
            labels = [pair_of(_item(dataset, i, name), f"{name}[{i}]")[1] for i in range(length)]
        targets = [whole_label(label, f"{name}[{i}]") for i, label in enumerate(labels)]
        names = class_names(dataset, classes, num_classes or max(targets) + 1, name)
        for i, target in enumerate(targets):
            check_label(target, len(names), f"{name}[{i}]")
        super().__init__(name, names, targets)

    def image(self, i: int) -> Image.Image:
        return read_image_of(self._dataset, i, self._name)

    def file_name(self, i: int) -> str:
        return f"{self._name}[{i}]"


def as_image_dataset(
    dataset: object, name: str, classes: Sequence[str] | None = None, num_classes: int = 0
) -> ImageDataset | ImageStream:
    """Returns a user's data set as one of this project.

    Args:
        dataset: A data set of this project, a map-style torch Dataset (see :class:`MapDataset`), a
            Hugging Face ``datasets.Dataset``, or an :class:`ImageStream`.
        name: Name in error messages.
        classes: Names of the classes of a map-style Dataset; None: its own names, or numbers.
        num_classes: Number of its classes, if there are no names; 0: the largest label + 1.

    Raises:
        DataError: The data set is not of one of these kinds, or an item or label is not allowed.
    """
    if isinstance(dataset, (ImageDataset, ImageStream)):
        return dataset
    hugging_face = sys.modules.get("datasets")
    if hugging_face is not None and isinstance(dataset, (hugging_face.Dataset, dict)):
        return HuggingFaceDataset(dataset, name)
    return MapDataset(dataset, name, classes, num_classes)


def named_classes(dataset: object, name: str) -> list[str] | None:
    """Returns the names of the classes that a data set has itself; None if it has none.

    The names of a torch ``ConcatDataset`` without an attribute ``classes`` are those of its parts
    that have names.

    Args:
        dataset: Object of any type.
        name: Name in error messages.

    Raises:
        DataError: The parts of a ``ConcatDataset`` have different names, or another order of them.
    """
    if isinstance(dataset, TorchSubset):
        return named_classes(dataset.dataset, name)
    classes = getattr(dataset, "classes", None)
    if isinstance(classes, Iterable) and not isinstance(classes, (str, Mapping)):
        names = [str(each) for each in classes]
        if names:
            return names
    return _common_classes(dataset.datasets, name) if isinstance(dataset, ConcatDataset) else None


def _common_classes(parts: Sequence[object], name: str) -> list[str] | None:
    """Returns the names of the classes that parts have in common; see :func:`named_classes`."""
    named = [(i, names) for i, part in enumerate(parts) if (names := named_classes(part, name))]
    for i, names in named[1:]:
        first, expected = named[0]
        if names == expected:
            continue
        pairs = enumerate(zip(expected, names, strict=False))
        c = next((c for c, (one, other) in pairs if one != other), None)
        if c is None:
            problem = f"part {first} has {len(expected)} classes and part {i} has {len(names)}"
        else:
            problem = f"class {c} is {expected[c]!r} in part {first} and {names[c]!r} in part {i}"
        raise DataError(
            f"{name}: {problem}; the parts of a ConcatDataset must have the same classes in the "
            "same order: change their labels, and the names in their attribute classes; or, if the "
            "labels are numbers in one list of classes, set this list as the attribute classes of "
            "the ConcatDataset"
        )
    return named[0][1] if named else None


def class_names(dataset: object, classes: Sequence[str] | None, count: int, name: str) -> list[str]:
    """Returns the given names of classes, else those of the data set, else ``count`` numbers.

    Args:
        dataset: Object of any type.
        classes: Given names; None if there are none.
        count: Number of classes if there are no names at all.
        name: Name in error messages.

    Raises:
        DataError: See :func:`named_classes`, only if no names are given.
    """
    names = named_classes(dataset, name) if classes is None else list(classes)
    return names or [str(number) for number in range(count)]


def labels_of(dataset: object) -> list[Any] | None:
    """Returns the labels that a data set lists in an attribute.

    None is returned if it lists none, or changes them on reading (``target_transform``).
    """
    if isinstance(dataset, TorchSubset):
        labels = labels_of(dataset.dataset)
        return None if labels is None else [labels[int(i)] for i in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [labels_of(part) for part in dataset.datasets]
        return None if None in parts else [label for part in parts for label in part or ()]
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for key in _LABEL_ATTRIBUTES:
        values = getattr(dataset, key, None)
        if isinstance(values, (np.ndarray, torch.Tensor)):
            values = values.tolist()
        if (
            isinstance(values, (list, tuple))
            and isinstance(dataset, Sized)
            and len(values) == len(dataset)
        ):
            return list(values)
    return None


def read_image_of(dataset: object, i: int, name: str) -> Image.Image:
    """Returns image ``i`` of a map-style data set in RGB.

    Raises:
        DataError: The item cannot be read, is no pair, or its image is not allowed.
    """
    where = f"{name}[{i}]"
    return as_rgb(pair_of(_item(dataset, i, name), where)[0], where)


def _item(dataset: Any, i: int, name: str) -> Any:
    with reproducible():
        try:
            return dataset[i]
        except FBNetError:
            raise
        except Exception as error:  # of a user's code
            problem = f"{type(error).__name__}: {first_line(error)}"
            raise DataError(f"{name}[{i}] cannot be read ({problem})") from error


def _length(dataset: Any, name: str) -> int:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError) as error:
        raise DataError(
            f"{name}: a {type(dataset).__name__} has no length (__len__); allowed: a map-style "
            "Dataset, or fbnetv3.data.ImageStream(iterable, length=..., classes=...)"
        ) from error


@contextmanager
def reproducible() -> Iterator[None]:
    """Seeds ``random`` and numpy from torch's generator for a ``with`` block.

    After the block, the states of these two and of torch's CPU generator are as before.
    """
    numpy_state = np.random.get_state()  # noqa: NPY002 - transforms of users draw from it
    state = random.getstate(), torch.default_generator.get_state()
    seed = int(torch.randint(2**31, ()))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.default_generator.set_state(state[1])
