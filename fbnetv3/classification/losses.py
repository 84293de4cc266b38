"""Losses of classifiers: of logits and the probabilities of classes that they should have."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fbnetv3.registries import LOSSES

WEIGHTED = ("cross_entropy", "binary_cross_entropy")
"""Losses that accept weights of classes as third argument."""


@LOSSES.register("cross_entropy")
def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Returns the mean over images of the cross-entropy of logits (N, C) with targets (N, C).

    Args:
        logits: Logits.
        targets: Probabilities of the classes.
        weights: Weight of each class, (C,), which multiplies its term; None weights all equally.
    """
    return F.cross_entropy(logits, targets, weights)


@LOSSES.register("binary_cross_entropy")
def binary_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Returns the mean over images and classes of the binary cross-entropy.

    Args:
        logits: Logits (N, C).
        targets: Probability of each class, (N, C).
        weights: Weight of each class, (C,), which multiplies its term; None weights all equally.
    """
    return F.binary_cross_entropy_with_logits(logits, targets, weights)
