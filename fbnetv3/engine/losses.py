"""The losses of the latest steps, which stay on the device until they are read together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

READ_PERIOD = 20
"""Largest number of steps on a GPU between two reads, each of which waits for the GPU."""
TOTAL = "total_loss"
"""Name of the sum of several losses."""


@dataclass(frozen=True)
class StepLosses:
    """The losses of one step as numbers.

    Attributes:
        iteration: Index of the step.
        lr: Learning rate of the step.
        values: Losses by name, and their sum as ``total_loss`` if there are several.
        total: Sum of the losses, which is minimised.
    """

    iteration: int
    lr: float
    values: Mapping[str, float]
    total: float

    @property
    def is_finite(self) -> bool:
        """Whether the sum of the losses is finite."""
        return math.isfinite(self.total)


class LossBuffer:
    """Collects losses on the device; reading them waits for the device once.

    Args:
        period: Number of steps after which the buffer is full.
    """

    def __init__(self, period: int = 1) -> None:
        self._period = period
        self._names: list[str] = []
        self._steps: list[tuple[int, float]] = []
        self._rows: list[Tensor] = []

    @property
    def is_full(self) -> bool:
        """Whether the losses should be read now."""
        return len(self._rows) >= self._period

    def add(self, iteration: int, lr: float, losses: Mapping[str, Tensor], total: Tensor) -> None:
        """Adds the losses of a step, without waiting for the device.

        Args:
            iteration: Index of the step.
            lr: Learning rate of the step.
            losses: Scalars by name; the same names in each step.
            total: Their sum.
        """
        self._names = list(losses)
        self._steps.append((iteration, lr))
        self._rows.append(torch.stack([x.detach() for x in (*losses.values(), total)]))

    def read(self) -> list[StepLosses]:
        """Returns the collected losses in the order of the steps, and empties the buffer."""
        if not self._rows:
            return []
        rows: list[list[float]] = torch.stack(self._rows).tolist()
        steps, self._steps, self._rows = self._steps, [], []
        return [
            self._named(iteration, lr, row)
            for (iteration, lr), row in zip(steps, rows, strict=True)
        ]

    def _named(self, iteration: int, lr: float, row: list[float]) -> StepLosses:
        *values, total = row
        named = dict(zip(self._names, values, strict=True))
        if len(named) > 1:
            named[TOTAL] = total
        return StepLosses(iteration, lr, named, total)
