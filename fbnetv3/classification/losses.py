"""Losses of classifiers: of logits and the probabilities of classes that they should have."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fbnetv3.registries import LOSSES


@LOSSES.register("cross_entropy")
def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean cross-entropy of logits (N, C) with targets (N, C)."""
    return F.cross_entropy(logits, targets)
