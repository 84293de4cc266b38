"""Statistics of candidates, such as multiply-adds, and bounds on them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3.errors import did_you_mean
from fbnetv3.search.checks import as_callable, as_name, as_real
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import short
from fbnetv3.search.space.known import KnownArchitectures
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.space import SearchSpace

StatisticsFn = Callable[[list[dict[str, Any]]], Mapping[str, Any]]
Columns = dict[str, npt.NDArray[np.float64]]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Constraint:
    """Bounds on a statistic.

    Attributes:
        name: Name of the statistic.
        lower: Smallest allowed value; None: unbounded.
        upper: Largest allowed value; None: unbounded.

    Raises:
        SearchError: The name is not text on one line, a bound is not finite, or the lower bound is
            above the upper one.
    """

    name: str
    lower: float | None = None
    upper: float | None = None

    def __post_init__(self) -> None:
        as_name("the statistic of a constraint", self.name)
        for key in ("lower", "upper"):
            bound = getattr(self, key)
            if bound is not None:
                try:
                    object.__setattr__(self, key, as_real(key, bound))
                except SearchError:
                    raise SearchError(
                        f"constraint on {self.name}: the bound {short(bound)} is not a "
                        "finite number"
                    ) from None
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise SearchError(
                f"constraint on {self.name}: lower={self.lower:g} is above upper={self.upper:g}"
            )

    def is_met_by(self, values: npt.NDArray[np.float64]) -> Mask:
        """Returns which values are within the bounds."""
        mask = np.ones(len(values), dtype=bool)
        if self.lower is not None:
            mask &= values >= self.lower
        if self.upper is not None:
            mask &= values <= self.upper
        return mask

    def tightened(self, other: Constraint) -> Constraint:
        """Returns the tighter bounds of this constraint and another on the same statistic.

        Raises:
            SearchError: No value meets both.
        """
        lower = max((b for b in (self.lower, other.lower) if b is not None), default=None)
        upper = min((b for b in (self.upper, other.upper) if b is not None), default=None)
        if lower is not None and upper is not None and lower > upper:
            raise SearchError(
                f"constraint on {self.name}: lower={lower:g} is above upper={upper:g}, so no "
                f"candidate meets both {self} and {other}; relax or drop one of them"
            )
        return Constraint(self.name, lower, upper)

    def __str__(self) -> str:
        low = "" if self.lower is None else f"{self.lower:.6g} <= "
        high = "" if self.upper is None else f" <= {self.upper:.6g}"
        return f"{low}{self.name}{high}"


def merge_bounds(constraints: Iterable[Constraint]) -> tuple[Constraint, ...]:
    """Returns one constraint for each statistic, in the order in which they first occur.

    Args:
        constraints: Bounds; the two bounds on a statistic may be in separate constraints.

    Raises:
        SearchError: A statistic has two lower or two upper bounds, or bounds that no value meets.
    """
    merged: dict[str, Constraint] = {}
    for constraint in constraints:
        earlier = merged.get(constraint.name)
        if earlier is None:
            merged[constraint.name] = constraint
            continue
        for end in ("lower", "upper"):
            if None not in (getattr(earlier, end), getattr(constraint, end)):
                raise SearchError(
                    f"{constraint.name} has two {end} bounds, {earlier} and {constraint}; keep one"
                )
        merged[constraint.name] = earlier.tightened(constraint)
    return tuple(merged.values())


def cost_order(constraints: Iterable[Constraint], names: Iterable[str]) -> list[str]:
    """Returns names of statistics in the order in which they decide between equal scores.

    The statistics of the constraints come first, in their order, then all others by name. Of
    candidates with equal scores, the one with the lowest value of the first statistic is the better
    one; if these values are equal too, the second statistic decides, and so on.

    Args:
        constraints: Constraints and budgets of a search.
        names: Names of the search's statistics.
    """
    known = sorted(names)
    bounded = (c.name for c in constraints if c.name in known)
    return list(dict.fromkeys([*bounded, *known]))


class Costs:
    """Computes and checks the statistics of candidates.

    Args:
        space: Space of the candidates.
        function: Function from a list of configs to ``{name: (candidates,)}``. If it has a method
            ``of_columns``, this method is called with ``{variable: (candidates,)}`` instead, so
            that no dict per candidate is needed. If it has an attribute ``may_refuse`` that is
            true, NaN means that there is no such candidate. If it has an attribute ``is_slow`` that
            is true, a search computes the statistics only of the architectures of its pool and of a
            warm start, and its candidates have these architectures. If None, there are no
            statistics.

    Attributes:
        space: Space of the candidates.
        names: Names of the statistics, sorted.
        may_refuse: Whether statistics may be NaN, which marks candidates that are not in the space.
        is_slow: Whether the statistics of a candidate take long.
        known: Architectures to which the candidates of the space are limited; None: no limit.

    Raises:
        SearchError: The function is not callable, or returns an empty mapping or something that
            :meth:`__call__` refuses for a candidate with the first level of every variable.
    """

    def __init__(self, space: SearchSpace, function: StatisticsFn | None) -> None:
        self.space, self._function = space, function
        self.may_refuse = bool(getattr(function, "may_refuse", False))
        self.is_slow = bool(getattr(function, "is_slow", False))
        self.known: KnownArchitectures | None = None
        self.names: tuple[str, ...] = ()
        if function is not None:
            as_callable("statistics", function, "from a list of configs to {name: values}")
            probe = self(np.zeros((1, len(space)), dtype=np.int64))
            self.names = tuple(sorted(probe))
            if not self.names:
                raise SearchError(
                    "the statistics function returned an empty mapping; it must return "
                    "{name: values}"
                )

    def limited_to(self, levels: Levels) -> Costs:
        """Returns a copy that computes statistics only for the architectures that levels have.

        The statistics of candidates with other architectures are NaN.
        """
        limited = copy.copy(self)
        limited.known, limited.may_refuse = KnownArchitectures(self.space, levels), True
        return limited

    def __call__(self, levels: Levels) -> Columns:
        """Returns the statistics of candidates, {name: (candidates,)}.

        Args:
            levels: (candidates, variables) levels as ``SearchSpace.canonical`` returns them, in
                which inactive variables have their first value.

        Raises:
            SearchError: The function returns no mapping, the name of a statistic is not text on one
                line, its values are not numbers of shape (candidates,), or one is infinite, or NaN
                without ``may_refuse``.
        """
        if self.known is None:
            return self._computed(levels)
        mask = self.known.has(levels)
        columns = {name: np.full(len(levels), np.nan) for name in self.names}
        for name, values in self._computed(levels[mask]).items():
            columns[name][mask] = values
        return columns

    def _computed(self, levels: Levels) -> Columns:
        """Returns the statistics of candidates as the function computes them, after checks."""
        if self._function is None:
            return {}
        if not len(levels):
            return {name: np.zeros(0) for name in self.names}
        by_columns = getattr(self._function, "of_columns", None)
        if by_columns is not None:
            statistics = by_columns(self.space.values_by_name(levels))
        else:
            statistics = self._function(self.space.configs(levels))
        if not isinstance(statistics, Mapping):
            raise SearchError(
                f"the statistics function returned {short(statistics)}; it must return "
                "{name: values} with one number per candidate"
            )
        return {name: self._checked(name, values, levels) for name, values in statistics.items()}

    def _checked(self, name: str, values: Any, levels: Levels) -> npt.NDArray[np.float64]:
        as_name("the name of a statistic", name)
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise SearchError(
                f"statistic {name!r} is {short(values)} for {len(levels)} candidates; it must have "
                "one number per candidate"
            ) from None
        if array.shape != (len(levels),):
            raise SearchError(
                f"statistic {name!r} has shape {array.shape} for {len(levels)} candidates; it "
                "must have one number per candidate"
            )
        is_bad = np.isinf(array) if self.may_refuse else ~np.isfinite(array)
        bad = np.flatnonzero(is_bad)
        if bad.size:
            config = self.space.configs(levels[bad[:1]])[0]
            raise SearchError(
                f"statistic {name!r} is {array[bad[0]]} for {config}; it must be a finite number"
            )
        return array

    def check(self, constraints: Sequence[Constraint]) -> None:
        """Checks that each constraint is on a known statistic.

        Raises:
            SearchError: A constraint is on an unknown statistic; the message lists the known ones,
                or says that there are none.
        """
        for constraint in constraints:
            if not self.names:
                raise SearchError(
                    f"constraint {constraint}: there are no statistics (numbers that are known "
                    "before an evaluation), as in a search over recipes alone or without "
                    "statistics=; drop the constraint, or bound a score by score_constraints"
                )
            if constraint.name not in self.names:
                raise SearchError(
                    f"constraint on {constraint.name!r}: no such statistic; the statistics are "
                    f"{', '.join(self.names)}{did_you_mean(constraint.name, self.names)}"
                )
