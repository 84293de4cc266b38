"""The variables of a search space.

Each variable has a finite number of levels, 0 to ``size - 1``. Candidates are the rows of an int64
matrix of levels, (candidates, variables). Sampling, mutation and comparison are arithmetic on this
matrix. Levels are converted to values only where values are needed, as in evaluations, conditions,
ids and reports.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3.search.checks import (
    MAX_EXACT_INT,
    as_flag,
    as_items,
    as_name,
    as_real,
    as_text,
    as_whole,
    flag_from_text,
    real_from_text,
    whole_from_text,
)
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import short
from fbnetv3.search.space.conditions import When
from fbnetv3.search.space.intervals import share_of, value_at
from fbnetv3.search.space.log_integers import LogIntegers

Levels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
PARTS = ("architecture", "recipe")
CONTINUOUS_LEVELS = 2**20 + 1
"""Number of levels of a FloatRange without a step. Neighbours still differ as float32 features."""
_CONDITIONS = 'conditions such as When("depth", ">", 1)'
_NO_VALUE = ("", "none", "null", "nan")
"""Strings that stand for None in files that Python, yaml or pandas wrote, in lower case."""
_MAX_CHARACTERS = 200
"""Largest number of characters of a description in a message."""


class Parameter(ABC):
    """A variable of a search space.

    Attributes:
        name: Key of the variable in a config.
        part: ``architecture`` or ``recipe``. Statistics, such as MACs, may depend only on variables
            of the architecture, and the predictor's encoder embeds only these variables.
        active_if: Conditions of which at least one must hold for the variable to be active. If
            empty, the variable is always active. An inactive variable has no effect.
    """

    name: str
    part: str
    active_if: tuple[When, ...]

    def _check(self) -> None:
        as_name("the name of a variable", self.name)
        if not isinstance(self.part, str) or self.part not in PARTS:
            raise SearchError(
                f"{self.name}: part {short(self.part)} is unknown; allowed: {', '.join(PARTS)}"
            )
        conditions = self.active_if
        self._set(
            "active_if",
            (conditions,)
            if isinstance(conditions, When)
            else as_items(f"{self.name}: active_if", conditions, When, _CONDITIONS),
        )

    def _set(self, name: str, value: Any) -> None:
        """Sets an attribute of a frozen dataclass during its construction."""
        object.__setattr__(self, name, value)

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of levels."""

    @abstractmethod
    def value(self, level: int) -> Any:
        """Returns the plain Python value of a level."""

    @abstractmethod
    def level(self, value: object) -> int:
        """Returns the level of a value.

        Raises:
            SearchError: The variable does not have this value.
        """

    @abstractmethod
    def read(self, text: str) -> Any:
        """Parses a string, such as the cell of a csv file.

        The variable decides on the type: for a range, ``1e-06`` and ``010`` are numbers; for a
        :class:`Choice` of strings, ``no`` is a string.

        Raises:
            SearchError: The string stands for no value of the variable, or for more than one.
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

    def to_unit_interval(self, levels: Levels) -> Floats:
        """Returns levels scaled to [0, 1]; with ``log``, by the logarithms of their values."""
        return levels / max(1, self.size - 1)

    def _refuse(self, value: Any) -> SearchError:
        allowed = self.describe()
        allowed = allowed if len(allowed) <= _MAX_CHARACTERS else f"{allowed[:_MAX_CHARACTERS]}..."
        return SearchError(f"{self.name}={short(value)} is not in the space; allowed: {allowed}")


@dataclass(frozen=True)
class Choice(Parameter):
    """A variable whose values have no order; encoded one-hot.

    Attributes:
        values: Allowed values: strings, finite numbers, booleans or None. 1 and True are distinct.

    Raises:
        SearchError: There are no values, a value occurs twice, or an attribute is not allowed.
    """

    name: str
    values: tuple[Any, ...] = ()
    part: str = "recipe"
    active_if: tuple[When, ...] = ()

    def __post_init__(self) -> None:
        self._check()
        values = as_items(f"{self.name}: values", self.values, object, "values such as [3, 5]")
        self._set("values", tuple(map(self._plain, values)))
        if not self.values:
            raise SearchError(f"{self.name}: a Choice needs at least one value")
        if len({(type(v), v) for v in self.values}) < len(self.values):
            raise SearchError(f"{self.name}: a value occurs twice in {short(list(self.values))}")

    def _plain(self, value: Any) -> Any:
        """Returns a value as a plain Python value that JSON represents exactly."""
        plain = value.item() if isinstance(value, np.generic) else value
        if plain is not None and type(plain) not in (str, int, float, bool):
            raise SearchError(
                f"{self.name}: the value {short(value)} is not a string, number, boolean or None"
            )
        if type(plain) is float and not math.isfinite(plain):
            raise SearchError(
                f"{self.name}: the value {plain} is not a finite number; leave it out"
            )
        if type(plain) is int:
            as_whole(f"{self.name}: value", plain, -(2**63), 2**63 - 1)
        if type(plain) is str and plain:  # as_text refuses '', which is allowed here
            as_text(f"{self.name}: value", plain)
        return plain

    @property
    def size(self) -> int:
        return len(self.values)

    @property
    def is_ordered(self) -> bool:
        return False

    def value(self, level: int) -> Any:
        return self.values[level]

    def level(self, value: object) -> int:
        plain = value.item() if isinstance(value, np.generic) else value
        for level, choice in enumerate(self.values):
            if type(choice) is type(plain) and choice == plain:
                return level
        raise self._refuse(value)

    def read(self, text: str) -> Any:
        matches = [value for value in self.values if _stands_for(text, value)]
        # Of several matches, None is the last choice (for "nan", the string is preferred), and the
        # first choice is the value that is written exactly like the text (for "1", 1 and not 1.0).
        not_none = [value for value in matches if value is not None] or matches
        exact = [value for value in not_none if str(value) == text] or not_none
        if len(exact) == 1:
            return exact[0]
        if not matches:
            raise self._refuse(text)
        raise SearchError(
            f"{self.name}={short(text)} is ambiguous: it matches {', '.join(map(repr, matches))}; "
            "give the earlier trials as (config, score) pairs in Python, or rename a value"
        )

    def describe(self) -> str:
        return ", ".join(map(repr, self.values))


@dataclass(frozen=True)
class IntRange(Parameter):
    """A variable with evenly spaced whole numbers.

    Attributes:
        low: Smallest value.
        high: Largest value, included; ``low`` plus a multiple of ``step``.
        step: Distance between neighbouring values; at least 1.
        log: Whether values are drawn log-uniformly, with probabilities close to proportional to
            1 / value, and features are linear in the logarithm of the value. ``low`` must then be
            above 0.

    Raises:
        SearchError: The range is empty, no step reaches ``high``, or an attribute is not allowed.
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
        for key, least in (("low", -MAX_EXACT_INT), ("high", -MAX_EXACT_INT), ("step", 1)):
            self._set(
                key, as_whole(f"{self.name}: {key}", getattr(self, key), least, MAX_EXACT_INT)
            )
        self._set("log", as_flag(f"{self.name}: log", self.log))
        _check_range(self.name, self.low, self.high, self.log)
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

    def level(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise self._refuse(value)
        level, rest = divmod(int(value) - self.low, self.step)
        if rest or not 0 <= level < self.size:
            raise self._refuse(value)
        return level

    def read(self, text: str) -> int:
        number = whole_from_text(text)
        real = real_from_text(text)
        if number is None and real is not None and real.is_integer():
            number = int(real)  # pandas writes 3 as 3.0 if a cell of the column is empty
        if number is None:
            raise self._refuse(text)
        return self.value(self.level(number))

    def to_unit_interval(self, levels: Levels) -> Floats:
        if not self.log or self.size == 1:
            return super().to_unit_interval(levels)
        logs = np.log(self.low + self.step * levels.astype(np.float64))
        # clipped, since NumPy and Python may round the logarithm of the lowest value differently
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
        step: Distance between neighbouring values. None: 2**20 + 1 levels, practically continuous.
        log: Whether levels are evenly spaced in the logarithm of the value. ``low`` must then be
            above 0, and ``step`` None.

    Raises:
        SearchError: The range is empty, no step reaches ``high``, both ``step`` and ``log`` are
            set, or an attribute is not allowed.
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
        for key in ("low", "high"):
            self._set(key, as_real(f"{self.name}: {key}", getattr(self, key)))
        self._set("log", as_flag(f"{self.name}: log", self.log))
        _check_range(self.name, self.low, self.high, self.log)
        if self.step is None:
            return
        self._set("step", as_real(f"{self.name}: step", self.step, above=0.0))
        if self.log:
            raise SearchError(
                f"{self.name}: step={self.step} cannot be combined with log; leave one of them out"
            )
        steps = (self.high - self.low) / self.step
        if not steps < MAX_EXACT_INT:
            raise SearchError(
                f"{self.name}: step={self.step} divides the range into {steps:.3g} parts; allowed: "
                f"fewer than {MAX_EXACT_INT}; leave step out for a practically continuous range"
            )
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
            # Rounded to 12 digits, so that 0.1 + 2 * 0.1 equals the 0.3 of a yaml file.
            return float(f"{self.low + int(level) * self.step:.12g}")
        return value_at(self.low, self.high, int(level) / (self.size - 1), log=self.log)

    def level(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise self._refuse(value)
        # With log, 1e-9 * high may exceed low: the tolerance below low is a share of low, not high.
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

    def read(self, text: str) -> float:
        number = real_from_text(text)
        if number is None:
            raise self._refuse(text)
        self.level(number)
        return number

    def describe(self) -> str:
        step = f" in steps of {self.step:g}" if self.step else ""
        return f"numbers from {self.low:g} to {self.high:g}{step}"


def _stands_for(text: str, value: Any) -> bool:
    """Returns whether a string, such as the cell of a table, stands for a value of a Choice."""
    if isinstance(value, str):
        return text == value
    if value is None:
        return text.strip().lower() in _NO_VALUE
    if isinstance(value, bool):
        return flag_from_text(text) is value
    whole = whole_from_text(text) if isinstance(value, int) else None
    return (real_from_text(text) if whole is None else whole) == value


def _check_range(name: str, low: float, high: float, log: bool) -> None:
    if low > high:
        raise SearchError(f"{name}: low={low} is above high={high}; swap them")
    if log and low <= 0:
        raise SearchError(f"{name}: low={low} must be above 0 if log is set")
