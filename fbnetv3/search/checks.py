"""Checks of arguments: their type, finiteness and range, with one-line errors.

NumPy's numbers are accepted like Python's and converted to them, since settings are stored as JSON
and sent to workers.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import scalar, short

_WHOLE = re.compile(r"[+-]?[0-9]{1,300}")
_REAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_FLAGS = {"true": True, "false": False}
MAX_EXACT_INT = 2**53
"""Largest absolute value up to which a float represents every whole number."""
MAX_EPOCHS = 2**31 - 1
"""Largest number of epochs that a storage can keep."""


def as_whole(
    name: str, value: object, low: int | None = None, high: int | None = MAX_EXACT_INT
) -> int:
    """Returns a whole number as an int.

    Args:
        name: Name of the argument, for the message.
        value: Value to check: an integer of Python or NumPy, or in a tensor of shape (); not a
            boolean.
        low: Smallest allowed value; None: no bound.
        high: Largest allowed value; None: no bound.

    Raises:
        SearchError: The value has another type, or is out of range.
    """
    value = scalar(value)
    allowed = f"a whole number{_bounds(low, high)}"
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise _refusal(name, value, allowed)
    number = int(value)
    if low is not None and number < low:
        raise _refusal(name, value, allowed)
    if high is not None and number > high:
        raise _refusal(name, value, f"whole numbers of at most {high}")
    return number


def as_real(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: float | None = None,
    finite: bool = True,
) -> float:
    """Returns a real number as a float.

    Args:
        name: Name of the argument, for the message.
        value: Value to check: a number of Python or NumPy, or a tensor of shape (); not a boolean.
        low: Smallest allowed value.
        high: Largest allowed value.
        above: Number that the value must exceed; None: no such bound.
        finite: Whether infinity and NaN are refused. If False, NaN is accepted despite bounds.

    Raises:
        SearchError: The value has another type, is refused as not finite, or is out of range.
    """
    value = scalar(value)
    kind = "a finite number" if finite else "a number"
    if above is not None:
        kind, low = f"{kind} above {above:g}", max(low, above)
        allowed = kind if math.isinf(high) else f"{kind}, at most {high:g}"
    else:
        allowed = f"{kind}{_bounds(low, high)}"
    is_flag = isinstance(value, bool | np.bool_)
    if is_flag or not isinstance(value, numbers.Real | np.number):
        raise _refusal(name, value, allowed)
    try:
        number = float(value)
    except (OverflowError, TypeError):
        raise _refusal(name, value, allowed) from None
    is_inside = low <= number <= high and (above is None or number > above)
    if (finite and not math.isfinite(number)) or not (is_inside or math.isnan(number)):
        raise _refusal(name, value, allowed)
    return number


def as_flag(name: str, value: object) -> bool:
    """Returns a boolean.

    Raises:
        SearchError: The value is not a boolean of Python or NumPy.
    """
    if not isinstance(value, bool | np.bool_):
        raise _refusal(name, value, "True or False")
    return bool(value)


def as_text(name: str, value: object) -> str:
    """Returns a string that is not empty.

    Raises:
        SearchError: The value is not such a string, or cannot be stored as UTF-8.
    """
    if not isinstance(value, str) or not value:
        raise _refusal(name, value, "a non-empty string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _refusal(name, value, "text that is valid as UTF-8") from None
    return str(value)


def as_name(name: str, value: object) -> str:
    """Returns a string that is not empty and has no control characters, such as line breaks.

    Raises:
        SearchError: The value is not such a string, or cannot be stored as UTF-8.
    """
    if not as_text(name, value).isprintable():
        raise _refusal(name, value, "text on one line, without control characters")
    return str(value)


def as_items(name: str, value: object, kind: type, of: str) -> tuple[Any, ...]:
    """Returns the items of an ordered collection, all of one type, as a tuple.

    Args:
        name: Name of the argument, for the message.
        value: Value to check.
        kind: Type of the items.
        of: Description of the items, such as ``constraints such as Constraint('macs', upper=1e9)``.

    Raises:
        SearchError: The value is not iterable, is a string, bytes, a set or a mapping, or an item
            has another type.
    """
    has_no_order = isinstance(value, set | frozenset | Mapping)
    if isinstance(value, str | bytes) or has_no_order or not isinstance(value, Iterable):
        raise _refusal(name, value, f"a list of {of}")
    items = tuple(value)
    for item in items:
        if not isinstance(item, kind):
            raise _refusal(f"{name}: an item", item, of)
    return items


def as_callable(name: str, value: object, signature: str) -> Callable[..., Any]:
    """Returns a function.

    Args:
        name: Name of the argument, for the message.
        value: Value to check.
        signature: End of the phrase "a function ...", such as ``from a trial to its score``.

    Raises:
        SearchError: The value cannot be called.
    """
    if not callable(value):
        raise _refusal(name, value, f"a function {signature}")
    function: Callable[..., Any] = value
    return function


def whole_from_text(text: str) -> int | None:
    """Returns the whole number of at most 300 digits in a string, such as ``-12``, else None."""
    return int(text) if _WHOLE.fullmatch(text.strip()) else None


def real_from_text(text: str) -> float | None:
    """Returns the finite number in a string, such as ``1e-06``; None if there is no such number."""
    stripped = text.strip()
    number = float(stripped) if _REAL.fullmatch(stripped) else math.nan
    return number if math.isfinite(number) else None


def flag_from_text(text: str) -> bool | None:
    """Returns the boolean in a string, ``true`` or ``false`` in any case of letters, else None."""
    return _FLAGS.get(text.strip().lower())


def _bounds(low: float | None, high: float | None) -> str:
    has_low = low is not None and math.isfinite(low) and low != -MAX_EXACT_INT
    has_high = high is not None and math.isfinite(high) and high != MAX_EXACT_INT
    if has_low and has_high:
        return f" from {low} to {high}"
    if has_low:
        return f" of at least {low}"
    return f" of at most {high}" if has_high else ""


def _refusal(name: str, value: Any, allowed: str) -> SearchError:
    return SearchError(f"{name}={short(value)} is not allowed; allowed: {allowed}")
