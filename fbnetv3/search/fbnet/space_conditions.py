"""When a variable of a space's yaml has an effect: ``when: {optimizer: adamw}``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fbnetv3.errors import did_you_mean
from fbnetv3.search.checks import real_from_text, whole_from_text
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import short
from fbnetv3.search.space.space import Parameter, SearchSpace, When

_RELATION = re.compile(r"\s*(==|!=|>=|<=|>|<)\s*(.+?)\s*")


def read_conditions(
    name: str, value: object, parameters: Mapping[str, Parameter], others: Iterable[When] = ()
) -> tuple[When, ...]:
    """Returns the conditions of a variable, which has an effect only if at least one of them holds.

    ``{optimizer: adamw}`` is ``When("optimizer", "==", "adamw")``, ``{optimizer: [adamw, lion]}``
    has one condition for each value, and ``{mixup: "> 0"}`` is a comparison.

    Args:
        name: Name of the variable, for messages.
        value: Value of ``when`` in the table.
        parameters: Earlier variables of the space by name.
        others: Conditions that do not come from ``when``, for example because the variable
            sets a key that only some ops have; ``when`` is allowed only if there are none.

    Raises:
        SearchError: The value is no mapping of one earlier variable to at least one value, the
            earlier variable is a choice without this value, or there are other conditions.
    """
    if not isinstance(value, Mapping) or len(value) != 1 or [*value.values()] == [[]]:
        raise SearchError(
            f"{name}: when: {short(value)} is not allowed; allowed: one earlier variable and its "
            "value, such as {optimizer: adamw}, {optimizer: [adamw, lion]} or {mixup: '> 0'}"
        )
    if tuple(others):
        raise SearchError(
            f"{name}: when is not allowed here, because the variable has a condition already: it "
            "matters in rows of several layers only, or for some ops only"
        )
    ((variable, allowed),) = value.items()
    if variable not in parameters:
        raise SearchError(
            f"{name}: when: {short(variable)} is not an earlier variable of the space; allowed: "
            f"{', '.join(parameters) or 'none'}{did_you_mean(str(variable), parameters)}"
        )
    values = allowed if isinstance(allowed, list) else [allowed]
    conditions = tuple(_condition(str(variable), item) for item in values)
    _check_reachable(name, conditions, parameters[variable])
    return conditions


def is_active(name: str, space: SearchSpace, config: Mapping[str, Any]) -> bool:
    """Returns whether a variable has an effect in a candidate.

    A variable without conditions always has an effect. A variable with conditions has an effect if
    at least one of them holds and the earlier variable that this condition compares has an effect.

    Args:
        name: Name of the variable.
        space: Space of the variable.
        config: Value of each variable of the candidate.
    """
    conditions = space[name].active_if
    return not conditions or any(
        is_active(when.name, space, config) and when.holds(config[when.name]) for when in conditions
    )


def _condition(variable: str, value: Any) -> When:
    match = _RELATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return When(variable, "==", value)
    text = match[2]
    whole, real = whole_from_text(text), real_from_text(text)
    number = real if whole is None else whole
    return When(variable, match[1], text if number is None else number)


def _check_reachable(name: str, conditions: Iterable[When], parameter: Parameter) -> None:
    """Checks that ``==`` and ``!=`` compare a choice only with values that it can have."""
    if parameter.is_ordered:
        return
    choices = [parameter.value(level) for level in range(parameter.size)]
    for condition in conditions:
        if condition.relation in ("==", "!=") and condition.value not in choices:
            raise SearchError(
                f"{name}: when: {parameter.name} is never {condition.value!r}; allowed: "
                f"{', '.join(map(repr, choices))}"
            )
