"""Test-time augmentation: the views of an image whose probabilities are averaged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fbnetv3.data.transforms import EvalTransform, default_resize
from fbnetv3.evaluation.errors import EvaluationError

Pixels = npt.NDArray[np.uint8]
View = Callable[[Image.Image], Pixels]
"""Function from an image to the pixels (H, W, 3) that the network sees."""
SCALE = 1.25
"""Ratio of the larger resolution of ``scales`` to the resolution of the network."""
_MULTIPLE = 8  # the sides of ``scales`` are multiples of this number of pixels
TEXTS = {
    "flip": "each view also mirrored",
    "scales": f"the image also at {SCALE:g} times the resolution, rounded up to a multiple of 8",
    "crops": "the corners and the centre of a larger square in place of the centre alone",
}
"""Names of the augmentations, and what each does."""


def views_of(transform: EvalTransform, augmentations: Sequence[str] = ()) -> list[View]:
    """Returns the views that augmentations make; without any, the preprocessed image alone.

    ``crops`` resizes the shorter side and takes five crops. The shorter side then has the larger of
    two lengths: ``resize`` of the preprocessing, and 8/7 of the resolution rounded up to a multiple
    of 8. Augmentations are combined: ``flip`` and ``crops`` make ten views.

    Args:
        transform: Preprocessing of the network.
        augmentations: Names in ``TEXTS``.

    Raises:
        EvaluationError: A name is unknown.
    """
    for name in augmentations:
        if name not in TEXTS:
            allowed = ", ".join(TEXTS)
            raise EvaluationError(f"unknown augmentation {name!r}; allowed: {allowed}")
    transforms = [transform]
    if "scales" in augmentations:
        transforms.append(_scaled(transform.rule))
    views: list[View] = []
    for item in transforms:
        views += _crops(item) if "crops" in augmentations else [item.pixels]
    if "flip" in augmentations:
        views += [_mirrored(view) for view in views]
    return views


def _scaled(rule: dict[str, Any]) -> EvalTransform:
    sides = {
        key: math.ceil(rule[key] * SCALE / _MULTIPLE) * _MULTIPLE
        for key in ("resolution", "resize")
    }
    return EvalTransform(**{**rule, **sides})


def _crops(transform: EvalTransform) -> list[View]:
    """Returns five crops of the central square of the resized image."""
    rule = transform.rule
    side = int(rule["resolution"])
    square = max(int(rule["resize"]), default_resize(side))
    whole = EvalTransform(**{**rule, "resolution": square, "resize": square})
    end = square - side
    middle = end // 2
    corners = [(0, 0), (0, end), (end, 0), (end, end), (middle, middle)]

    def crop(top: int, left: int) -> View:
        return lambda image: whole.pixels(image)[top : top + side, left : left + side]

    return [crop(*corner) for corner in corners]


def _mirrored(view: View) -> View:
    return lambda image: np.ascontiguousarray(view(image)[:, ::-1])
