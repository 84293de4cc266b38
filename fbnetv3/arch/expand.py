"""Expansion of a table row into layers. A value may be an array with one entry per candidate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.keys import COMMON_KEYS, Key
from fbnetv3.arch.layer import Ints, Layer
from fbnetv3.arch.ops import OpSpec, get_op
from fbnetv3.errors import did_you_mean

# Keys that are fields of Layer; the other keys of an op are in its options
_LAYER_KEYS = ("k", "e", "act", "se", "se_ratio")


@dataclass(frozen=True)
class Row:
    """The ``n`` layers of a row: the first one, and the layer that follows it ``n - 1`` times."""

    first: Layer
    rest: Layer
    n: Ints


def clean_row(row: Mapping[str, Any], *, may_be_none: Iterable[str] = ()) -> dict[str, Any]:
    """Returns a row with the defaults of its op filled in, after checking it.

    Args:
        row: Flat mapping from key to value; None means that a key is not given.
        may_be_none: Keys that may be in the row with the value None even if its op does not accept
            them.

    Raises:
        ArchError: The op or a key is unknown, a key is missing, or a value is not allowed.
    """
    op = get_op(row.get("op"))
    keys = {**COMMON_KEYS, **op.keys}
    given = {key: value for key, value in row.items() if value is not None and key != "op"}
    for key in row:
        if key != "op" and key not in keys and (key in given or key not in may_be_none):
            raise _unknown_key(op, key, row[key], keys)
    clean: dict[str, Any] = {"op": op.name}
    for name, kind in keys.items():
        value = _value(name, kind, given)
        if value is not None:
            clean[name] = value
    _check_together(op, clean)
    return clean


def split_by_op(row: Mapping[str, Any]) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Yields, for each op of the candidates, the mask of the candidates with it, and its row.

    Args:
        row: Flat mapping from key to value. If ``op`` is an array of names, of shape (candidates,),
            the row of an op has only the keys that this op accepts. Its arrays still have an entry
            for every candidate.

    Yields:
        The mask, or True if ``op`` is a single name, and a row with a single op.
    """
    ops = row.get("op")
    if not isinstance(ops, np.ndarray):
        yield True, row
        return
    for name in np.unique(ops).tolist():
        yield ops == name, with_accepted_keys({**row, "op": name})


def with_accepted_keys(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row with those of its keys that its op accepts."""
    keys = {"op", *COMMON_KEYS, *get_op(row["op"]).keys}
    return {key: value for key, value in row.items() if key in keys}


def _unknown_key(op: OpSpec, key: Any, value: Any, keys: Mapping[str, Key]) -> ArchError:
    hint = did_you_mean(str(key), keys)
    problem = f"op {op.name} does not take this key{hint}"
    return ArchError(problem, key=str(key), value=value, allowed=", ".join(("op", *keys)))


def _value(name: str, key: Key, given: Mapping[str, Any]) -> Any:
    """Returns the checked value of a key, its default, or None if it is not set."""
    can_be_set = key.needs is None or key.needs in given
    if name in given:
        if not can_be_set:
            raise ArchError(f"requires {key.needs} to be set too", key=name, value=given[name])
        return key.clean(name, given[name])
    if key.required:
        raise ArchError("missing", key=name, value=None, allowed=key.allowed)
    return key.default if can_be_set else None


def _check_together(op: OpSpec, row: Mapping[str, Any]) -> None:
    strided = np.any(np.asarray(row["s"]) > 1)
    if op.pools and strided:
        raise ArchError("a pooling op has no stride", key="s", value=row["s"], allowed="1")
    if row.get("dw_padding") is not None and not strided:
        # At stride 1, a padding other than k // 2 would change the size of the feature map, and the
        # identity shortcut would not fit.
        problem = "allowed only in a row with stride > 1"
        raise ArchError(problem, key="dw_padding", value=row["dw_padding"], allowed="none at s = 1")
    kernels = [row[key] for key in ("k_start", "k_mid") if key in row]
    # Arrays of kernels are not checked: they have the kernels of candidates with other ops, too,
    # which may be 0.
    if kernels and strided and all(type(k) is int and k == 0 for k in kernels):
        problem = "a stride needs a depthwise convolution, but k_start and k_mid are 0"
        raise ArchError(problem, key="s", value=row["s"], allowed="1")


def expand_row(row: Mapping[str, Any], c_in: Ints, width_divisor: int | None) -> Row:
    """Returns the layers of a checked row whose input has ``c_in`` channels.

    The repeats have stride 1 and as many input as output channels. In the repeats, keys with
    ``first_only`` (see :class:`Key`) have their default values.
    """
    op = get_op(row["op"])
    options = {key: row.get(key) for key in op.keys if key not in _LAYER_KEYS}
    repeated = options | {key: op.keys[key].default for key in options if op.keys[key].first_only}
    common: dict[str, Any] = {key: row.get(key) for key in _LAYER_KEYS}
    common |= {"op": op.name, "stage": row["stage"], "c_out": row["c"], "index": 0}
    common["width_divisor"] = width_divisor
    first = Layer(c_in=c_in, s=row["s"], options=options, **common)
    rest = Layer(c_in=row["c"], s=1, options=repeated, **common)
    return Row(first, rest, row["n"])
