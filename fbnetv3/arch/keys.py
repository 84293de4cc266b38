"""The keys of a table row and their allowed values. Ints and arrays pass the same checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fbnetv3.arch.errors import ArchError

ACTIVATIONS = ("hswish", "relu", "swish", "relu6")
GATES = ("hsigmoid", "sigmoid")

MAX_LAYERS = 10_000
"""Largest number of layers of a network, and of a row of its table."""
_INT_KINDS, _NUMBER_KINDS = "iu", "iuf"  # codes of numpy's dtype.kind


@dataclass(frozen=True)
class Key:
    """Type, default and range of one key of a row.

    Attributes:
        kind: ``int``, ``float``, ``bool``, ``str`` or ``ratio`` (a number R in (0, 1], or a string
            ``"R/e"``, which divides R by the row's expansion).
        default: Value of the key in a row that does not give it.
        required: Whether a row must give the key.
        minimum: Lower bound, inclusive for ``int`` and exclusive for ``float``.
        maximum: Upper bound, inclusive; the default keeps a row from exhausting the memory.
        odd: Whether the value must be odd.
        or_zero: Whether 0 is allowed although it is even or below the minimum.
        choices: Allowed strings; empty allows any.
        first_only: Whether the key applies to the first of the ``n`` layers only, like the stride.
        needs: Name of a key that must be set too if this one is given; None if there is none.
    """

    kind: str
    default: Any = None
    required: bool = False
    minimum: float = 0
    maximum: float = 2**24
    odd: bool = False
    or_zero: bool = False
    choices: tuple[str, ...] = ()
    first_only: bool = False
    needs: str | None = None

    @property
    def allowed(self) -> str:
        """Description of the allowed values."""
        if self.kind == "str":
            return ", ".join(self.choices) if self.choices else "a string"
        if self.kind == "int":
            zero = "0, or " if self.or_zero else ""
            return f"{zero}{'odd ' if self.odd else ''}integers >= {self.minimum}"
        other = {
            "float": "numbers" + (f" > {self.minimum}" if self.minimum > -math.inf else ""),
            "bool": "true, false",
            "ratio": "a number in (0, 1], or such a number followed by /e (for example 0.25/e)",
        }
        return other[self.kind]

    def accepts(self, value: object) -> bool:
        """Returns whether ``value``, a scalar or a whole array, is allowed."""
        if self.kind == "str":
            return isinstance(value, str) and (not self.choices or value in self.choices)
        if self.kind == "bool":
            return isinstance(value, (bool, np.bool_))
        if self.kind == "ratio":
            return _is_ratio(value)
        if type(value) is int:  # by far the most common case, checked without numpy
            if self.or_zero and value == 0:
                return True
            in_range = value >= self.minimum if self.kind == "int" else value > self.minimum
            return in_range and value <= self.maximum and (not self.odd or value % 2 == 1)
        if not isinstance(value, (float, np.number, np.ndarray)):
            return False
        numbers = np.asarray(value)
        if numbers.dtype.kind not in (_INT_KINDS if self.kind == "int" else _NUMBER_KINDS):
            return False
        return self._in_range(numbers)

    def _in_range(self, numbers: np.ndarray) -> bool:
        if not numbers.size or not math.isfinite(numbers.sum()):
            return False
        if self.or_zero and (numbers == 0).any():
            others = numbers[numbers != 0]
            return not others.size or self._in_range(others)
        lowest = numbers.min()
        meets_minimum = lowest >= self.minimum if self.kind == "int" else lowest > self.minimum
        fits = meets_minimum and numbers.max() <= self.maximum
        return bool(fits) and (not self.odd or bool((numbers % 2 == 1).all()))

    def clean(self, key: str, value: object) -> Any:
        """Returns ``value`` as a plain Python scalar, or an array of integers as an int64 array.

        A whole float, such as 3.0, becomes an int. Arrays of floats are returned unchanged.

        Raises:
            ArchError: The value is not allowed.
        """
        if not self.accepts(value):
            is_large = isinstance(value, (int, float)) and value > self.maximum
            allowed = f"{self.allowed}, at most {self.maximum}" if is_large else self.allowed
            raise ArchError("not allowed", key=key, value=value, allowed=allowed)
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
    """Returns the number of a squeeze ratio, and whether it is divided by the expansion.

    Raises:
        TypeError: The value is neither a number nor a string.
        ValueError: The string is neither a number nor a number followed by ``/e``.
    """
    if isinstance(value, bool):
        raise TypeError("a ratio is a number or a string")
    if isinstance(value, str):
        return float(value.removesuffix("/e")), value.endswith("/e")
    return float(value), False


# Keys of every row besides ``op``, whichever op it has.
COMMON_KEYS: Mapping[str, Key] = {
    "stage": Key("int", required=True),
    "c": Key("int", required=True, minimum=1),  # output channels
    "n": Key("int", default=1, minimum=1, maximum=MAX_LAYERS),  # number of layers of the row
    "s": Key("int", default=1, minimum=1),  # stride of the row's first layer
}

# Predefined keys: an op that lists one of these names gets the type, default and range below.
OP_KEYS: Mapping[str, Key] = {
    "k": Key("int", required=True, minimum=1, odd=True),  # side of the kernel, in pixels
    "e": Key("float", required=True),  # expansion: middle channels / input channels
    "act": Key("str", default="hswish", choices=ACTIVATIONS),  # activation
    "se": Key("str", choices=GATES),  # gate of squeeze-and-excitation (SE); not given: no SE
    "se_ratio": Key("ratio", default=0.25, needs="se"),  # squeezed / middle channels
    "dw_padding": Key("int", first_only=True),  # padding of the depthwise convolution, in pixels
    "conv_bias": Key("bool", default=False),  # whether convolutions have a bias
    "pw_groups": Key("int", default=1, minimum=1),  # groups of the 1x1 convolution that expands
    "pwl_groups": Key("int", default=1, minimum=1),  # groups of the 1x1 convolution that projects
    # side of the depthwise kernel before the expansion, in pixels; 0 leaves the convolution out
    "k_start": Key("int", required=True, minimum=1, odd=True, or_zero=True),
    # side of the depthwise kernel after the expansion, in pixels; 0 leaves the convolution out
    "k_mid": Key("int", required=True, minimum=1, odd=True, or_zero=True),
    # activation inside of squeeze-and-excitation; without it, that of the layer
    "se_act": Key("str", choices=ACTIVATIONS, needs="se"),
    # initial factor of each channel of the residual branch (CaiT, section 2.1); not given: none
    "layer_scale": Key("float", maximum=1),
    "pwl_bn": Key("bool", default=False),  # whether a batch norm follows the last 1x1 convolution
}


def key_of_default(name: str, default: Any) -> Key:
    """Returns a new key that has the type of its default value.

    Integers may go down to 0, or to the default if it is negative; floats have no lower limit.

    Args:
        name: Name of the key, for the message of an error.
        default: An int, a float, a bool or a string.

    Raises:
        ArchError: The default has another type.
    """
    kind = type(default).__name__
    if kind not in ("int", "float", "bool", "str"):
        allowed = "a Key, or a default that is an int, a float, a bool or a string"
        raise ArchError(f"the default is a {kind}", key=name, value=default, allowed=allowed)
    lowest = -math.inf if kind == "float" else min(0, default) if kind == "int" else 0
    return Key(kind, default=default, minimum=lowest)
