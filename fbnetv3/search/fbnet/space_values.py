"""Converts and checks the values of a space's table by the type of the field that they set."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from yaml import ScalarNode

from fbnetv3.arch.keys import COMMON_KEYS, Key
from fbnetv3.arch.ops import OpSpec, get_op
from fbnetv3.plain_yaml import PlainLoader
from fbnetv3.recipe import Recipe
from fbnetv3.search.checks import real_from_text, whole_from_text
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import short
from fbnetv3.search.space.space import FloatRange, IntRange, Parameter

_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_KINDS = {f.name: str(f.type).removesuffix(" | None") for f in dataclasses.fields(Recipe)}
"""Type of each field of a recipe, such as ``float``."""
_ALLOWED = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "str": "a string",
}
_SHARED = ("str", "bool", "ratio")
"""Kinds of keys (see ``Key.kind``) that have the same value in all candidates.

Costs are computed for all candidates at once, on arrays of numbers, and keys of these kinds accept
no arrays.
"""
_MAX_LEVELS = 4096
"""Largest number of values of a range for which all values are checked."""
RESOLUTION = Key("int", minimum=1)
"""Allowed values of a resolution."""


class SpaceLoader(PlainLoader):
    """Reads the scalars of a space much as YAML 1.2 does, not as YAML 1.1.

    Only decimal numbers such as ``1e-6`` and ``010``, true, false and null are converted. Anything
    else, such as ``1:30``, ``no``, ``on`` or a date, stays a string, which is later converted to
    the type of its field.
    """

    yaml_implicit_resolvers: dict[Any, Any] = {}

    def decimal(self, node: ScalarNode) -> int:
        """Returns a whole number from decimal digits, which may begin with zeros.

        Raises:
            ValueError: The number has too many digits.
        """
        number = whole_from_text(str(self.construct_scalar(node)))
        if number is None:
            raise ValueError(f"line {node.start_mark.line + 1}: a number with too many digits")
        return number


def _resolve(tag: str, pattern: str, first: str) -> None:
    SpaceLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_resolve("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("int", r"^[-+]?[0-9]+$", "-+0123456789")
_resolve(
    "float",
    r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$",
    "-+.0123456789",
)
SpaceLoader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
SpaceLoader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])
SpaceLoader.add_constructor("tag:yaml.org,2002:int", SpaceLoader.decimal)


def is_real_field(name: str) -> bool:
    """Returns whether a field of a recipe is a real number."""
    return _KINDS.get(name) == "float"


def recipe_value(name: str, value: object) -> Any:
    """Returns the value of a recipe's field; a string is converted to the field's type.

    Args:
        name: Field of a recipe.
        value: Plain value from the table.

    Raises:
        SearchError: The value does not have the field's type.
    """
    kind = _KINDS[name]
    if kind not in _ALLOWED or value is None:
        return value
    read: Any = value
    if isinstance(value, str) and kind != "str":
        readers = {"float": real_from_text, "int": whole_from_text, "bool": _flag}
        read = readers[kind](value)
    is_number = isinstance(read, int | float) and not isinstance(read, bool)
    fits = {
        "float": is_number,
        "int": is_number and isinstance(read, int),
        "bool": isinstance(read, bool),
        "str": isinstance(read, str),
    }
    if not fits[kind]:
        hint = "; write it in quotes" if kind == "str" else ""
        raise SearchError(
            f"recipe {name}={short(value)} is not allowed; allowed: {_ALLOWED[kind]}{hint}"
        )
    return read


def check_recipe_range(name: str) -> None:
    """Checks that a field of a recipe may have a range.

    Raises:
        SearchError: The field is not a number.
    """
    if _KINDS[name] not in ("float", "int"):
        raise SearchError(
            f"recipe {name}: a range is for numbers, but this is "
            f"{_ALLOWED.get(_KINDS[name], 'a list of numbers')}; write {{choices: [...]}}"
        )


def _flag(text: str) -> bool | None:
    return _FLAGS.get(text.strip().lower())


def fixed_value(parameter: Parameter, value: object) -> Any:
    """Returns the value to which a variable is fixed; for a range, a string becomes a number.

    Raises:
        SearchError: The variable has a range, and the value is not a number.
    """
    is_range = isinstance(parameter, IntRange | FloatRange)
    if is_range and isinstance(value, str):
        read: float | None = whole_from_text(value)
        read = real_from_text(value) if read is None else read
        if read is None:
            raise _not_a_number(parameter, value)
        return read
    if is_range and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise _not_a_number(parameter, value)
    return value


def _not_a_number(parameter: Parameter, value: object) -> SearchError:
    return SearchError(
        f"{parameter.name}={short(value)} is not a number; the variable has {parameter.describe()}"
    )


def check_row_values(
    op: object, values: Mapping[str, Parameter], allowed_keys: Mapping[str, Key] | None = None
) -> None:
    """Checks that a row's keys accept the values of its variables, so that costs can be computed.

    Args:
        op: Name of the row's operator.
        values: Variable by the key of the row that it sets.
        allowed_keys: Key by name, whose allowed values are checked. None: the keys of the operator
            and those that all operators have.

    Raises:
        SearchError: A variable has a value that is not allowed for its key (of a long range,
            :func:`values_of` gives the values that are checked), or varies although its key must
            be the same in all candidates.
        ArchError: The operator is unknown.
    """
    keys = {**COMMON_KEYS, **get_op(op).keys} if allowed_keys is None else allowed_keys
    for name, parameter in values.items():
        key = keys.get(name)
        if key is None:
            continue  # an unknown key: building an architecture reports it
        if key.kind in _SHARED and parameter.size > 1:
            raise SearchError(
                f"{parameter.name} cannot vary: {name} is the same for all candidates, since their "
                f"costs are computed together; write one of {parameter.describe()}"
            )
        for value in values_of(parameter):
            if not key.accepts(value):
                raise SearchError(
                    f"{parameter.name}={short(value)} is not allowed; allowed for {name}: "
                    f"{key.allowed}"
                )


def check_ops(row: Mapping[str, Any]) -> None:
    """Checks that costs can be computed for every op of a row and the values of its variables.

    Args:
        row: Value by key: plain, or a :class:`Parameter`.

    Raises:
        SearchError: As in :func:`check_row_values`; or the ops of the row do not fit its keys or
            each other; or, in some candidates, a layer with a stride above 1 would lack a depthwise
            convolution.
        ArchError: An op is unknown.
    """
    op = row.get("op")
    names = list(values_of(op)) if isinstance(op, Parameter) else [op]
    others = {key: value for key, value in row.items() if key != "op"}
    variables = {key: value for key, value in others.items() if isinstance(value, Parameter)}
    if isinstance(op, Parameter):
        _check_choices(op.name, [get_op(name) for name in names], others)
    for name in names:
        accepted = {*COMMON_KEYS, *get_op(name).keys} if len(names) > 1 else set(variables)
        check_row_values(name, {k: v for k, v in variables.items() if k in accepted})
        if "k_start" in get_op(name).keys:
            _check_stride(others)


def _check_choices(variable: str, ops: Sequence[OpSpec], row: Mapping[str, Any]) -> None:
    """Checks that a row fits its ops.

    The row has the required keys of each op, each key of the row is a key of at least one op, and
    either all ops pool or none does.
    """
    for key in row:
        if key not in COMMON_KEYS and not any(key in op.keys for op in ops):
            names = ", ".join(op.name for op in ops)
            raise SearchError(f"{variable}: none of the ops {names} takes the key {key!r}")
    for op in ops:
        missing = [key for key, kind in op.keys.items() if kind.required and key not in row]
        if missing:
            raise SearchError(f"{variable}: op {op.name} needs the key {missing[0]!r} in this row")
    if len({op.pools for op in ops}) > 1:
        pooling = ", ".join(op.name for op in ops if op.pools)
        raise SearchError(f"{variable}: {pooling} cannot be a choice beside ops that do not pool")


def _check_stride(row: Mapping[str, Any]) -> None:
    """Checks that a universal inverted bottleneck with stride > 1 has a depthwise convolution."""
    values = {
        key: list(values_of(row[key])) if isinstance(row[key], Parameter) else [row[key]]
        for key in ("s", "k_start", "k_mid")
        if key in row
    }
    may_lack = all(0 in values.get(key, ()) for key in ("k_start", "k_mid"))
    if may_lack and max(values.get("s", [1])) > 1:
        raise SearchError(
            "k_start and k_mid may both be 0 in a layer with a stride, which needs a depthwise "
            "convolution; leave 0 out of the choices of one of them in this layer, for example "
            "k_mid: {first: {choices: [3, 5]}, rest: {choices: [0, 3, 5]}}"
        )


def values_of(parameter: Parameter) -> Iterable[Any]:
    """Returns all values of a variable; of a long range, the first two values and the last."""
    is_long = parameter.is_ordered and parameter.size > _MAX_LEVELS
    levels = (0, 1, parameter.size - 1) if is_long else range(parameter.size)
    return [parameter.value(level) for level in levels]
