"""Reads the table of a search space: fixed values, and ranges that become variables."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fbnetv3.arch.expand import with_accepted_keys
from fbnetv3.arch.keys import COMMON_KEYS
from fbnetv3.arch.ops import OP_COSTS
from fbnetv3.errors import did_you_mean
from fbnetv3.search.checks import real_from_text, whole_from_text
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.space_conditions import read_conditions
from fbnetv3.search.fbnet.space_values import (
    check_recipe_range,
    check_row_values,
    fixed_value,
    is_real_field,
    recipe_value,
    values_of,
)
from fbnetv3.search.outcome import short
from fbnetv3.search.space.space import Choice, FloatRange, IntRange, Parameter, When

_MAX_ROWS = 500
"""Largest number of rows of a table, which may be untrusted."""
_MAX_CHOICES = 1_000
"""Largest number of choices of a variable: each is one feature of the predictor's input."""


@dataclass(frozen=True)
class Row:
    """A row of the table: one run of layers with the same width.

    Attributes:
        first: Fields of the row's first layer; each value is plain or a :class:`Ref`.
        rest: Fields of the row's other layers; each value is plain or a :class:`Ref`.
        n: Number of layers: an int or a :class:`Ref`.
    """

    first: dict[str, Any]
    rest: dict[str, Any]
    n: Any

    def with_constants(self, parameters: Mapping[str, Parameter]) -> Row:
        """Returns the row with plain values in place of variables that have a single value.

        Costs are computed on arrays of numbers, so fields such as ``act`` must be plain. ``n`` is
        left as it is.
        """

        def constant(value: Any) -> Any:
            is_single = isinstance(value, Ref) and parameters[value.name].size == 1
            return parameters[value.name].value(0) if is_single else value

        parts = []
        for part in (self.first, self.rest):
            fields = {key: constant(value) for key, value in part.items()}
            is_fixed = isinstance(part.get("op"), Ref) and not isinstance(fields["op"], Ref)
            parts.append(with_accepted_keys(fields) if is_fixed else fields)
        return Row(parts[0], parts[1], self.n)


@dataclass(frozen=True)
class Ref:
    """A reference to the value of a variable.

    Attributes:
        name: Name of the variable.
    """

    name: str


def resolve(value: object, config: Mapping[str, Any]) -> Any:
    """Returns the value of a reference's variable; any other value is returned unchanged.

    Args:
        value: Plain value or :class:`Ref`.
        config: Value (or array of values) by variable.
    """
    return config[value.name] if isinstance(value, Ref) else value


