"""A single layer of a network; a table row with the key ``n`` describes ``n`` layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fbnetv3.arch.keys import parse_ratio

# An int, or an int64 array with one number per candidate.
Ints = Any


def _whole(value: Any) -> Ints:
    """Returns ``value`` rounded towards zero: an int for a scalar, int64 for an array."""
    return value.astype(np.int64) if isinstance(value, np.ndarray) else int(value)


def round_channels(value: Any, divisor: int | None) -> Ints:
    """Returns a channel count rounded to a multiple of ``divisor``.

    The result is the nearest multiple (halves are rounded up), but at least ``divisor``. If that
    is less than 95% of ``value``, the result is the next larger multiple.

    Args:
        value: Number of channels, or an array of numbers.
        divisor: Divisor of the result (8 in FBNetV2 and V3). None rounds down to an integer, at
            least 1.
    """
    if divisor is None:
        return _whole(np.maximum(1, value))
    nearest = _whole(value + divisor / 2) // divisor * divisor
    at_least = (
        np.maximum(divisor, nearest) if isinstance(value, np.ndarray) else max(divisor, nearest)
    )
    return _whole(at_least + divisor * (at_least < 0.95 * value))


@dataclass(frozen=True)
class Layer:
    """A single layer.

    When the costs of many candidates are computed at once, channels, stride, kernel, expansion and
    options may be arrays with one value per candidate.

    Attributes:
        op: Name of the op.
        stage: Number of the stage.
        index: Number of the layer in its stage; its module is ``stages.{stage}.{index}``.
        c_in: Input channels.
        c_out: Output channels.
        s: Stride.
        k: Kernel size; None for an op without kernel.
        e: Expansion; None for an op without expansion.
        act: Activation; None for an op without activation.
        se: Gate of the squeeze-and-excitation; None leaves it out.
        se_ratio: Squeezed channels as a fraction of the channels after expansion (:attr:`mid`);
            ``"0.25/e"`` divides the fraction by the expansion.
        width_divisor: Divisor of ``mid`` and ``se_channels``, as in :func:`round_channels`.
        options: The other keys that the op declares, with defaults filled in.
    """

    op: str
    stage: int
    index: int
    c_in: Ints
    c_out: Ints
    s: Ints = 1
    k: Ints = None
    e: Any = None
    act: str | None = None
    se: str | None = None
    se_ratio: float | str | None = None
    width_divisor: int | None = 8
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the layer's module in the backbone, ``stages.STAGE.INDEX``."""
        return f"stages.{self.stage}.{self.index}"

    @cached_property
    def mid(self) -> Ints:
        """Channels after expansion: rounded ``c_in * e``, or ``c_in`` if ``e`` is None."""
        if self.e is None:
            return self.c_in
        return round_channels(self.c_in * self.e, self.width_divisor)

    @cached_property
    def se_channels(self) -> Ints:
        """Channels between the two convs of the squeeze-and-excitation; 0 if there is none."""
        if self.se is None or self.se_ratio is None:
            return 0
        ratio, over_e = parse_ratio(self.se_ratio)
        share = ratio / self.e if over_e else ratio
        return round_channels(_whole(self.mid * share), self.width_divisor)

    @cached_property
    def padding(self) -> Ints:
        """Padding of the k x k conv: ``dw_padding`` if set, else ``k // 2``; 0 without kernel."""
        given = self.options.get("dw_padding")
        if given is not None:
            return given
        return 0 if self.k is None else self.k // 2

    @property
    def residual(self) -> bool:
        """Whether the layer has an identity shortcut: stride 1, and as many channels out as in."""
        return bool(self.s == 1 and self.c_in == self.c_out)
