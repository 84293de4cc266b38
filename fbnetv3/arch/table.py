"""Architecture tables as plain data: their keys, and the defaults that apply to their rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.keys import OP_KEYS, Key
from fbnetv3.arch.ops import get_op
from fbnetv3.errors import did_you_mean

# Ranges of the numbers of an architecture; width_divisor may also be None.
SCALARS = {
    "resolution": Key("int", minimum=1),
    "num_classes": Key("int", minimum=1, or_zero=True),
    "in_channels": Key("int", minimum=1),
    "width_divisor": Key("int", minimum=1),
}
_TABLE_KEYS = ("name", *SCALARS, "rows", "defaults")


def _check_table(table: Mapping[str, Any]) -> None:
    """Checks that a table has all required keys and no unknown ones."""
    allowed = ", ".join(_TABLE_KEYS)
    if not isinstance(table, Mapping):
        raise ArchError("a table must be a mapping", key="table", value=table, allowed=allowed)
    for key in table:
        if key not in _TABLE_KEYS:
            hint = did_you_mean(str(key), _TABLE_KEYS)
            raise ArchError(f"unknown key{hint}", key=key, value=table[key], allowed=allowed)
    for key in ("name", "resolution", "rows"):
        if key not in table:
            raise ArchError("missing", key=key, value=None, allowed=allowed)
    if not isinstance(table["rows"], (list, tuple)):
        raise ArchError("not allowed", key="rows", value=table["rows"], allowed="a list of rows")


def _checked_defaults(defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(defaults, Mapping):
        raise ArchError("not allowed", key="defaults", value=defaults, allowed="a mapping")
    for key, value in defaults.items():
        if key not in OP_KEYS:
            hint = did_you_mean(str(key), OP_KEYS)
            allowed = ", ".join(OP_KEYS)
            raise ArchError(f"unknown default{hint}", key=key, value=value, allowed=allowed)
    return defaults


def _with_defaults(row: Any, defaults: Mapping[str, Any]) -> Any:
    """Returns a row with the defaults of the keys that its op accepts.

    The default of a key with ``Key.needs`` is left out if the row does not set the needed key.
    """
    if not isinstance(row, Mapping):
        return row
    keys = get_op(row.get("op")).keys
    applicable = {
        key: value
        for key, value in defaults.items()
        if key in keys and (keys[key].needs is None or row.get(keys[key].needs) is not None)
    }
    return applicable | {key: value for key, value in row.items() if value is not None}


def read_table(table: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Returns the rows of a table with its defaults filled in, and its name and numbers by key.

    Raises:
        ArchError: A key of the table or of its defaults, or the op of a row, is unknown; a required
            key is missing; or the table, its rows or its defaults have a type that is not allowed.
    """
    _check_table(table)
    defaults = _checked_defaults(table.get("defaults") or {})
    rows = []
    for number, row in enumerate(table["rows"]):
        try:
            rows.append(_with_defaults(row, defaults))
        except ArchError as error:
            raise error.at(row=number) from None
    return rows, {key: table[key] for key in ("name", *SCALARS) if key in table}
