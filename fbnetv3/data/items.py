"""The items of a user's data sets: pairs of an image and the index of its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from fbnetv3.data.decode import ImageLike, read_image
from fbnetv3.data.errors import DataError
from fbnetv3.errors import FBNetError


def whole_label(label: object, where: str) -> int:
    """Returns a label as an int.

    Raises:
        DataError: The label is a bool, or neither an int nor a tensor or array with a single whole
            number.
    """
    value = label
    if isinstance(label, (torch.Tensor, np.ndarray, np.generic)) and np.prod(label.shape) == 1:
        value = label.item()
    if isinstance(value, bool) or not isinstance(value, int):
        kind = f"of shape {tuple(label.shape)}" if hasattr(label, "shape") else repr(label)[:80]
        raise DataError(
            f"{where}: the label is a {type(label).__name__} {kind}; allowed: the index of a "
            "class, a whole number"
        )
    return int(value)


def check_label(label: int, count: int, where: str) -> None:
    """Checks that a label is in [0, count).

    Raises:
        DataError: The label is out of this range.
    """
    if not 0 <= label < count:
        raise DataError(
            f"{where}: label {label} is out of range; allowed with {count} classes: 0 to "
            f"{count - 1} (MODEL.NUM_CLASSES, or the data set's attribute classes)"
        )


def as_rgb(image: ImageLike, where: str) -> Image.Image:
    """Returns an image of any kind in RGB.

    Raises:
        DataError: The object is no image, cannot be read, or has a shape or values that are not
            allowed.
    """
    try:
        return read_image(image)
    except FBNetError as error:
        raise DataError(f"{where}: {error}") from error
    except (TypeError, AttributeError) as error:
        raise DataError(
            f"{where}: a {type(image).__name__} is no image; allowed: a Pillow image, or a tensor "
            "(3, H, W) of uint8, or of floats from 0 to 1"
        ) from error


def pair_of(item: object, where: str) -> tuple[Any, Any]:
    """Returns (image, label) of an item: a pair, or a mapping with the keys image and label.

    Raises:
        DataError: The item is neither a pair nor such a mapping.
    """
    if isinstance(item, Mapping) and {"image", "label"} <= set(item):
        return item["image"], item["label"]
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    size = f" of {len(item)}" if hasattr(item, "__len__") else ""
    kind = f"{type(item).__name__}{size}"
    raise DataError(
        f"{where}: an item is a {kind}; allowed: a pair (image, label), or a mapping with the keys "
        "image and label"
    )
