"""Cost by arithmetic on the table: exact, and the same code for one network or many.

A row costs ``first + (n - 1) * rest``: no loop over repeats, so that ``n`` may be an array.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.expand import Row, clean_row, expand_row
from fbnetv3.arch.keys import Key
from fbnetv3.arch.layer import Ints
from fbnetv3.arch.ops import Cost, get_op, head_cost
from fbnetv3.arch.registry import get_arch
from fbnetv3.arch.spec import Arch, Block

_SIZE = Key("int", minimum=1)


def count_cost(arch: Arch | str, resolution: int | None = None) -> Cost:
    """Counts what a network costs for one image, exactly.

    Args:
        arch: An architecture or the name of a known one.
        resolution: Side of the square input in pixels; by default the architecture's own.

    Returns:
        The :class:`Cost`, in Python ints. ``macs`` = ``macs_conv + macs_avgpool`` is what the
        published FBNet tables count; see :class:`Cost` for both conventions.

    Raises:
        ArchError: The name is unknown, or the resolution too small for the network.
    """
    table = get_arch(arch) if isinstance(arch, str) else arch
    side = table.resolution if resolution is None else resolution
    try:
        return count_cost_arrays(
            table.blocks,
            side,
            width_divisor=table.width_divisor,
            num_classes=table.num_classes,
        )
    except ArchError as error:
        raise error.at(arch=table.name) from None


def count_cost_arrays(
    rows: Iterable[Block | Mapping[str, Any]],
    resolution: Ints,
    *,
    width_divisor: int | None = 8,
    num_classes: Ints = 1000,
) -> Cost:
    """Counts what many candidates of one table shape cost.

    Args:
        rows: The table's rows, as blocks or flat mappings. ``k, e, c, n`` and integer options
            may be arrays of shape (candidates,); ``op``, ``act``, ``se`` and ``se_ratio`` hold
            for all.
        resolution: Side of the input in pixels, an int or an array (candidates,).
        width_divisor: As in :class:`Arch`.
        num_classes: Outputs of the classifier.

    Returns:
        The cost; its numbers are int64 arrays (candidates,), or ints where nothing is an array.

    Raises:
        ArchError: A row is not valid, or a resolution too small.

    Example:
        >>> rows = [
        ...     {"stage": 0, "op": "conv", "k": 3, "c": np.array([16, 24]), "s": 2},
        ...     {"stage": 1, "op": "mbconv", "k": 3, "e": 1, "c": 16, "n": np.array([1, 2])},
        ... ]
        >>> count_cost_arrays(rows, np.array([224, 248])).params
        array([17944, 18864])
    """
    size = _SIZE.clean("resolution", resolution)
    c_in: Ints = 3
    total = Cost()
    for number, row in enumerate(_clean_rows(rows)):
        expanded = expand_row(row, c_in, width_divisor)
        cost, size = _row_cost(expanded, size, number)
        total += cost
        c_in = row["c"]
    return _one_shape(total + head_cost(c_in, size, num_classes))


def _one_shape(cost: Cost) -> Cost:
    """Gives every number of a cost the same shape; ints stay ints."""
    numbers = list(vars(cost).values())
    if not any(isinstance(number, np.ndarray) for number in numbers):
        return cost
    return Cost(*(np.array(number) for number in np.broadcast_arrays(*numbers)))


def _clean_rows(rows: Iterable[Block | Mapping[str, Any]]) -> Sequence[dict[str, Any]]:
    clean = []
    for number, row in enumerate(rows):
        if isinstance(row, Block):
            clean.append(row.row())
            continue
        try:
            clean.append(clean_row(row))
        except ArchError as error:
            raise error.at(row=number) from None
    return clean


def _row_cost(row: Row, size: Ints, number: int) -> tuple[Cost, Ints]:
    """Prices a row: its first layer, and ``n - 1`` times its second."""
    formula = get_op(row.first.op).cost
    cost, out = formula(row.first, size)
    if np.any(np.asarray(out) < 1):
        small = int(np.min(size))
        raise ArchError("the input of this row is too small", row=number, key="size", value=small)
    if np.all(np.asarray(row.n) == 1):
        return cost, out
    again, same = formula(row.rest, out)
    if np.any(np.asarray(same != out)):
        problem = f"op {row.first.op} changes the size at stride 1, so it cannot repeat"
        raise ArchError(problem, row=number, key="n", value=row.n, allowed="1")
    return cost + again * (row.n - 1), out