class TableReader:
    """Reads the values of a table.

    Each mapping with ``choices`` or a ``range`` becomes a variable. Mappings with the same ``tie``
    share one variable.

    Attributes:
        parameters: Variable by name, ordered so that conditions refer to earlier variables only.
    """

    def __init__(self) -> None:
        self.parameters: dict[str, Parameter] = {}

    def rows(self, table: Mapping[str, Any]) -> list[Row]:
        """Returns the rows of a table; empty if the table searches recipes only.

        Raises:
            SearchError: ``rows`` is not a list of at most 500 mappings, ``defaults`` is not a
                mapping, or a number of layers or a range is invalid.
        """
        rows = table.get("rows") or []
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise SearchError(
                "rows must be a list of mappings such as {stage: 0, op: conv, ...}, one per row"
            )
        defaults = table.get("defaults") or {}
        if not isinstance(defaults, dict):
            raise SearchError(
                f"defaults must be a mapping such as {{act: hswish}}, not {short(defaults)}"
            )
        stages = [row.get("stage") for row in rows]
        if len(rows) > _MAX_ROWS:
            raise SearchError(f"rows: {len(rows)} rows; allowed: at most {_MAX_ROWS}")
        parsed = []
        for i, row in enumerate(rows):
            letter = _letters(stages[:i].count(row.get("stage")))
            is_shared = stages.count(row.get("stage")) > 1
            name = f"stage{row.get('stage')}{letter if is_shared else ''}"
            parsed.append(self._read_row(name, dict(row), defaults))
        return parsed

    def _read_row(self, name: str, row: dict[str, Any], defaults: Mapping[str, Any]) -> Row:
        """Returns a row of the table; the names of its variables begin with ``name``."""
        n = self.value(f"{name}_n", row.pop("n", 1), "architecture")
        if not isinstance(n, Ref) and (type(n) is not int or n < 1):
            raise SearchError(f"{name}_n={short(n)} is not allowed; allowed: integers >= 1")
        if isinstance(n, Ref):
            check_row_values(None, {"n": self.parameters[n.name]}, COMMON_KEYS)
        has_rest = isinstance(n, Ref) or n > 1
        if_several = (When(n.name, ">", 1),) if isinstance(n, Ref) else ()
        inherited = ("act", "se_ratio") if row.get("se") else ("act",)
        first: dict[str, Any] = {k: v for k, v in defaults.items() if k in inherited}
        rest = dict(first)
        # The op comes first, since other variables may depend on it.
        for key, value in sorted(row.items(), key=lambda item: item[0] != "op"):
            parts = value if _is_split(value) else {"first": value}
            when = self._when(key, first.get("op"))
            first[key] = self.value(f"{name}_{key}", parts["first"], "architecture", when)
            if not has_rest or key in ("c", "s"):
                rest[key] = first[key]
            else:
                rest_value = parts.get("rest", parts["first"])
                when = self._when(key, rest.get("op")) or if_several
                rest[key] = self.value(f"{name}_{key}_rest", rest_value, "architecture", when)
        rest["s"] = 1
        return Row(first, rest, n)

    def _when(self, key: str, op: Any) -> tuple[When, ...]:
        """Returns the conditions on a row's op of which one must hold for a key to matter.

        They are empty if the op is fixed, or if the key matters for all ops of the row.
        """
        if not isinstance(op, Ref) or key == "op":
            return ()
        names = [name for name in values_of(self.parameters[op.name]) if name in OP_COSTS]
        users = [name for name in names if key in COMMON_KEYS or key in OP_COSTS[name].keys]
        return () if len(users) == len(names) else tuple(When(op.name, "==", u) for u in users)

    def recipe(self, values: Mapping[str, Any], allowed: Collection[str]) -> dict[str, Any]:
        """Returns the values of the recipe by field, each plain or a :class:`Ref`.

        Args:
            values: The table's ``recipe`` mapping.
            allowed: Names of all fields of a recipe.

        Raises:
            SearchError: ``values`` is not a mapping, a field is unknown, or a value or range is
                invalid.
        """
        if not isinstance(values, Mapping):
            raise SearchError(f"recipe must be a mapping such as {{lr: 0.1}}, not {values!r}")
        for key in values:
            if key not in allowed:
                raise SearchError(f"recipe has no key {key!r}{did_you_mean(str(key), allowed)}")
        return {key: self._field(key, value) for key, value in values.items()}

    def _field(self, key: str, value: Any) -> Any:
        """Returns a value of the recipe, converted to the type of its field, or a :class:`Ref`."""
        if not isinstance(value, dict):
            return recipe_value(key, value)
        typed = dict(value)
        if isinstance(value.get("choices"), list):
            typed["choices"] = [recipe_value(key, choice) for choice in value["choices"]]
        if "range" in value:
            check_recipe_range(key)
        # For a real number, the range [0, 1] is continuous, and [0, 1, 1] has the values 0 and 1.
        if is_real_field(key) and isinstance(value.get("range"), list) and len(value["range"]) == 2:
            typed["range"] = [float(b) if type(b) is int else b for b in value["range"]]
        return self.value(key, typed, "recipe")

    def value(self, name: str, value: object, part: str, active_if: tuple[When, ...] = ()) -> Any:
        """Returns a reference to the variable of a mapping; any other value is returned unchanged.

        Args:
            name: Name of the variable, unless the mapping has a ``tie``.
            value: Value from the table.
            part: ``architecture`` or ``recipe``.
            active_if: Conditions of which at least one must hold for the variable to matter. If
                empty, and the mapping has no ``when``, it always matters.

        Raises:
            SearchError: The mapping does not describe a variable, its ``tie`` or ``when`` is not
                allowed, or its values differ from those of another mapping with the same ``tie``.
        """
        if not isinstance(value, dict):
            return value
        name = value.get("tie", name)
        if not isinstance(name, str) or not name:
            raise SearchError(f"tie={short(name)} is not allowed; allowed: a name")
        if "when" in value:
            active_if = read_conditions(name, value["when"], self.parameters, active_if)
        parameter = _make_parameter(name, value, part, active_if)
        known = self.parameters.get(name)
        if known is None:
            self.parameters[name] = parameter
        elif _unconditional(known) != _unconditional(parameter):
            raise SearchError(
                f"{name}: tied ranges differ: {known.describe()}, {parameter.describe()}"
            )
        else:
            # A tied variable matters if one of its rows uses it. A row without a condition always
            # uses it.
            merged = (*known.active_if, *active_if) if known.active_if and active_if else ()
            del self.parameters[name]  # re-inserted after the variables of its conditions
            self.parameters[name] = _with_conditions(known, merged)
        return Ref(name)

    def fix(self, fixed: Mapping[str, Any]) -> None:
        """Reduces variables to one value each.

        An architecture variable must be fixed to one of its values. A recipe variable may also be
        fixed to another value that its field accepts: dropout, for example, to 0 although its range
        starts above 0.

        Args:
            fixed: Mapping from variable to its fixed value.

        Raises:
            SearchError: A variable does not exist, or cannot have the value.
        """
        for name, value in fixed.items():
            if name not in self.parameters:
                close = did_you_mean(name, self.parameters)
                raise SearchError(
                    f"the space has no variable {name!r} to fix{close}; leave it out of "
                    "SEARCH.FIX ([] fixes no variable)"
                )
            parameter = self.parameters[name]
            value = fixed_value(parameter, value)
            if parameter.part == "architecture":
                value = parameter.value(parameter.level(value))
            self.parameters[name] = Choice(name, (value,), parameter.part, parameter.active_if)


