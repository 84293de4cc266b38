"""Keys that exclude each other: a length or period in epochs, or the same in iterations.

A training reads the iterations only if the epochs are 0. Values come from base files, the config
file, the command line and assignments in code, in this order. If one of these sources gives
iterations above 0 but no epochs, it therefore also sets the epochs to 0, so that it overrides
epochs of sources before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fbnetv3.config.errors import ConfigError

EXCLUSIVE_KEYS: Mapping[str, str] = {
    "SOLVER.MAX_EPOCHS": "SOLVER.MAX_ITER",
    "SOLVER.CHECKPOINT_EPOCHS": "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_EPOCHS": "TEST.EVAL_PERIOD",
}
"""Key in epochs, which is read if it is above 0 -> key in iterations."""


def let_iterations_override_epochs(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a file's values, with epochs set to 0 if it gives iterations above 0 but no epochs.

    Args:
        values: Nested mapping of keys to values; it is not changed.
    """
    result = dict(values)
    for epochs, iterations in EXCLUSIVE_KEYS.items():
        group, epochs_key = epochs.split(".")
        keys = result.get(group)
        if not isinstance(keys, dict) or epochs_key in keys:
            continue
        if _is_above_zero(keys.get(iterations.partition(".")[2])):
            result[group] = {**keys, epochs_key: 0.0}
    return result


def let_iterations_override_epochs_in_list(pairs: Sequence[Any]) -> list[Any]:
    """Returns ``[KEY, VALUE, ...]``, plus epochs of 0 if it has iterations above 0 but no epochs.

    Raises:
        ConfigError: A length or period is given both in epochs and in iterations, above 0.
    """
    given = dict(zip(pairs[0::2], pairs[1::2], strict=True))
    result = list(pairs)
    for epochs, iterations in EXCLUSIVE_KEYS.items():
        if not _is_above_zero(given.get(iterations)):
            continue
        if epochs not in given:
            result += [epochs, 0.0]
        elif _is_above_zero(given[epochs]):
            raise ConfigError(
                f"{epochs} {given[epochs]} and {iterations} {given[iterations]} exclude each "
                f"other; give one of them"
            )
    return result


def epochs_to_clear(name: str, value: object) -> str:
    """Returns the key in epochs that an assignment to a key of its group sets to 0; "" for none.

    Args:
        name: Assigned key without its group, such as ``MAX_ITER``.
        value: Assigned value.
    """
    for epochs, iterations in EXCLUSIVE_KEYS.items():
        if name == iterations.partition(".")[2] and _is_above_zero(value):
            return epochs.partition(".")[2]
    return ""


def _is_above_zero(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and float(value) > 0
    except (TypeError, ValueError):  # of the wrong type, which merging refuses later
        return False
