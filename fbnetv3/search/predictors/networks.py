"""Small networks for predictors: several members trained at once, without global random state."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
_GRID = 2.0**-24
"""Unit to which standardised labels are rounded, far below the least noise of a GP (std 1e-3)."""


class BatchedLinear:
    """One affine map for each of several networks, applied in one batched product.

    Args:
        members: Number of networks.
        d_in: Number of inputs of each map.
        d_out: Number of outputs of each map.
        generator: Source of the initial weights, uniform in +-1 / sqrt(d_in).

    Attributes:
        weight: (members, d_in, d_out) weights.
        bias: (members, 1, d_out) biases.
    """

    def __init__(self, members: int, d_in: int, d_out: int, generator: torch.Generator) -> None:
        bound = 1 / math.sqrt(max(1, d_in))
        self.weight = _uniform((members, d_in, d_out), bound, generator)
        self.bias = _uniform((members, 1, d_out), bound, generator)

    def __call__(self, x: Tensor) -> Tensor:
        """Maps inputs (members, n, d_in) to outputs (members, n, d_out)."""
        return torch.baddbmm(self.bias, x, self.weight)

    @property
    def parameters(self) -> list[Tensor]:
        """Weight and bias."""
        return [self.weight, self.bias]

    def load(self, weight: Tensor, bias: Tensor) -> None:
        """Copies a weight (1, d_in, d_out) and a bias (1, 1, d_out) into every member."""
        with torch.no_grad():
            self.weight.copy_(weight.expand_as(self.weight))
            self.bias.copy_(bias.expand_as(self.bias))


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    values = (torch.rand(shape, generator=generator) * 2 - 1) * bound
    return values.requires_grad_()


def minibatches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yields the indices of one epoch in random order, at most ``size`` at a time."""
    yield from torch.randperm(n, generator=generator).split(size)


def standardise(values: Floats) -> tuple[Floats, float, float]:
    """Scales values to mean 0 and standard deviation 1, rounded to 2^-24; equal values become 0.

    Args:
        values: (n,) values whose squares neither overflow nor underflow. Pass others through
            :func:`~fbnetv3.search.space.scaling.to_unit` first.

    Returns:
        The scaled values, the subtracted mean, and the divisor: the standard deviation, or 1 for
        values that are equal up to rounding.
    """
    mean, std = float(values.mean()), float(values.std())
    scale = std if std > 1e-12 * float(np.abs(values).max()) else 1.0
    # Rounded, so that rounding errors of a change of unit (percent to fraction) rarely matter.
    return np.rint((values - mean) / scale / _GRID) * _GRID, mean, scale