def _letters(number: int) -> str:
    """Returns a, b, ..., y, za, zb, ... for 0, 1, ..., in alphabetical order."""
    return "z" * (number // 25) + "abcdefghijklmnopqrstuvwxyz"[number % 25]


def _with_conditions(parameter: Parameter, active_if: tuple[When, ...]) -> Parameter:
    return dataclasses.replace(parameter, active_if=active_if)  # type: ignore[type-var]


def _unconditional(parameter: Parameter) -> Parameter:
    return _with_conditions(parameter, ())


def _is_split(value: Any) -> bool:
    """Returns whether a value is ``{first: ...}`` or ``{first: ..., rest: ...}``."""
    return isinstance(value, dict) and "first" in value and set(value) <= {"first", "rest"}


def _make_parameter(
    name: str, value: dict[str, Any], part: str, active_if: tuple[When, ...]
) -> Parameter:
    """Returns the variable of ``{choices: [...]}`` or ``{range: [low, high, step], log: bool}``."""
    unknown = set(value) - {"choices", "range", "log", "tie", "when"}
    if unknown or ("choices" in value) == ("range" in value):
        raise SearchError(
            f"{name}: {value} does not describe a variable; write {{choices: [3, 5]}} or "
            "{range: [low, high, step]}, optionally with log: true, tie: NAME or when: {NAME: "
            "VALUE}"
        )
    if "choices" in value:
        if "log" in value:
            raise SearchError(f"{name}: log is for a range, and has no effect on choices")
        if not isinstance(value["choices"], list):
            raise SearchError(f"{name}: choices {value['choices']!r} is not a list such as [3, 5]")
        if len(value["choices"]) > _MAX_CHOICES:
            count = len(value["choices"])
            raise SearchError(
                f"{name}: {count} choices; allowed: at most {_MAX_CHOICES}; give a range"
            )
        return Choice(name, tuple(value["choices"]), part=part, active_if=active_if)
    bounds = value["range"]
    if not isinstance(bounds, list) or len(bounds) not in (2, 3):
        raise SearchError(f"{name}: range {short(bounds)} is not [low, high] or [low, high, step]")
    numbers = [_number(bound) for bound in bounds]
    if any(isinstance(b, bool) or not isinstance(b, int | float) for b in numbers):
        raise SearchError(f"{name}: range {short(bounds)} must hold numbers only")
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise SearchError(f"{name}: log={short(log)} is not allowed; allowed: true or false")
    if all(isinstance(b, int) for b in numbers):
        low, high, step = (*numbers, 1)[:3]
        return IntRange(name, low, high, step, log, part, active_if)
    step_or_none = numbers[2] if len(numbers) == 3 else None
    return FloatRange(name, numbers[0], numbers[1], step_or_none, log, part, active_if)


def _number(bound: Any) -> Any:
    """Returns the number that a string contains; any other value is returned unchanged.

    For example, YAML 1.1 reads ``1e-6`` as a string.
    """
    if not isinstance(bound, str):
        return bound
    whole, real = whole_from_text(bound), real_from_text(bound)
    number = real if whole is None else whole
    return bound if number is None else number
