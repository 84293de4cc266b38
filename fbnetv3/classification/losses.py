"""Losses of classifiers, as functions of logits and of target probabilities of the classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fbnetv3.registries import LOSSES

WEIGHTED = ("cross_entropy", "binary_cross_entropy")
"""The built-in losses, which accept weights of the classes as a third argument."""


@LOSSES.register("cross_entropy")
def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Returns the mean over images of the cross-entropy, a scalar tensor.

    Args:
        logits: (N, C) logits.
        targets: (N, C) target probability of each class.
        weights: (C,) weight of each class, by which its term is multiplied. If None, all weights
            are 1.
    """
    return F.cross_entropy(logits, targets, weights)


@LOSSES.register("binary_cross_entropy")
def binary_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Returns the mean over images and classes of the binary cross-entropy, a scalar tensor.

    Args:
        logits: (N, C) logits.
        targets: (N, C) target probability of each class.
        weights: (C,) weight of each class, by which its term is multiplied. If None, all weights
            are 1.
    """
    return F.binary_cross_entropy_with_logits(logits, targets, weights)
