"""Exact cost of a network, computed from its table, for one network or for many at once.

A row of ``n`` layers costs ``first + (n - 1) * rest``: the cost of its first layer, and ``n - 1``
times the cost of a repeat. No loop over repeats is needed, so ``n`` may be an array.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.expand import Row, clean_row, expand_row, split_by_op
from fbnetv3.arch.keys import Key
from fbnetv3.arch.layer import Ints
from fbnetv3.arch.ops import Cost, get_op, head_cost
from fbnetv3.arch.registry import get_arch
from fbnetv3.arch.spec import Arch, Block

_RESOLUTION_KEY = Key("int", minimum=1)


def count_cost(arch: Arch | str, resolution: int | None = None) -> Cost:
    """Returns the exact cost of a network for one image.

    Args:
        arch: An architecture, the name of a known one, or the path of an architecture's yaml file.
        resolution: Side of the square input in pixels. None uses the architecture's.

    Returns:
        The :class:`Cost`, in Python ints. Its ``macs`` counts the reads of average pools, too, as
        the published FBNet tables do; ``macs_conv`` does not, as in most papers.

    Raises:
        ArchError: The name is unknown, the yaml file cannot be read or is not valid, or the
            resolution is not a whole number or too small for the network.
    """
    table = get_arch(arch) if isinstance(arch, str) else arch
    side = table.resolution if resolution is None else resolution
    try:
        return count_cost_arrays(
            table.blocks,
            side,
            width_divisor=table.width_divisor,
            num_classes=table.num_classes,
            in_channels=table.in_channels,
        )
    except ArchError as error:
        raise error.at(arch=table.name) from None


def count_cost_arrays(
    rows: Iterable[Block | Mapping[str, Any]],
    resolution: Ints,
    *,
    width_divisor: int | None = 8,
    num_classes: Ints = 1000,
    in_channels: int = 3,
) -> Cost:
    """Returns the costs of many networks whose tables have the same rows with different values.

    Args:
        rows: Rows of the table, as blocks or flat mappings. ``k``, ``e``, ``c``, ``n`` and integer
            options may be arrays of shape (candidates,), with a value for each network, and so may
            ``op``: keys that the op of a candidate does not accept are then ignored. ``act``,
            ``se`` and ``se_ratio`` are shared by all candidates.
        resolution: Side of the input in pixels, an int or an array of shape (candidates,).
        width_divisor: Divisor of channel counts, as in :class:`Arch`.
        num_classes: Number of logits, an int or an array of shape (candidates,).
        in_channels: Number of channels of the images.

    Returns:
        The cost, in int64 arrays of shape (candidates,), or in ints if no argument is an array.

    Raises:
        ArchError: A row is not valid, or a resolution is too small.

    Example:
        >>> rows = [
        ...     {"stage": 0, "op": "conv", "k": 3, "c": np.array([16, 24]), "s": 2},
        ...     {"stage": 1, "op": "mbconv", "k": 3, "e": 1, "c": 16, "n": np.array([1, 2])},
        ... ]
        >>> count_cost_arrays(rows, np.array([224, 248])).params
        array([17944, 18864])
    """
    total, c_in, size = count_rows(rows, resolution, width_divisor, in_channels)
    return _broadcast(total + head_cost(c_in, size, num_classes))


def count_rows(
    rows: Iterable[Block | Mapping[str, Any]],
    resolution: Ints,
    width_divisor: int | None = 8,
    in_channels: int = 3,
) -> tuple[Cost, Ints, Ints]:
    """Returns the cost of the rows of a table alone, without a classifier.

    Args:
        rows: Rows of the table, as for :func:`count_cost_arrays`.
        resolution: Side of the input in pixels, an int or an array of shape (candidates,).
        width_divisor: Divisor of channel counts, as in :class:`Arch`.
        in_channels: Number of channels of the images.

    Returns:
        The cost, and the channels and the side of the last row's output.

    Raises:
        ArchError: A row is not valid, or a resolution is too small.
    """
    size = _RESOLUTION_KEY.clean("resolution", resolution)
    c_in: Ints = in_channels
    total = Cost()
    for number, variants in enumerate(_clean_rows(rows)):
        costs = [
            (mask, *_row_cost(expand_row(row, c_in, width_divisor), size, number))
            for mask, row in variants
        ]
        cost, size = _select(costs)
        total += cost
        c_in = variants[0][1]["c"]
    return total, c_in, size


def _broadcast(cost: Cost) -> Cost:
    """Broadcasts the numbers of a cost to one shape; ints stay ints."""
    numbers = list(vars(cost).values())
    if not any(isinstance(number, np.ndarray) for number in numbers):
        return cost
    return Cost(*(np.array(number) for number in np.broadcast_arrays(*numbers)))


def _select(costs: Sequence[tuple[Any, Cost, Ints]]) -> tuple[Cost, Ints]:
    """Returns cost and output side of each candidate, given (mask, cost, side) for each op."""
    if len(costs) == 1:
        return costs[0][1:]
    total, size = Cost(), 0
    for mask, cost, out in costs:
        total, size = total + cost * mask, size + out * mask
    return total, size


def _clean_rows(
    rows: Iterable[Block | Mapping[str, Any]],
) -> Sequence[list[tuple[Any, dict[str, Any]]]]:
    """Returns each row as a list of (mask of candidates, row of their op)."""
    clean = []
    for number, row in enumerate(rows):
        if isinstance(row, Block):
            clean.append([(True, row.row())])
            continue
        try:
            clean.append([(mask, clean_row(part)) for mask, part in split_by_op(row)])
        except ArchError as error:
            raise error.at(row=number) from None
    return clean


def _row_cost(row: Row, size: Ints, number: int) -> tuple[Cost, Ints]:
    """Returns the cost of row ``number`` of a table, and the side of the row's output."""
    formula = get_op(row.first.op).cost
    cost, out = formula(row.first, size)
    if np.any(np.asarray(out) < 1):
        small = int(np.min(size))
        problem = (
            f"the input of this row has a side of {small} pixels, too small for its kernel; use a "
            "larger resolution or fewer strides"
        )
        raise ArchError(problem, row=number)
    if np.all(np.asarray(row.n) == 1):
        return cost, out
    repeat_cost, repeat_out = formula(row.rest, out)
    if np.any(np.asarray(repeat_out != out)):
        problem = f"op {row.first.op} changes the size at stride 1, so it cannot be repeated"
        raise ArchError(problem, row=number, key="n", value=row.n, allowed="1")
    return cost + repeat_cost * (row.n - 1), out
