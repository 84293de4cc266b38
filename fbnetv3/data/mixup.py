"""Mixup (Zhang et al., 2018) and label smoothing as soft targets."""

from __future__ import annotations

import numpy as np
import torch

from fbnetv3.data.errors import DataError


class Mixup:
    """Blends each image of a batch with its mirror in the batch: image i with N - 1 - i.

    One weight per batch, from Beta(alpha, alpha).

    Args:
        alpha: Of the Beta distribution; 0 turns blending off and leaves smoothing.
        num_classes: Length of the soft targets.
        label_smoothing: Share of each target that is spread evenly over all classes.

    Raises:
        DataError: A value is out of its range.
    """

    def __init__(self, alpha: float, num_classes: int, label_smoothing: float = 0.0) -> None:
        if alpha < 0 or num_classes < 1 or not 0 <= label_smoothing < 1:
            raise DataError(
                f"mixup alpha {alpha} (>= 0), num_classes {num_classes} (>= 1), label_smoothing "
                f"{label_smoothing} (in [0, 1)): a value is out of range"
            )
        self.alpha, self.num_classes, self.label_smoothing = alpha, num_classes, label_smoothing

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns (images, soft targets N x num_classes, float32); the inputs stay as they are.

        Args:
            images: N x 3 x H x W.
            labels: N, int64.
            generator: On CPU; one draw is taken, none if alpha is 0.
        """
        targets = self.soft_targets(labels)
        if self.alpha == 0:
            return images, targets
        return self.blend(images, targets, self.draw(generator))

    def draw(self, generator: torch.Generator) -> float:
        """Draws the weight of a batch, from Beta(alpha, alpha)."""
        seed = int(torch.randint(2**32, (), generator=generator))
        # RandomState: its streams are frozen over numpy's versions
        return float(np.random.RandomState(seed).beta(self.alpha, self.alpha))

    def soft_targets(self, labels: torch.Tensor) -> torch.Tensor:
        """Returns N x num_classes: 1 - smoothing at the label, and smoothing / classes all over."""
        off = self.label_smoothing / self.num_classes
        targets = torch.full((len(labels), self.num_classes), off, device=labels.device)
        return targets.scatter_(1, labels[:, None], 1.0 - self.label_smoothing + off)

    @staticmethod
    def blend(
        images: torch.Tensor, targets: torch.Tensor, weight: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns ``weight * x + (1 - weight) * x.flip(0)`` of images and targets."""
        mixed = images.flip(0).mul_(1.0 - weight).add_(images * weight)
        return mixed, targets * weight + targets.flip(0) * (1.0 - weight)
