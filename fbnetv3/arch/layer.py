"""One layer of a network: a table row after its repeats are spelled out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fbnetv3.arch.keys import parse_ratio

# An int, or an int64 array of candidates
Ints = Any


def _whole(value: Any) -> Ints:
    """Rounds towards zero: an int for a scalar, int64 for an array."""
    return value.astype(np.int64) if isinstance(value, np.ndarray) else int(value)


def round_channels(value: Any, divisor: int | None) -> Ints:
    """Rounds a channel count to a multiple of ``divisor``.

    The nearest multiple (halves up), at least ``divisor``; one more if that lost over 5%.

    Args:
        value: Channels, a number or an array of numbers.
        divisor: 8 in FBNetV2 and V3; None keeps the whole part, at least 1.
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
    """One layer. In cost arithmetic over candidates, numbers may be int64 arrays.

    Attributes:
        op: Name of the op.
        stage, index: Its place; its module is ``stages.{stage}.{index}``.
        c_in, c_out: Channels.
        s: Stride.
        k: Kernel size, None for ops without one.
        e: Expansion, None for ops without one.
        act: Activation, None for ops without one.
        se: Gate of the squeeze-and-excitation; None is none.
        se_ratio: Squeeze ratio of the middle channels (``"0.25/e"``: divided by ``e``).
        width_divisor: See :func:`round_channels`.
        options: The other keys that its op declares, defaults filled in.
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
        """Its place in the backbone, ``stages.S.I``."""
        return f"stages.{self.stage}.{self.index}"

    @cached_property
    def mid(self) -> Ints:
        """Middle channels: ``c_in * e``, rounded. ``c_in`` for an op without expansion."""
        if self.e is None:
            return self.c_in
        return round_channels(self.c_in * self.e, self.width_divisor)

    @cached_property
    def se_channels(self) -> Ints:
        """Channels between the two convs of the squeeze-and-excitation; 0 without one."""
        if self.se is None or self.se_ratio is None:
            return 0
        ratio, over_e = parse_ratio(self.se_ratio)
        share = ratio / self.e if over_e else ratio
        return round_channels(_whole(self.mid * share), self.width_divisor)

    @cached_property
    def padding(self) -> Ints:
        """Padding of the k x k conv: ``dw_padding`` if the row gives it, else ``k // 2``."""
        given = self.options.get("dw_padding")
        if given is not None:
            return given
        return 0 if self.k is None else self.k // 2

    @property
    def residual(self) -> bool:
        """Whether an identity shortcut fits: stride 1 and as many channels out as in."""
        return bool(self.s == 1 and self.c_in == self.c_out)
