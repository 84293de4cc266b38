"""Conditions under which a variable is active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fbnetv3.search.checks import as_name
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import short

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
        name: Name of a variable that precedes, in the space, the one that has the condition.
        relation: ``==``, ``!=``, ``>``, ``>=``, ``<`` or ``<=``.
        value: Value on the right-hand side.

    Raises:
        SearchError: The relation is unknown, or the name is not a text on one line.
    """

    name: str
    relation: str
    value: Any

    def __post_init__(self) -> None:
        as_name("When: name", self.name)
        if not isinstance(self.relation, str) or self.relation not in _COMPARE:
            raise SearchError(
                f"When({self.name!r}): relation {short(self.relation)} is unknown; allowed: "
                f"{', '.join(_COMPARE)}"
            )

    def holds(self, value: object) -> bool:
        """Returns whether a value of the variable ``name`` meets the condition.

        Raises:
            SearchError: The two values cannot be compared.
        """
        try:
            return bool(_COMPARE[self.relation](value, self.value))
        except (TypeError, ValueError) as error:  # arrays raise a ValueError
            raise SearchError(
                f"When({self.name!r}, {self.relation!r}, {short(self.value)}): {value!r} cannot be "
                f"compared with {short(self.value)}"
            ) from error
