"""Positions in a range of numbers, even if its width or high / low exceeds the largest float."""

from __future__ import annotations

import math


def value_at(low: float, high: float, share: float, *, log: bool) -> float:
    """Returns the value at a share of a range, in [low, high].

    Args:
        low: Lower end; above 0 with ``log``.
        high: Upper end; above ``low``.
        share: Share of the range below the value, in [0, 1].
        log: Whether the share is measured on the logarithms of the values.
    """
    low, high = float(low), float(high)
    if log and math.isfinite(high / low):
        value = low * (high / low) ** share
    elif log:
        value = math.exp((1 - share) * math.log(low) + share * math.log(high))
    elif math.isfinite(high - low):
        value = low + share * (high - low)
    else:
        value = (1 - share) * low + share * high
    return min(max(value, low), high)


def share_of(low: float, high: float, value: float, *, log: bool) -> float:
    """Returns the share of a range below a value; the inverse of :func:`value_at`."""
    low, high = float(low), float(high)
    if log and math.isfinite(high / low):
        return math.log(value / low) / math.log(high / low)
    if log:
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    if math.isfinite(high - low):
        return (value - low) / (high - low)
    return (value / 2 - low / 2) / (high / 2 - low / 2)  # halved, so that nothing overflows
