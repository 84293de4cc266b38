"""A search space: named variables, some of which matter only under conditions."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3.errors import did_you_mean
from fbnetv3.search.errors import SearchError
from fbnetv3.search.space.parameters import (
    CONTINUOUS_LEVELS,
    Choice,
    FloatRange,
    IntRange,
    Levels,
    Parameter,
    When,
)

__all__ = ["Choice", "FloatRange", "IntRange", "Parameter", "SearchSpace", "When"]

_TABLED = 4096
"""Variables of at most so many values have them in a table."""


class SearchSpace:
    """Variables in order; a candidate is one level of each.

    A variable that is inactive (see ``active_if``) is held at its first level: candidates that
    differ only there are one candidate, with one id.

    Args:
        parameters: the variables; a condition may name those before it.

    Raises:
        SearchError: a name occurs twice, a condition names no earlier variable, or there is
            only one candidate.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = tuple(parameters)
        self.names = tuple(p.name for p in self.parameters)
        self._index = {name: i for i, name in enumerate(self.names)}
        if len(self._index) < len(self.names):
            twice = next(n for n in self.names if self.names.count(n) > 1)
            raise SearchError(f"the space has two variables named {twice!r}; rename one")
        self.sizes = np.array([p.size for p in self.parameters], dtype=np.int64)
        if not self.parameters or int(self.sizes.max()) == 1:
            raise SearchError(
                f"the space has one point only (variables: {', '.join(self.names) or 'none'}); "
                "give a variable more than one value"
            )
        self._rules = [self._rule(i, p) for i, p in enumerate(self.parameters) if p.active_if]

    def _rule(
        self, index: int, parameter: Parameter
    ) -> tuple[int, list[tuple[int, npt.NDArray[np.bool_]]]]:
        """Returns (column, [(column of a condition, truth by level)])."""
        tables = []
        for when in parameter.active_if:
            parent = self._index.get(when.name)
            if parent is None or parent >= index:
                raise SearchError(
                    f"{parameter.name}: its condition names {when.name!r}, which is no variable "
                    f"before it{did_you_mean(when.name, self.names[:index])}"
                )
            other = self.parameters[parent]
            if other.size == CONTINUOUS_LEVELS:
                raise SearchError(
                    f"{parameter.name}: a condition on {when.name!r} needs a step or a Choice there"
                )
            truth = [when.holds(other.value(level)) for level in range(other.size)]
            tables.append((parent, np.array(truth)))
        return index, tables

    def __len__(self) -> int:
        return len(self.parameters)

    def __getitem__(self, name: str) -> Parameter:
        return self.parameters[self._index[name]]

    @property
    def log10_cardinality(self) -> float:
        """Decimal logarithm of the number of candidates, inactive variables counted too."""
        return float(np.log10(self.sizes.astype(np.float64)).sum())

    def log10_of(self, part: str) -> float:
        """The same for the variables of one part."""
        return sum(math.log10(p.size) for p in self.parameters if p.part == part)

    def columns_of(self, part: str) -> list[int]:
        """Returns the columns of the variables of ``architecture`` or ``recipe``."""
        return [i for i, p in enumerate(self.parameters) if p.part == part]

    def active(self, levels: Levels) -> npt.NDArray[np.bool_]:
        """Returns which variables matter, (candidates, variables)."""
        mask = np.ones(levels.shape, dtype=bool)
        for column, tables in self._rules:
            mask[:, column] = False
            for parent, truth in tables:
                mask[:, column] |= mask[:, parent] & truth[levels[:, parent]]
        return mask

    def canonical(self, levels: Levels) -> Levels:
        """Returns the levels with inactive variables at their first level."""
        return np.where(self.active(levels), levels, 0) if self._rules else levels

    def columns(self, levels: Levels) -> dict[str, npt.NDArray[Any]]:
        """Returns an array of values for each variable, (candidates,)."""
        values = zip(self.names, self._values(levels), strict=True)
        return {name: np.array(column) for name, column in values}

    def configs(self, levels: Levels) -> list[dict[str, Any]]:
        """Returns one dict of plain values per candidate; inactive variables are in it too."""
        rows = zip(*self._values(levels), strict=True)
        return [dict(zip(self.names, row, strict=True)) for row in rows]

    def _values(self, levels: Levels) -> list[list[Any]]:
        """Returns a column of values for each variable; those of small ones from a table."""
        columns = []
        for parameter, table, column in zip(
            self.parameters, self._tables, levels.T.tolist(), strict=True
        ):
            value = table.__getitem__ if table else parameter.value
            columns.append(list(map(value, column)))
        return columns

    @cached_property
    def _tables(self) -> list[list[Any]]:
        """The values of each variable that has few, else nothing."""
        return [
            [p.value(level) for level in range(p.size)] if p.size <= _TABLED else []
            for p in self.parameters
        ]

    def levels(self, configs: Sequence[Mapping[str, Any]]) -> Levels:
        """Returns canonical levels of configs, (candidates, variables).

        Raises:
            SearchError: an unknown or missing key, or a value that is not in the space.
        """
        rows = [self._levels_of(config) for config in configs]
        return self.canonical(np.array(rows, dtype=np.int64).reshape(len(rows), len(self)))

    def _levels_of(self, config: Mapping[str, Any]) -> list[int]:
        for key in config:
            if key not in self._index:
                raise SearchError(
                    f"the space has no variable {key!r}{did_you_mean(key, self.names)}"
                )
        found = []
        for parameter in self.parameters:
            if parameter.name in config:
                found.append(parameter.level(config[parameter.name]))
            elif parameter.active_if:
                found.append(0)
            else:
                raise SearchError(f"a config lacks the variable {parameter.name!r}")
        return found

    def ids(self, levels: Levels) -> list[str]:
        """Returns the canonical id of each candidate: a hash of its active names and values."""
        active = self.active(levels)
        found = []
        for config, mask in zip(self.configs(levels), active, strict=True):
            kept = {
                name: config[name] for name, is_on in zip(self.names, mask, strict=True) if is_on
            }
            text = json.dumps(kept, sort_keys=True)
            found.append(hashlib.blake2b(text.encode(), digest_size=6).hexdigest())
        return found

    def describe(self) -> dict[str, str]:
        """Returns the allowed values of each variable in words."""
        return {
            p.name: p.describe()
            + "".join(f"; if {w.name} {w.relation} {w.value}" for w in p.active_if)
            for p in self.parameters
        }


def keys_of(levels: Levels) -> list[bytes]:
    """Returns a hashable key of each canonical candidate."""
    rows = np.ascontiguousarray(levels)
    return [row.tobytes() for row in rows]


def unique_rows(levels: Levels, without: Iterable[bytes] = ()) -> npt.NDArray[np.int64]:
    """Returns the indices of first occurrences, in order, without those in ``without``."""
    seen = set(without)
    kept = []
    for i, key in enumerate(keys_of(levels)):
        if key not in seen:
            seen.add(key)
            kept.append(i)
    return np.array(kept, dtype=np.int64)
