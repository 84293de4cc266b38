"""The network of an exported file: normalisation, then the classifier with folded batch norms."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fbnetv3.export.errors import ExportError
from fbnetv3.modeling.folding import fold_batch_norm

INPUTS = ("float", "uint8")
"""Pixels that an exported file takes: float32 in [0, 1], or uint8 in [0, 255]."""


class ExportNetwork(nn.Module):
    """Logits (N, classes) of RGB pixels (N, 3, H, W), which are normalised in the graph.

    The batch norms of the network are folded, and its weights have the contiguous memory format
    that exporters expect. The network that is passed in stays as it is.

    Args:
        model: Classifier of normalised images.
        mean: RGB mean of pixels scaled to [0, 1].
        std: RGB standard deviation > 0 of pixels scaled to [0, 1].
        input_type: ``float`` for float32 pixels in [0, 1], ``uint8`` for pixels in [0, 255].

    Raises:
        ExportError: ``input_type`` is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        input_type: str = "float",
    ) -> None:
        super().__init__()
        if input_type not in INPUTS:
            raise ExportError(f"input {input_type!r} is unknown; allowed: {', '.join(INPUTS)}")
        self.input_type = input_type
        network = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        fold_batch_norm(network)
        self.network = network.requires_grad_(False).to(memory_format=torch.contiguous_format)
        self.shift: Tensor
        self.scale: Tensor
        unit = 255.0 if input_type == "uint8" else 1.0
        self.register_buffer("shift", torch.tensor(mean).reshape(1, 3, 1, 1) * unit)
        self.register_buffer("scale", 1 / (torch.tensor(std).reshape(1, 3, 1, 1) * unit))
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns logits (N, classes) of RGB pixels (N, 3, H, W)."""
        return self.network((pixels.to(torch.float32) - self.shift) * self.scale)

    def example(self, resolution: int, batch: int = 2, seed: int = 0) -> Tensor:
        """Returns random pixels (batch, 3, resolution, resolution) of the network's input type."""
        generator = torch.Generator().manual_seed(seed)
        shape = (batch, 3, resolution, resolution)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return self.as_input(pixels)

    def as_input(self, pixels: Tensor) -> Tensor:
        """Returns uint8 pixels (N, 3, H, W) as the type that the network takes."""
        return pixels if self.input_type == "uint8" else pixels.to(torch.float32) / 255
