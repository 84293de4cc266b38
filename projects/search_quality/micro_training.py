"""Trains very small networks on small CIFAR-10 images in memory, in about a second each.

The trainings use this project's blocks, recipe, optimizers, schedule, mixup and EMA, but not the
training loop, whose hooks, loaders and files would take longer than the arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fbnetv3 import build_model
from fbnetv3.arch import Arch
from fbnetv3.data import ImageDataset, Mixup, build_dataset
from fbnetv3.engine.ema import ModelEMA
from fbnetv3.engine.optim import build_optimizer
from fbnetv3.engine.schedule import lr_factor
from fbnetv3.io import atomic_write
from fbnetv3.recipe import Recipe

SEED = 0
"""Seed of the choice of training and held-out images, which all trainings share."""
TRAIN, HELD_OUT = 1792, 8000
"""Numbers of training images (28 batches of 64) and of held-out images."""
EARLY = 1000
"""Number of held-out images that are scored after every epoch but the last."""
SHIFT = 1
"""Largest shift of a training image in pixels, to each side."""
_MEAN, _STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
"""Mean and standard deviation of CIFAR-10's channels, for pixels from 0 to 255."""
_CHUNK = 500
"""Number of images that are scored at once."""


@dataclass(frozen=True)
class Images:
    """Images of one resolution, normalised, float32.

    Attributes:
        views: (views, N, r, r, 3) training images, with every combination of shift and flip.
        labels: (N,) classes of the training images.
        held_out: (M, 3, r, r) held-out images, channels_last.
        held_out_labels: (M,) classes of the held-out images.
    """

    views: Tensor
    labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor


def load_images(resolution: int, cache: Path) -> Images:
    """Returns training and held-out images of ``cifar10_train``.

    Args:
        resolution: Side of the images in pixels, at most 32.
        cache: Path of an npz with the decoded pixels, which is written if it is missing.

    Raises:
        FBNetError: The cache is missing, and CIFAR-10 is not below ``FBNETV3_DATA``.
    """
    if not cache.exists():
        with atomic_write(cache) as temporary, temporary.open("wb") as file:
            np.savez(file, **_decoded())
    with np.load(cache) as pixels:
        found = {name: torch.from_numpy(pixels[name]) for name in pixels}
    return _of_resolution(found, resolution)


def _decoded() -> dict[str, np.ndarray]:
    chosen = build_dataset("cifar10_train").subset(TRAIN + HELD_OUT, SEED)
    train, held_out = chosen.split(HELD_OUT, SEED)
    # in random order, so that the first EARLY images are a random sample
    order = np.random.default_rng(SEED).permutation(HELD_OUT)
    images, labels = _pixels(held_out)
    found = {"held_out": images[order], "held_out_labels": labels[order]}
    found["train"], found["labels"] = _pixels(train)
    return found


def _pixels(dataset: ImageDataset) -> tuple[np.ndarray, np.ndarray]:
    images = np.stack([np.asarray(dataset.image(i)) for i in range(len(dataset))])
    return images, np.array(dataset.targets)


def _of_resolution(pixels: dict[str, Tensor], resolution: int) -> Images:
    return Images(
        _views(_resized(pixels["train"], resolution)),
        pixels["labels"],
        _resized(pixels["held_out"], resolution).contiguous(memory_format=torch.channels_last),
        pixels["held_out_labels"],
    )


def _resized(images: Tensor, resolution: int) -> Tensor:
    """Maps uint8 (N, 32, 32, 3) to normalised (N, 3, r, r)."""
    x = ((images.float() - torch.tensor(_MEAN)) / torch.tensor(_STD)).permute(0, 3, 1, 2)
    return F.interpolate(x, (resolution, resolution), mode="bilinear", antialias=True)


def _views(images: Tensor) -> Tensor:
    side, steps = images.shape[-1], range(2 * SHIFT + 1)
    padded = F.pad(images, [SHIFT] * 4)
    shifted = [padded[:, :, y : y + side, x : x + side] for y in steps for x in steps]
    both = [view for image in shifted for view in (image, image.flip(3))]
    return torch.stack(both).permute(0, 1, 3, 4, 2).contiguous()  # channels last


class Score(NamedTuple):
    """Scores of a network on held-out images.

    Attributes:
        right: Number of correctly classified images.
        loss: Mean cross-entropy in nats.
    """

    right: int
    loss: float


def train(arch: Arch, recipe: Recipe, images: Images, seed: int) -> list[Score]:
    """Trains a network from random weights and scores its averaged weights after each epoch.

    Args:
        arch: Architecture with the resolution and the number of classes of the images.
        recipe: Training recipe with a whole number of epochs.
        images: Training images and held-out images.
        seed: Seed of weights and dropout (by torch's global generator), and of the order of images,
            augmentation and mixup.

    Returns:
        The scores after each epoch, on ``EARLY`` images; after the last epoch on ``HELD_OUT``.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = build_model(
        arch, arch.num_classes, drop_rate=recipe.dropout, drop_path_rate=recipe.drop_path
    )
    loop = _Loop(model, recipe, images)
    found = []
    for epoch in range(1, int(recipe.epochs) + 1):
        loop.run_epoch(epoch - 1, generator)
        with loop.ema.swapped_into(model):
            found.append(score(model, images, EARLY if epoch < recipe.epochs else HELD_OUT))
    return found


class _Loop:
    """A training in progress: network, optimizer and averaged weights."""

    def __init__(self, model: nn.Module, recipe: Recipe, images: Images) -> None:
        self._model, self._recipe, self._images = model, recipe, images
        self._mixup = Mixup(recipe.mixup, model.arch.num_classes, recipe.label_smoothing)
        self._optimizer = build_optimizer(model, recipe)
        self.ema = ModelEMA(model, recipe.ema_decay, recipe.ema_warmup)

    def run_epoch(self, done: int, generator: torch.Generator) -> None:
        """Trains for one epoch.

        Args:
            done: Number of epochs before.
            generator: Generator of the order of images, their views and mixup.
        """
        views, labels, batch = self._images.views, self._images.labels, self._recipe.batch_size
        order = torch.randperm(len(labels), generator=generator)
        view = torch.randint(len(views), (len(labels),), generator=generator)
        steps = len(labels) // batch
        for i, index in enumerate(order.split(batch)[:steps]):
            x = views[view[index], index].permute(0, 3, 1, 2)  # (N, 3, r, r), channels_last
            self._step(*self._mixup(x, labels[index], generator), done + i / steps)

    def _step(self, x: Tensor, y: Tensor, epoch: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.scaled_lr * lr_factor(self._recipe, epoch)
        self._optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(self._model(x), y).backward()
        self._optimizer.step()
        self.ema.update(self._model)


@torch.inference_mode()
def score(model: nn.Module, images: Images, count: int) -> Score:
    """Returns the scores of a network on the first ``count`` held-out images."""
    model.eval()
    logits = torch.cat([model(x) for x in images.held_out[:count].split(_CHUNK)])
    model.train()
    labels = images.held_out_labels[:count]
    right = int((logits.argmax(1) == labels).sum())
    return Score(right, float(F.cross_entropy(logits, labels)))
