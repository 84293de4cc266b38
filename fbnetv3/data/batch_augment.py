"""Augmentation of whole batches on their device: random erasing, mixup, CutMix, soft targets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fbnetv3.data.erasing import erase, erasing_boxes
from fbnetv3.data.errors import DataError
from fbnetv3.data.mixup import Mixup
from fbnetv3.data.seeding import keyed_generator

# First keys of the seeds, which keep random streams apart. data/order.py, data/loaders.py and
# engine/trainer.py use 0 to 2.
_MIXUP, _ERASING, _CUTMIX = 3, 4, 5


@dataclass(frozen=True)
class BatchAugment:
    """Erases parts of the images of a batch, mixes the images, and makes soft targets.

    Whether an image is erased is drawn for each image. Then the images are mixed: by mixup, by
    CutMix or, if both are switched on, by one of the two with equal probability. All random numbers
    follow from the seed and the number of the batch. Mixup and CutMix draw the same numbers on
    every rank. The rectangles to erase are drawn for the images of all ranks together; each rank
    uses its part.

    Attributes:
        num_classes: Number of classes.
        mixup: Alpha of mixup's Beta distribution; 0 switches it off.
        cutmix: Alpha of CutMix's Beta distribution; 0 switches it off.
        label_smoothing: Fraction of each target, in [0, 1), that is spread over all classes. With
            several labels per image, a target of 1 becomes 1 - label_smoothing / 2, and a target of
            0 becomes label_smoothing / 2.
        random_erasing: Probability, in [0, 1], with which a rectangle of an image is set to 0.
        seed: Random seed.
        rank: Rank of this process.
        world_size: Number of processes.

    Raises:
        DataError: A probability, a fraction or an alpha is out of its range.
    """

    num_classes: int
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    random_erasing: float = 0.0
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not self.cutmix >= 0 or not 0 <= self.random_erasing <= 1:
            raise DataError(
                f"a value is out of range: cutmix {self.cutmix} (allowed: >= 0), random_erasing "
                f"{self.random_erasing} (allowed: [0, 1])"
            )
        Mixup(self.mixup, self.num_classes, self.label_smoothing)  # checks its values

    def __call__(self, images: Tensor, labels: Tensor, iteration: int) -> tuple[Tensor, Tensor]:
        """Returns the augmented images and soft targets (N, num_classes).

        Args:
            images: (N, 3, H, W) normalised images of this rank.
            labels: (N,) int64 classes, or (N, num_classes) float32 with 1 for each class of an
                image.
            iteration: Number of the batch in the training; with the seed, it determines all random
                numbers.
        """
        images = self._erased(images, iteration)
        if self._uses_cutmix(iteration):
            generator = keyed_generator(_CUTMIX, self.seed, iteration, 1)  # 1: the rectangle
            return self._cut(images, self._targets(labels), generator)
        mixup = Mixup(self.mixup, self.num_classes, self.label_smoothing)
        targets = self._targets(labels)
        if self.mixup == 0:
            return images, targets
        generator = keyed_generator(_MIXUP, self.seed, iteration)
        return mixup.blend(images, targets, mixup.draw(generator))

    def _targets(self, labels: Tensor) -> Tensor:
        mixup = Mixup(0.0, self.num_classes, self.label_smoothing)
        if labels.ndim == 1:
            return mixup.soft_targets(labels)
        # several labels: the target of each class is binary, and is smoothed towards 1/2
        return labels * (1 - self.label_smoothing) + self.label_smoothing / 2

    def _erased(self, images: Tensor, iteration: int) -> Tensor:
        if not self.random_erasing:
            return images
        generator = keyed_generator(_ERASING, self.seed, iteration)
        count, (height, width) = len(images), images.shape[-2:]
        boxes = erasing_boxes(
            count * self.world_size, height, width, self.random_erasing, generator
        )
        return erase(images, boxes[self.rank * count : (self.rank + 1) * count])

    def _uses_cutmix(self, iteration: int) -> bool:
        if not (self.cutmix and self.mixup):
            return self.cutmix > 0
        generator = keyed_generator(_CUTMIX, self.seed, iteration, 0)  # 0: mixup or CutMix
        return bool(torch.rand((), generator=generator) < 0.5)

    def _cut(
        self, images: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Pastes a rectangle of image N - 1 - i into image i of a batch of N (Yun et al., 2019)."""
        weight = Mixup(self.cutmix, self.num_classes).draw(generator)
        height, width = images.shape[-2:]
        centre = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        y, x = int(centre[0] * height), int(centre[1] * width)
        half = 0.5 * math.sqrt(1 - weight)
        top, bottom = max(0, y - int(half * height)), min(height, y + int(half * height))
        left, right = max(0, x - int(half * width)), min(width, x + int(half * width))
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images.flip(0)[..., top:bottom, left:right]
        kept = 1 - (bottom - top) * (right - left) / (height * width)
        return mixed, targets * kept + targets.flip(0) * (1 - kept)
