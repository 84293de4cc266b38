"""Bounds on statistics as a config and the command line write them: ``4e8 <= macs <= 8e8``."""

from __future__ import annotations

import re

from fbnetv3.config import CfgNode
from fbnetv3.search.errors import SearchError
from fbnetv3.search.space.constraints import Constraint, merge_bounds

_NUMBER = r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)"
_CONSTRAINT_PATTERNS = (
    (re.compile(rf"{_NUMBER} *<= *(\w+) *<= *{_NUMBER}"), ("lower", "name", "upper")),
    (re.compile(rf"(\w+) *<= *{_NUMBER}"), ("name", "upper")),
    (re.compile(rf"(\w+) *>= *{_NUMBER}"), ("name", "lower")),
)


def parse_constraint(text: str) -> Constraint:
    """Reads ``4e8 <= macs <= 8e8``, ``macs <= 8e8`` or ``macs >= 4e8``.

    Raises:
        SearchError: The text has none of these forms, or the lower bound is above the upper one.
    """
    for pattern, fields in _CONSTRAINT_PATTERNS:
        match = pattern.fullmatch(str(text).strip())
        if match is None:
            continue
        values = dict(zip(fields, match.groups(), strict=True))
        name = values.pop("name")
        try:
            return Constraint(name, **{key: float(bound) for key, bound in values.items()})
        except ValueError:  # The pattern also matches 1.2.3, which is not a number.
            break
    raise SearchError(
        f"cannot parse the constraint {text!r}; write 'macs <= 8e8', 'macs >= 4e8' or "
        "'4e8 <= macs <= 8e8'"
    )


def parse_budget(text: str) -> Constraint:
    """Reads the upper bound on the cost of a winner, such as ``macs <= 4e8``.

    Raises:
        SearchError: The text is not a constraint, or has no upper bound.
    """
    budget = parse_constraint(text)
    if budget.upper is None:
        raise SearchError(f"SEARCH.BUDGETS: {text!r} has no upper bound; write 'macs <= 4e8'")
    return budget


def parse_bounds(text: str) -> tuple[Constraint, ...]:
    """Reads the bounds that one winner meets together: ``macs <= 4.5e8, latency_ms <= 5``.

    Raises:
        SearchError: A part is not a constraint, two bounds contradict or repeat each other, or
            there is no upper bound.
    """
    bounds = merge_bounds(parse_constraint(part) for part in str(text).split(","))
    if all(bound.upper is None for bound in bounds):
        raise SearchError(f"budget {text!r} has no upper bound; write 'macs <= 4e8'")
    return bounds


def constraints_from_config(cfg: CfgNode) -> list[Constraint]:
    """Returns SEARCH.CONSTRAINTS.

    Raises:
        SearchError: A constraint cannot be parsed.
    """
    return [parse_constraint(text) for text in cfg.SEARCH.CONSTRAINTS]


def budgets_from_config(cfg: CfgNode) -> list[Constraint]:
    """Returns SEARCH.BUDGETS.

    Raises:
        SearchError: A budget cannot be parsed, or has no upper bound.
    """
    return [parse_budget(text) for text in cfg.SEARCH.BUDGETS]
