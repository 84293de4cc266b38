"""Mixup (Zhang et al., 2018) and label smoothing, by soft targets."""

from __future__ import annotations

import numpy as np
import torch

from fbnetv3.data.errors import DataError


class Mixup:
    """Blends image i of a batch of N with image N - 1 - i, and their targets likewise.

    All pairs of a batch share one weight, drawn from Beta(alpha, alpha).

    Args:
        alpha: Parameter >= 0 of the Beta distribution. 0 switches blending off, but not label
            smoothing.
        num_classes: Number of classes.
        label_smoothing: Fraction of each target, in [0, 1), that is spread evenly over all classes.

    Raises:
        DataError: A value is out of its range.
    """

    def __init__(self, alpha: float, num_classes: int, label_smoothing: float = 0.0) -> None:
        if alpha < 0 or num_classes < 1 or not 0 <= label_smoothing < 1:
            raise DataError(
                f"a value of mixup is out of range: alpha {alpha} (allowed: >= 0), num_classes "
                f"{num_classes} (allowed: >= 1), label_smoothing {label_smoothing} "
                "(allowed: [0, 1))"
            )
        self.alpha, self.num_classes, self.label_smoothing = alpha, num_classes, label_smoothing

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns blended images and soft targets (N, num_classes), without changing the inputs.

        Args:
            images: (N, 3, H, W) images.
            labels: (N,) labels, int64.
            generator: CPU generator; one number is drawn from it unless alpha is 0.
        """
        targets = self.soft_targets(labels)
        if self.alpha == 0:
            return images, targets
        return self.blend(images, targets, self.draw(generator))

    def draw(self, generator: torch.Generator) -> float:
        """Returns a random weight for a batch, from Beta(alpha, alpha)."""
        seed = int(torch.randint(2**32, (), generator=generator))
        # Unlike numpy's Generator, RandomState has the same streams in every version of numpy.
        return float(np.random.RandomState(seed).beta(self.alpha, self.alpha))

    def soft_targets(self, labels: torch.Tensor) -> torch.Tensor:
        """Returns the smoothed one-hot targets (N, num_classes) of labels (N,).

        The value is label_smoothing / num_classes for every class, plus 1 - label_smoothing for
        the class of the label.
        """
        off = self.label_smoothing / self.num_classes
        targets = torch.full((len(labels), self.num_classes), off, device=labels.device)
        return targets.scatter_(1, labels[:, None], 1.0 - self.label_smoothing + off)

    @staticmethod
    def blend(
        images: torch.Tensor, targets: torch.Tensor, weight: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns ``weight * x + (1 - weight) * x.flip(0)`` for x the images and the targets."""
        mixed = images.flip(0).mul_(1.0 - weight).add_(images * weight)
        return mixed, targets * weight + targets.flip(0) * (1.0 - weight)
