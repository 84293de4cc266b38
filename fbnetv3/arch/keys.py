"""The keys of a table row: what values each takes. The same checks serve ints and arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fbnetv3.arch.errors import ArchError

ACTIVATIONS = ("hswish", "relu", "swish", "relu6")
GATES = ("hsigmoid", "sigmoid")

_INTEGER, _NUMBER = "iu", "iuf"


@dataclass(frozen=True)
class Key:
    """What one key of a row takes.

    Attributes:
        kind: ``int``, ``float``, ``bool``, ``str`` or ``ratio`` (a number in (0, 1], or ``"R/e"``
            for such a number divided by the row's expansion).
        default: Used when a row does not give the key.
        required: Whether a row must give it.
        minimum: Smallest value, inclusive (exclusive for ``float``).
        odd: Whether the value must be odd.
        choices: The allowed strings.
        first_only: The key holds for the first of ``n`` repeats only, as the stride does.
        needs: Another key that has to be set wherever this one is given.
    """

    kind: str
    default: Any = None
    required: bool = False
    minimum: float = 0
    odd: bool = False
    choices: tuple[str, ...] = ()
    first_only: bool = False
    needs: str | None = None

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.kind == "str":
            return ", ".join(self.choices) if self.choices else "a text"
        if self.kind == "int":
            return f"{'odd ' if self.odd else ''}integers >= {self.minimum}"
        other = {
            "float": "numbers" + (f" > {self.minimum}" if self.minimum > -math.inf else ""),
            "bool": "true, false",
            "ratio": "a number in (0, 1], or such a number followed by /e (as 0.25/e)",
        }
        return other[self.kind]

    def accepts(self, value: Any) -> bool:
        """Tells whether ``value``, a scalar or a whole array, is allowed."""
        if self.kind == "str":
            return isinstance(value, str) and (not self.choices or value in self.choices)
        if self.kind == "bool":
            return isinstance(value, (bool, np.bool_))
        if self.kind == "ratio":
            return _is_ratio(value)
        if type(value) is int:  # by far the most common, so without numpy
            above = value >= self.minimum if self.kind == "int" else value > self.minimum
            return above and (not self.odd or value % 2 == 1)
        if not isinstance(value, (float, np.number, np.ndarray)):
            return False
        numbers = np.asarray(value)
        if numbers.dtype.kind not in (_INTEGER if self.kind == "int" else _NUMBER):
            return False
        return self._in_range(numbers)

    def _in_range(self, numbers: np.ndarray) -> bool:
        if not numbers.size or not math.isfinite(numbers.sum()):
            return False
        lowest = numbers.min()
        above = lowest >= self.minimum if self.kind == "int" else lowest > self.minimum
        return bool(above) and (not self.odd or bool((numbers % 2 == 1).all()))

    def clean(self, key: str, value: Any) -> Any:
        """Returns ``value`` as a plain Python scalar, or as the array it is.

        Raises:
            ArchError: The value is not allowed.
        """
        if not self.accepts(value):
            raise ArchError("not allowed", key=key, value=value, allowed=self.allowed)
        if isinstance(value, np.ndarray) and value.ndim:
            return value if value.dtype.kind == "f" else value.astype(np.int64)
        plain = value.item() if isinstance(value, (np.generic, np.ndarray)) else value
        return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def _is_ratio(value: Any) -> bool:
    try:
        ratio, _ = parse_ratio(value)
    except (TypeError, ValueError):
        return False
    return 0 < ratio <= 1


def parse_ratio(value: float | str) -> tuple[float, bool]:
    """Splits a squeeze ratio into its number and whether it is divided by the expansion."""
    if isinstance(value, bool):
        raise TypeError("a ratio is a number or a text")
    if isinstance(value, str):
        return float(value.removesuffix("/e")), value.endswith("/e")
    return float(value), False


# Keys that every row has, whatever its op.
COMMON_KEYS: Mapping[str, Key] = {
    "stage": Key("int", required=True),
    "c": Key("int", required=True, minimum=1),
    "n": Key("int", default=1, minimum=1),
    "s": Key("int", default=1, minimum=1),
}

# Keys that an op may declare by name.
OP_KEYS: Mapping[str, Key] = {
    "k": Key("int", required=True, minimum=1, odd=True),
    "e": Key("float", required=True),
    "act": Key("str", default="hswish", choices=ACTIVATIONS),
    "se": Key("str", choices=GATES),
    "se_ratio": Key("ratio", default=0.25, needs="se"),
    "dw_padding": Key("int", first_only=True),
    "conv_bias": Key("bool", default=False),
    "pw_groups": Key("int", default=1, minimum=1),
    "pwl_groups": Key("int", default=1, minimum=1),
}


def key_of_default(default: Any) -> Key:
    """Makes the Key of a plain default: an int >= 0 (or the default), a number, a text, a truth."""
    kind = type(default).__name__
    if kind not in ("int", "float", "bool", "str"):
        raise ArchError("an op's key needs a Key or a plain default", key="keys", value=default)
    lowest = -math.inf if kind == "float" else min(0, default) if kind == "int" else 0
    return Key(kind, default=default, minimum=lowest)
