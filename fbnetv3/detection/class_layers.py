"""The layers of a detector that have rows for each class, and the order of these rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fbnetv3.weights.classes import reorder_rows

# Beginnings of the names of layers whose shape depends on the number of classes.
CLASS_LAYERS = ("head.cls_score", "roi_heads.box_predictor")


def reorder_detector(tensors: Mapping[str, Tensor], order: Sequence[int]) -> dict[str, Tensor]:
    """Returns the tensors of a detector with the rows of its classes in another order.

    Args:
        tensors: Tensors of a RetinaNet or an R-CNN of detectron2 by name.
        order: For each class of the result, its index in the order of classes of ``tensors``.
    """
    return {key: _reordered(key, value, order) for key, value in tensors.items()}


def _reordered(key: str, value: Tensor, order: Sequence[int]) -> Tensor:
    if not key.startswith(CLASS_LAYERS):
        return value
    rows, classes = len(value), len(order)
    if key.startswith("head."):  # RetinaNet: all classes of the first anchor, then of the next
        return reorder_rows(value, order, rows // classes) if rows % classes == 0 else value
    if ".cls_score." in key and rows == classes + 1:  # the last row is that of the background
        return torch.cat([reorder_rows(value[:-1], order), value[-1:]])
    if ".bbox_pred." in key and rows == 4 * classes:  # otherwise class-agnostic
        return reorder_rows(value, order)
    return value
