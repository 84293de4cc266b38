"""The variables of a search space.

Each variable has a finite number of levels, 0 to ``size - 1``. Candidates are the rows of an int64
matrix of levels, (candidates, variables). Sampling, mutation and comparison are arithmetic on this
matrix. Values are computed only for ids, users, evaluations and statistics.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3.search.errors import SearchError
from fbnetv3.search.space.intervals import share_of, value_at
from fbnetv3.search.space.log_integers import LogIntegers

Levels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
PARTS = ("architecture", "recipe")
CONTINUOUS_LEVELS = 2**20 + 1
"""Number of levels of a range without a step. Neighbours still differ as float32 features."""
_COMPARE = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}


@dataclass(frozen=True)
class When:
    """A condition under which a variable is active, such as ``When("depth", ">", 1)``.

    Attributes:
        name: Name of an earlier variable of the space.
        relation: ``==``, ``!=``, ``>``, ``>=``, ``<`` or ``<=``.
        value: Value on the right-hand side.

    Raises:
        SearchError: The relation is unknown.
    """

    name: str
    relation: str
    value: Any

    def __post_init__(self) -> None:
        if self.relation not in _COMPARE:
            raise SearchError(
                f"When({self.name!r}): relation {self.relation!r} is unknown; allowed: "
                f"{', '.join(_COMPARE)}"
            )

    def holds(self, value: Any) -> bool:
        """Returns whether a value of the earlier variable meets the condition.

        Raises:
            SearchError: The two values cannot be compared.
        """
        try:
            return bool(_COMPARE[self.relation](value, self.value))
        except TypeError as error:
            raise SearchError(
                f"When({self.name!r}, {self.relation!r}, {self.value!r}): {value!r} cannot be "
                f"compared with {self.value!r}"
            ) from error


class Parameter(ABC):
    """A variable of a search space.

    Attributes:
        name: Key of the variable in a config.
        part: ``architecture`` or ``recipe``. Statistics may only depend on variables of the
            architecture. The predictor's encoder embeds these variables.
        active_if: Conditions of which at least one must hold for the variable to be active. An
            empty tuple: the variable is always active. An inactive variable has no effect.
    """

    name: str
    part: str
    active_if: tuple[When, ...]

    def _check(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise SearchError(
                f"the name of a variable must be a non-empty string, not {self.name!r}"
            )
        if self.part not in PARTS:
            raise SearchError(
                f"{self.name}: part {self.part!r} is unknown; allowed: {', '.join(PARTS)}"
            )
        conditions = self.active_if
        object.__setattr__(
            self, "active_if", (conditions,) if isinstance(conditions, When) else tuple(conditions)
        )

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of levels."""

    @abstractmethod
    def value(self, level: int) -> Any:
        """Returns the plain Python value of a level."""

    @abstractmethod
    def level(self, value: Any) -> int:
        """Returns the level of a value.

        Raises:
            SearchError: The variable does not have this value.
        """

    @abstractmethod
    def describe(self) -> str:
        """Returns a description of the allowed values, such as ``whole numbers from 1 to 5``."""

    @property
    def is_ordered(self) -> bool:
        """Whether the levels have an order, in which neighbours are similar."""
        return True

    @property
    def log_integers(self) -> LogIntegers | None:
        """The distribution of the levels; None: all levels are equally probable."""
        return None

    def units(self, levels: Levels) -> Floats:
        """Returns levels scaled to [0, 1]; with ``log``, logarithms of the values are scaled."""
        return levels / max(1, self.size - 1)

    def _refuse(self, value: Any) -> SearchError:
        return SearchError(f"{self.name}={value!r} is not in the space; allowed: {self.describe()}")


