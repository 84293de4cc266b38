"""What a candidate costs, which costs are allowed, and whether that can be met at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3.errors import did_you_mean
from fbnetv3.search.errors import SearchError
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.space import SearchSpace

StatisticsFn = Callable[[list[dict[str, Any]]], Mapping[str, Any]]
Columns = dict[str, npt.NDArray[np.float64]]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Constraint:
    """Bounds of a statistic; None is no bound.

    Attributes:
        name: of a statistic.
        lower: smallest allowed value.
        upper: largest allowed value.
    """

    name: str
    lower: float | None = None
    upper: float | None = None

    def __post_init__(self) -> None:
        for bound in (self.lower, self.upper):
            if bound is not None and not math.isfinite(bound):
                raise SearchError(
                    f"constraint {self.name}: a bound is a finite number, not {bound}"
                )
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise SearchError(
                f"constraint {self.name}: lower={self.lower:g} is above upper={self.upper:g}"
            )

    def holds(self, values: npt.NDArray[np.float64]) -> Mask:
        """Returns which values are allowed."""
        mask = np.ones(len(values), dtype=bool)
        if self.lower is not None:
            mask &= values >= self.lower
        if self.upper is not None:
            mask &= values <= self.upper
        return mask

    def __str__(self) -> str:
        low = "" if self.lower is None else f"{self.lower:.6g} <= "
        high = "" if self.upper is None else f" <= {self.upper:.6g}"
        return f"{low}{self.name}{high}"


def within(constraints: Sequence[Constraint], budget: Constraint) -> tuple[Constraint, ...]:
    """Returns constraints with a budget beside them: tighter bounds, or a constraint more.

    Raises:
        SearchError: nothing can meet both.
    """
    lower, upper = [budget.lower], [budget.upper]
    for other in (c for c in constraints if c.name == budget.name):
        lower.append(other.lower)
        upper.append(other.upper)
    tighter = Constraint(
        budget.name,
        max((b for b in lower if b is not None), default=None),
        min((b for b in upper if b is not None), default=None),
    )
    names = [c.name for c in constraints]
    if budget.name not in names:
        return (*constraints, tighter)
    return tuple(tighter if c.name == budget.name else c for c in constraints)


class Costs:
    """The statistics of candidates, checked.

    Args:
        space: of the candidates.
        function: takes configs, returns arrays by name. Where it has a method ``of_columns``,
            which takes ``{variable: array}``, that is called instead: no dict per candidate.
            None: there are no statistics.
    """

    def __init__(self, space: SearchSpace, function: StatisticsFn | None) -> None:
        self._space, self._function = space, function
        self.names: tuple[str, ...] = ()
        if function is not None:
            probe = self(np.zeros((1, len(space)), dtype=np.int64))
            self.names = tuple(sorted(probe))
            if not self.names:
                raise SearchError("statistics returned nothing; it returns {name: array}")

    def __call__(self, levels: Levels) -> Columns:
        """Returns the statistics of canonical levels, {name: (candidates,)}.

        Raises:
            SearchError: a statistic has another length, is NaN or infinite.
        """
        if self._function is None:
            return {}
        if not len(levels):
            return {name: np.zeros(0) for name in self.names}
        by_columns = getattr(self._function, "of_columns", None)
        if by_columns is not None:
            found = by_columns(self._space.columns(levels))
        else:
            found = self._function(self._space.configs(levels))
        return {name: self._checked(name, value, levels) for name, value in found.items()}

    def _checked(self, name: str, value: Any, levels: Levels) -> npt.NDArray[np.float64]:
        array = np.asarray(value, dtype=np.float64)
        if array.shape != (len(levels),):
            raise SearchError(
                f"statistic {name!r} has shape {array.shape} for {len(levels)} candidates; "
                "it has one number for each"
            )
        bad = np.flatnonzero(~np.isfinite(array))
        if bad.size:
            config = self._space.configs(levels[bad[:1]])[0]
            raise SearchError(f"statistic {name!r} is {array[bad[0]]} for {config}")
        return array

    def check(self, constraints: Sequence[Constraint]) -> None:
        """Raises a SearchError where a constraint names no statistic."""
        for constraint in constraints:
            if not self.names:
                raise SearchError(
                    f"constraint {constraint}: there are no statistics, as where only recipes are "
                    "searched; drop the constraint"
                )
            if constraint.name not in self.names:
                raise SearchError(
                    f"constraint on {constraint.name!r}: the statistics are "
                    f"{', '.join(self.names)}{did_you_mean(constraint.name, self.names)}"
                )


def feasible(statistics: Columns, constraints: Sequence[Constraint], count: int) -> Mask:
    """Returns which of ``count`` candidates meet all constraints."""
    mask = np.ones(count, dtype=bool)
    for constraint in constraints:
        mask &= constraint.holds(statistics[constraint.name])
    return mask
