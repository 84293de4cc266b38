"""An estimate of the memory of a training step, from the cost of the network."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass

import torch

from fbnetv3.arch import Cost
from fbnetv3.engine.precision import amp_dtype
from fbnetv3.recipe import Recipe

_log = logging.getLogger("fbnetv3")

SAVED_PER_ACTIVATION = 3
"""Number of values kept for the backward pass for each output element of a convolution.

These are the output itself (for batch norm), the output of the norm (for the activation), and the
output of the activation (for the next convolution). Measured with the networks of the zoo, the
kept tensors have 2.99 to 3.02 values per element in float32, see tests/engine/test_memory.py.
"""
# Values that an optimizer keeps for each weight (SGD: with a momentum above 0; Muon: for the
# weights that AdamW does not update)
_OPTIMIZER_STATES = {"rmsprop": 2, "sgd": 1, "adamw": 2, "lion": 1, "muon": 1}
_MOST_STATES = 2  # as many as Adam keeps; assumed for optimizers that users register
_GB = 1e9  # bytes


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory of a training step of one process, in bytes.

    The estimate leaves out the gradients of activations, the working memory of the libraries, and
    other programs: a step takes at least this much, unless the activations of frozen parts of the
    network (MODEL.FREEZE) are not kept, or the optimizer keeps fewer values per weight than
    assumed, as SGD without momentum does.

    Attributes:
        activations: Activations that the forward pass keeps for the backward pass.
        weights: Weights, their gradients, the optimizer's state, the EMA, 16-bit copies.
        images: Images per forward pass of the process.
        side: Side of the images in pixels.
    """

    activations: int
    weights: int
    images: int
    side: int

    @property
    def total(self) -> int:
        """Sum of activations and weights."""
        return self.activations + self.weights

    def text(self) -> str:
        """Returns the estimate as a row of the training plan."""
        return (
            f"at least {self.total / _GB:.2f} GB per process: activations of {self.images} images "
            f"at {self.side} px {self.activations / _GB:.2f} GB, weights and optimizer "
            f"{self.weights / _GB:.2f} GB"
        )


def estimate_memory(
    cost: Cost,
    recipe: Recipe,
    side: int,
    device: torch.device,
    world_size: int = 1,
    frozen: int = 0,
) -> MemoryEstimate:
    """Estimates the memory of a training step.

    Args:
        cost: Cost of the network for one image of ``side`` pixels.
        recipe: Training recipe.
        side: Side of the images in pixels.
        device: Device of the network.
        world_size: Number of processes, which share the images.
        frozen: Number of frozen weights, which have no gradients and no states of the optimizer.
    """
    images = math.ceil(recipe.batch_size / world_size)
    is_16_bit = amp_dtype(recipe, device) is not None
    pixels = 3 * side * side * 4  # bytes of an RGB image in float32
    per_image = SAVED_PER_ACTIVATION * int(cost.activations) * (2 if is_16_bit else 4) + pixels
    params, states = int(cost.params), _OPTIMIZER_STATES.get(recipe.optimizer, _MOST_STATES)
    weights = params * (4 * (1 + recipe.ema) + 2 * is_16_bit)  # themselves, EMA, 16-bit copies
    weights += (params - frozen) * 4 * (1 + states)  # gradients, states of the optimizer
    return MemoryEstimate(images * per_image, weights, images, side)


def device_memory(device: torch.device) -> int | None:
    """Returns the memory of a GPU, or of this machine for the CPU, in bytes; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def warn_of_memory(estimate: MemoryEstimate, recipe: Recipe, device: torch.device) -> None:
    """Warns before the first step if a training cannot fit the memory of its device."""
    available = device_memory(device)
    if available is None or estimate.total <= available:
        return
    remedy = "train a smaller network, or with smaller images"
    room = available - estimate.weights
    if room > estimate.activations / estimate.images:
        passes = math.ceil(estimate.activations / room)
        # a number of passes that divides the images of a process
        while estimate.images % passes and passes < estimate.images:
            passes += 1
        remedy = (
            f"use {passes} times as many processes, or passes of fewer images "
            f"(SOLVER.IMS_PER_BATCH {max(1, recipe.batch_size // passes)} and "
            f"SOLVER.ACCUMULATE_STEPS {recipe.accumulate_steps * passes}), or smaller images"
        )
    _log.warning(
        "a step does not fit into the memory of %s, %.1f GB: it takes %s; %s",
        device,
        available / _GB,
        estimate.text(),
        remedy,
    )