@dataclass(frozen=True)
class Choice(Parameter):
    """A variable whose values have no order; encoded one-hot.

    Attributes:
        values: Allowed values: strings, numbers, booleans or None. 1 and True are distinct.

    Raises:
        SearchError: There are no values, a value occurs twice, or its type is not allowed.
    """

    name: str
    values: tuple[Any, ...] = ()
    part: str = "recipe"
    active_if: tuple[When, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        self._check()
        if not self.values:
            raise SearchError(f"{self.name}: a Choice needs at least one value")
        for value in self.values:
            if value is not None and type(value) not in (str, int, float, bool):
                raise SearchError(
                    f"{self.name}: the value {value!r} is not a string, number, boolean or None"
                )
        if len({(type(v), v) for v in self.values}) < len(self.values):
            raise SearchError(f"{self.name}: a value occurs twice in {list(self.values)}")

    @property
    def size(self) -> int:
        return len(self.values)

    @property
    def is_ordered(self) -> bool:
        return False

    def value(self, level: int) -> Any:
        return self.values[level]

    def level(self, value: Any) -> int:
        for level, choice in enumerate(self.values):
            if type(choice) is type(value) and choice == value:
                return level
        raise self._refuse(value)

    def describe(self) -> str:
        return ", ".join(map(repr, self.values))


@dataclass(frozen=True)
class IntRange(Parameter):
    """A variable with evenly spaced whole numbers.

    Attributes:
        low: Smallest value.
        high: Largest value, included; ``low`` plus a multiple of ``step``.
        step: Distance of neighbouring values; at least 1.
        log: Whether values are drawn log-uniformly, with probabilities proportional to 1 / value,
            and features are proportional to the logarithm of the value. ``low`` must then be above
            0.

    Raises:
        SearchError: The range is empty, or a number is out of range.
    """

    name: str
    low: int = 0
    high: int = 0
    step: int = 1
    log: bool = False
    part: str = "recipe"
    active_if: tuple[When, ...] = ()

    def __post_init__(self) -> None:
        self._check()
        _check_range(self.name, self.low, self.high, self.log)
        if any(type(x) is not int for x in (self.low, self.high, self.step)) or self.step < 1:
            raise SearchError(f"{self.name}: low, high and step must be ints, and step at least 1")
        if (self.high - self.low) % self.step:
            raise SearchError(
                f"{self.name}: high={self.high} is not reached from low={self.low} by steps of "
                f"{self.step}"
            )

    @property
    def size(self) -> int:
        return (self.high - self.low) // self.step + 1

    @property
    def log_integers(self) -> LogIntegers | None:
        return LogIntegers(self.low, self.step, self.size) if self.log and self.size > 1 else None

    def value(self, level: int) -> int:
        return int(self.low + self.step * int(level))

    def level(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise self._refuse(value)
        level, rest = divmod(int(value) - self.low, self.step)
        if rest or not 0 <= level < self.size:
            raise self._refuse(value)
        return level

    def units(self, levels: Levels) -> Floats:
        if not self.log or self.size == 1:
            return super().units(levels)
        logs = np.log(self.low + self.step * levels.astype(np.float64))
        # clipped, since the two logarithms of the lowest value may round differently
        return np.clip((logs - math.log(self.low)) / math.log(self.high / self.low), 0.0, 1.0)

    def describe(self) -> str:
        step = f" in steps of {self.step}" if self.step > 1 else ""
        return f"whole numbers from {self.low} to {self.high}{step}"


@dataclass(frozen=True)
class FloatRange(Parameter):
    """A variable with real numbers.

    Attributes:
        low: Smallest value.
        high: Largest value, included; with a step, ``low`` plus a multiple of it.
        step: Distance of neighbouring values. None: 2**20 + 1 levels, practically continuous.
        log: Whether levels are evenly spaced in the logarithm of the value. ``low`` must then be
            above 0, and ``step`` None.

    Raises:
        SearchError: The range is empty, or a number is out of range.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    part: str = "recipe"
    active_if: tuple[When, ...] = ()

    def __post_init__(self) -> None:
        self._check()
        _check_range(self.name, self.low, self.high, self.log)
        if self.step is None:
            return
        if self.log or not self.step > 0:
            raise SearchError(f"{self.name}: step must be above 0, and None where log is set")
        steps = (self.high - self.low) / self.step
        if abs(steps - round(steps)) > 1e-6 * max(1.0, steps):
            raise SearchError(
                f"{self.name}: high={self.high} is not reached from low={self.low} by steps of "
                f"{self.step}"
            )

    @property
    def size(self) -> int:
        if self.low == self.high:
            return 1
        if self.step is None:
            return CONTINUOUS_LEVELS
        return round((self.high - self.low) / self.step) + 1

    def value(self, level: int) -> float:
        if level in (0, self.size - 1):
            return float(self.low if level == 0 else self.high)
        if self.step is not None:
            # Rounded to 12 digits, so that 0.01 + 2 * 0.01 equals the 0.03 of a yaml file.
            return float(f"{self.low + int(level) * self.step:.12g}")
        return value_at(self.low, self.high, int(level) / (self.size - 1), log=self.log)

    def level(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise self._refuse(value)
        # Beside a range with log, 1e-9 of the highest value may exceed the lowest one.
        slack = 1e-9 * (self.low if self.log else max(abs(self.low), abs(self.high)))
        if not self.low - slack <= value <= self.high + max(slack, 1e-9 * abs(self.high)):
            raise self._refuse(value)
        if self.size == 1:
            return 0
        inside = min(max(float(value), self.low), self.high)
        level = round(share_of(self.low, self.high, inside, log=self.log) * (self.size - 1))
        if self.step is not None and abs(self.value(level) - value) > 1e-6 * self.step:
            raise self._refuse(value)
        return level

    def describe(self) -> str:
        step = f" in steps of {self.step:g}" if self.step else ""
        return f"numbers from {self.low:g} to {self.high:g}{step}"


def _check_range(name: str, low: float, high: float, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise SearchError(f"{name}: low={low} and high={high} must be finite numbers")
    if low > high:
        raise SearchError(f"{name}: low={low} is above high={high}; swap them")
    if log and low <= 0:
        raise SearchError(f"{name}: low={low} must be above 0 where log is set")
