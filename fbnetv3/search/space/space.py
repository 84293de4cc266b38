"""A search space: named variables, some of which are active only under conditions."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3._deprecation import deprecated
from fbnetv3.errors import did_you_mean
from fbnetv3.search.checks import as_items
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import short
from fbnetv3.search.space.conditions import When
from fbnetv3.search.space.parameters import (
    CONTINUOUS_LEVELS,
    Choice,
    FloatRange,
    IntRange,
    Levels,
    Parameter,
)

__all__ = ["Choice", "FloatRange", "IntRange", "Parameter", "SearchSpace", "When"]

_VARIABLES = "variables such as IntRange('depth', 1, 5)"
_MAX_TABLE = 4096
"""Largest number of levels of a variable whose values are kept in a table."""


class SearchSpace:
    """An ordered set of variables; a candidate has one level of each variable.

    In the canonical form of a candidate, inactive variables (see ``active_if`` of ``Parameter``)
    have their first level. Candidates that differ only in inactive variables are one candidate with
    one id.

    Args:
        parameters: Variables. The conditions of a variable may refer only to earlier variables.

    Attributes:
        parameters: The variables.
        names: Names of the variables.
        sizes: (variables,) number of levels of each variable.
        log_integers: Column and distribution of each variable whose levels are not equally
            probable.

    Raises:
        SearchError: An item is no variable, a name occurs twice, a condition does not refer to an
            earlier variable or refers to one with too many levels, or there is only one candidate.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = as_items("the variables of a space", parameters, Parameter, _VARIABLES)
        self.names = tuple(p.name for p in self.parameters)
        self._index = {name: i for i, name in enumerate(self.names)}
        if len(self._index) < len(self.names):
            twice = next(n for n in self.names if self.names.count(n) > 1)
            raise SearchError(f"the space has two variables named {twice!r}; rename one")
        self.sizes = np.array([p.size for p in self.parameters], dtype=np.int64)
        if not self.parameters or int(self.sizes.max()) == 1:
            raise SearchError(
                f"the space has only one candidate (variables: {', '.join(self.names) or 'none'}); "
                "give a variable more than one value"
            )
        self.log_integers = [
            (i, p.log_integers) for i, p in enumerate(self.parameters) if p.log_integers is not None
        ]
        self._rules = [self._rule(i, p) for i, p in enumerate(self.parameters) if p.active_if]

    def _rule(
        self, index: int, parameter: Parameter
    ) -> tuple[int, list[tuple[int, npt.NDArray[np.bool_]]]]:
        """Returns the index of a variable, and a table for each of its conditions.

        A table has the index of the earlier variable, and whether each of that variable's levels
        meets the condition.
        """
        tables = []
        for when in parameter.active_if:
            parent = self._index.get(when.name)
            if parent is None or parent >= index:
                raise SearchError(
                    f"{parameter.name}: its condition names {when.name!r}, which is not an earlier "
                    f"variable{did_you_mean(when.name, self.names[:index])}"
                )
            other = self.parameters[parent]
            if other.size >= CONTINUOUS_LEVELS:
                raise SearchError(
                    f"{parameter.name}: the variable {when.name!r} of its condition has too many "
                    f"values; use a Choice, or a range with fewer than {CONTINUOUS_LEVELS} values"
                )
            truth = [when.holds(other.value(level)) for level in range(other.size)]
            tables.append((parent, np.array(truth)))
        return index, tables

    def __len__(self) -> int:
        return len(self.parameters)

    def __getitem__(self, name: str) -> Parameter:
        if name not in self._index:
            raise SearchError(
                f"the space has no variable {name!r}{did_you_mean(str(name), self.names)}"
            )
        return self.parameters[self._index[name]]

    @property
    def log10_cardinality(self) -> float:
        """The decimal logarithm of the number of level combinations."""
        return float(np.log10(self.sizes.astype(np.float64)).sum())

    def log10_cardinality_of(self, part: str) -> float:
        """Returns :attr:`log10_cardinality` of the ``architecture`` or ``recipe`` alone."""
        return sum(math.log10(p.size) for p in self.parameters if p.part == part)

    def indices_of_part(self, part: str) -> list[int]:
        """Returns the column indices of a part's variables, ``architecture`` or ``recipe``."""
        return [i for i, p in enumerate(self.parameters) if p.part == part]

    @deprecated("0.2.0", "0.4.0", "SearchSpace.log10_cardinality_of")
    def log10_of(self, part: str) -> float:
        """Returns :meth:`log10_cardinality_of`."""
        return self.log10_cardinality_of(part)

    @deprecated("0.2.0", "0.4.0", "SearchSpace.indices_of_part")
    def columns_of(self, part: str) -> list[int]:
        """Returns :meth:`indices_of_part`."""
        return self.indices_of_part(part)

    @deprecated("0.2.0", "0.4.0", "SearchSpace.values_by_name")
    def columns(self, levels: Levels) -> dict[str, npt.NDArray[Any]]:
        """Returns :meth:`values_by_name`."""
        return self.values_by_name(levels)

    def levels_at(self, quantiles: npt.NDArray[np.float64]) -> Levels:
        """Returns levels at quantiles of the variables' distributions, (candidates, variables).

        Levels are equally probable, except in a whole-number range with ``log``.

        Args:
            quantiles: (candidates, variables) values in [0, 1).
        """
        levels = np.minimum((quantiles * self.sizes).astype(np.int64), self.sizes - 1)
        for i, distribution in self.log_integers:
            levels[:, i] = distribution.levels_at(quantiles[:, i])
        return levels

    def probabilities(self, levels: Levels) -> npt.NDArray[np.float64]:
        """Returns the probability of each combination of levels, up to a common factor.

        Args:
            levels: (candidates, variables) levels.
        """
        weights = np.ones(len(levels))
        for i, distribution in self.log_integers:
            below, up_to = distribution.cumulative(levels[:, i])
            weights *= up_to - below
        return weights

    def grid(self) -> Levels:
        """Returns all combinations of levels, (combinations, variables), last variable fastest."""
        numbers = np.arange(math.prod(self.sizes.tolist()))
        columns = []
        for size in self.sizes[::-1].tolist():
            numbers, column = np.divmod(numbers, size)
            columns.append(column)
        return np.stack(columns[::-1], axis=1)

    def active(self, levels: Levels) -> npt.NDArray[np.bool_]:
        """Returns which variables are active, (candidates, variables).

        A variable with conditions is active if at least one of them holds. A condition on an
        inactive variable does not hold.
        """
        mask = np.ones(levels.shape, dtype=bool)
        for column, tables in self._rules:
            mask[:, column] = False
            for parent, truth in tables:
                mask[:, column] |= mask[:, parent] & truth[levels[:, parent]]
        return mask

    def canonical(self, levels: Levels) -> Levels:
        """Returns levels with every inactive variable at its first level."""
        return np.where(self.active(levels), levels, 0) if self._rules else levels

    def values_by_name(self, levels: Levels) -> dict[str, npt.NDArray[Any]]:
        """Returns the values of each variable, {name: (candidates,)}."""
        values = zip(self.names, self._values(levels), strict=True)
        return {name: np.array(column) for name, column in values}

    def configs(self, levels: Levels) -> list[dict[str, Any]]:
        """Returns the values of each candidate by name, inactive variables included."""
        rows = zip(*self._values(levels), strict=True)
        return [dict(zip(self.names, row, strict=True)) for row in rows]

    def _values(self, levels: Levels) -> list[list[Any]]:
        """Returns a list of values for each variable."""
        columns = []
        for parameter, table, column in zip(
            self.parameters, self._tables, levels.T.tolist(), strict=True
        ):
            value = table.__getitem__ if table else parameter.value
            columns.append(list(map(value, column)))
        return columns

    @cached_property
    def _tables(self) -> list[list[Any]]:
        """The values of each variable by level; [] for a variable with too many levels."""
        return [
            [p.value(level) for level in range(p.size)] if p.size <= _MAX_TABLE else []
            for p in self.parameters
        ]

    def levels(self, configs: Sequence[Mapping[str, Any]]) -> Levels:
        """Returns the canonical levels of configs, (candidates, variables).

        A variable with conditions may be missing from a config; it then has its first level.

        Raises:
            SearchError: A config is no mapping, a key is unknown or missing, or a value is not in
                the space.
        """
        rows = [self._levels_of(config) for config in configs]
        return self.canonical(np.array(rows, dtype=np.int64).reshape(len(rows), len(self)))

    def _levels_of(self, config: Mapping[str, Any]) -> list[int]:
        if not isinstance(config, Mapping):
            raise SearchError(
                f"{short(config)} is not a config: it must map each variable to its value, such as "
                f"{{{self.names[0]!r}: {self.parameters[0].value(0)!r}}}"
            )
        for key in config:
            if key not in self._index:
                close = did_you_mean(str(key), self.names)
                raise SearchError(f"the space has no variable {key!r}{close}")
        levels = []
        for parameter in self.parameters:
            if parameter.name in config:
                levels.append(parameter.level(config[parameter.name]))
            elif parameter.active_if:
                levels.append(0)
            else:
                raise SearchError(f"a config lacks the variable {parameter.name!r}")
        return levels

    def ids(self, levels: Levels) -> list[str]:
        """Returns the id of each candidate: a hash of the names and values of active variables."""
        ids = []
        for config, mask in zip(self.configs(levels), self.active(levels), strict=True):
            active = {name: config[name] for name, on in zip(self.names, mask, strict=True) if on}
            text = json.dumps(active, sort_keys=True)
            ids.append(hashlib.blake2b(text.encode(), digest_size=6).hexdigest())
        return ids

    def describe(self) -> dict[str, str]:
        """Returns descriptions of the allowed values and the conditions, by variable.

        Several conditions read ``; if A; if B`` and mean "if A or B": a variable is active if any
        of its conditions holds. Storages hold these texts, so that their form cannot change;
        messages write "or" instead (``trial.settings_differences``).
        """
        return {
            p.name: p.describe()
            + "".join(f"; if {w.name} {w.relation} {w.value}" for w in p.active_if)
            for p in self.parameters
        }


def keys_of(levels: Levels) -> list[bytes]:
    """Returns a hashable key for each row of canonical levels."""
    rows = np.ascontiguousarray(levels)
    return [row.tobytes() for row in rows]


def unique_rows(levels: Levels, without: Iterable[bytes] = ()) -> npt.NDArray[np.int64]:
    """Returns the index of the first occurrence of each distinct row, ascending.

    Args:
        levels: (candidates, variables) canonical levels.
        without: Keys of rows to leave out, as :func:`keys_of` returns them.
    """
    seen = set(without)
    indices = []
    for i, key in enumerate(keys_of(levels)):
        if key not in seen:
            seen.add(key)
            indices.append(i)
    return np.array(indices, dtype=np.int64)
