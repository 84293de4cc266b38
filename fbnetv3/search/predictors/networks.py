"""Small networks for predictors: several members trained at once, seeded, no global state."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]


class Linear:
    """``members`` affine maps side by side: (members, n, d_in) -> (members, n, d_out)."""

    def __init__(self, members: int, d_in: int, d_out: int, generator: torch.Generator) -> None:
        bound = 1 / math.sqrt(max(1, d_in))
        self.weight = _uniform((members, d_in, d_out), bound, generator)
        self.bias = _uniform((members, 1, d_out), bound, generator)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)

    @property
    def tensors(self) -> list[Tensor]:
        """Weight and bias."""
        return [self.weight, self.bias]

    def set(self, weight: Tensor, bias: Tensor) -> None:
        """Copies weights (1, d_in, d_out) into every member."""
        with torch.no_grad():
            self.weight.copy_(weight.expand_as(self.weight))
            self.bias.copy_(bias.expand_as(self.bias))


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    values = (torch.rand(shape, generator=generator) * 2 - 1) * bound
    return values.requires_grad_()


def minibatches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yields the indices of one pass in random order; all at once where they fit."""
    yield from torch.randperm(n, generator=generator).split(size)


def standardised(values: Floats) -> tuple[Floats, float, float]:
    """Returns values of mean 0 and deviation 1, with both (deviation 1 where it is 0)."""
    mean, deviation = float(values.mean()), float(values.std())
    scale = deviation if deviation > 1e-12 * max(1.0, abs(mean)) else 1.0
    return (values - mean) / scale, mean, scale
