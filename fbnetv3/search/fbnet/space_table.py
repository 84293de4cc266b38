"""The table of a search space: fixed values, and variables where a yaml describes a range."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fbnetv3.errors import did_you_mean
from fbnetv3.search.errors import SearchError
from fbnetv3.search.space.space import Choice, FloatRange, IntRange, Parameter, When


@dataclass(frozen=True)
class Row:
    """A row of the table: fixed values, and the names of variables where there are some.

    Attributes:
        first, rest: key -> value or :class:`Ref`, of the first layer and of the others.
        n: depth: a number or a Ref.
    """

    first: dict[str, Any]
    rest: dict[str, Any]
    n: Any


@dataclass(frozen=True)
class Ref:
    """Stands for the value of a variable."""

    name: str


class TableReader:
    """Reads values of a table; each mapping becomes a variable, a tied one the same variable.

    Attributes:
        parameters: variable by name, in an order in which conditions name earlier ones.
    """

    def __init__(self) -> None:
        self.parameters: dict[str, Parameter] = {}

    def rows(self, table: Mapping[str, Any]) -> list[Row]:
        """Returns the rows of a table, none where the architecture is fixed elsewhere.

        Raises:
            SearchError: a row is none, or describes no range.
        """
        rows = table.get("rows") or []
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise SearchError("rows is a list of {stage: 0, op: conv, ...}, one for each row")
        stages = [row.get("stage") for row in rows]
        found = []
        for i, row in enumerate(rows):
            letter = "abcdefgh"[stages[:i].count(row.get("stage"))]
            several = stages.count(row.get("stage")) > 1
            name = f"stage{row.get('stage')}{letter if several else ''}"
            found.append(self._read_row(name, dict(row), table.get("defaults") or {}))
        return found

    def _read_row(self, name: str, row: dict[str, Any], defaults: Mapping[str, Any]) -> Row:
        n = self.value(f"{name}_n", row.pop("n", 1), "architecture")
        has_rest = isinstance(n, Ref) or n > 1
        deep = (When(n.name, ">", 1),) if isinstance(n, Ref) else ()
        takes = ("act", "se_ratio") if row.get("se") else ("act",)
        first: dict[str, Any] = {k: v for k, v in defaults.items() if k in takes}
        rest = dict(first)
        for key, value in row.items():
            parts = value if _is_split(value) else {"first": value}
            first[key] = self.value(f"{name}_{key}", parts["first"], "architecture")
            again = parts.get("rest", parts["first"])
            if not has_rest or key in ("c", "s"):
                rest[key] = first[key]
            else:
                rest[key] = self.value(f"{name}_{key}_rest", again, "architecture", deep)
        rest["s"] = 1
        return Row(first, rest, n)

    def recipe(self, values: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
        """Returns the recipe's values, whose keys must be known ones.

        Raises:
            SearchError: a key is not, or describes no range.
        """
        if not isinstance(values, Mapping):
            raise SearchError(f"recipe is a mapping such as {{lr: 0.1}}, not {values!r}")
        for key in values:
            if key not in known:
                raise SearchError(f"recipe has no key {key!r}{did_you_mean(str(key), known)}")
        return {key: self.value(key, value, "recipe") for key, value in values.items()}

    def value(self, name: str, value: Any, part: str, active_if: tuple[When, ...] = ()) -> Any:
        """Returns a plain value, or a Ref to the variable that a mapping describes."""
        if not isinstance(value, dict):
            return value
        name = value.get("tie", name)
        parameter = make_parameter(name, value, part, active_if)
        known = self.parameters.get(name)
        if known is None:
            self.parameters[name] = parameter
        elif dataclasses.replace(known, active_if=()) != dataclasses.replace(  # type: ignore[type-var]
            parameter, active_if=()
        ):
            raise SearchError(
                f"{name}: tied ranges differ: {known.describe()}, {parameter.describe()}"
            )
        else:
            # active where any of its rows uses it; always, where one of them always does
            both = (*known.active_if, *active_if) if known.active_if and active_if else ()
            del self.parameters[name]  # to the end: after every depth that it depends on
            self.parameters[name] = dataclasses.replace(  # type: ignore[type-var]
                known, active_if=both
            )
        return Ref(name)

    def fix(self, fixed: Mapping[str, Any]) -> None:
        """Leaves variables one value each: of the recipe any, of the architecture one of theirs.

        So networks that have no dropout can be searched with a dropout of 0.

        Raises:
            SearchError: there is no such variable, or it has no such value.
        """
        for name, value in fixed.items():
            if name not in self.parameters:
                close = did_you_mean(name, self.parameters)
                raise SearchError(f"the space has no variable {name!r} to fix{close}")
            old = self.parameters[name]
            if old.part == "architecture":
                value = old.value(old.level(value))
            self.parameters[name] = Choice(name, (value,), old.part, old.active_if)


def _is_split(value: Any) -> bool:
    """Tells whether a value is ``{first: ..., rest: ...}``."""
    return isinstance(value, dict) and "first" in value and set(value) <= {"first", "rest"}


def make_parameter(
    name: str, value: dict[str, Any], part: str, active_if: tuple[When, ...]
) -> Parameter:
    """Makes a variable of ``{choices: [...]}`` or ``{range: [low, high, step], log: bool}``."""
    unknown = set(value) - {"choices", "range", "log", "tie"}
    if unknown or ("choices" in value) == ("range" in value):
        raise SearchError(
            f"{name}: {value} is no variable; write {{choices: [3, 5]}} or "
            "{range: [low, high, step]}, with log: true or tie: NAME where wanted"
        )
    if "choices" in value:
        if not isinstance(value["choices"], list):
            raise SearchError(f"{name}: choices {value['choices']!r} is not a list such as [3, 5]")
        return Choice(name, tuple(value["choices"]), part=part, active_if=active_if)
    bounds = value["range"]
    if not isinstance(bounds, list) or len(bounds) not in (2, 3):
        raise SearchError(f"{name}: range {bounds!r} is not [low, high] or [low, high, step]")
    if any(isinstance(b, bool) or not isinstance(b, int | float) for b in bounds):
        raise SearchError(f"{name}: range {bounds!r} holds something that is no number")
    log = bool(value.get("log", False))
    if all(isinstance(b, int) for b in bounds):
        low, high, step = (*bounds, 1)[:3]
        return IntRange(name, low, high, step, log, part, active_if)
    step_or_none = bounds[2] if len(bounds) == 3 else None
    return FloatRange(name, bounds[0], bounds[1], step_or_none, log, part, active_if)


def resolve(value: Any, config: Mapping[str, Any]) -> Any:
    return config[value.name] if isinstance(value, Ref) else value
