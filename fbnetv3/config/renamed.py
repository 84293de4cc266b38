"""Old names of config keys, which files and command lines may still use for some versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fbnetv3._deprecation import warn_deprecated
from fbnetv3.config.errors import ConfigError


class RenamedKey(NamedTuple):
    """The new name of a config key.

    Attributes:
        key: New full key, such as ``SOLVER.BASE_LR``.
        since: Version that renamed it.
        removed_in: Version that will no longer take the old name.
    """

    key: str
    since: str
    removed_in: str


RENAMED_KEYS: Mapping[str, RenamedKey] = {}
"""Old full key -> its new name; no key of 0.1.0 was renamed."""


def new_name(key: str, renamed: Mapping[str, RenamedKey] = RENAMED_KEYS) -> str:
    """Returns the present name of a full key, with a warning if the given one is an old name."""
    if key not in renamed:
        return key
    new = renamed[key]
    what = f"the config key {key}"
    warn_deprecated(what, since=new.since, removed_in=new.removed_in, instead=new.key)
    return new.key


def with_new_names(
    values: Mapping[str, Any], renamed: Mapping[str, RenamedKey] = RENAMED_KEYS
) -> Mapping[str, Any]:
    """Returns the content of a config file with the present names of its keys.

    Args:
        values: Nested mappings of keys and values, which are not changed.
        renamed: Old full keys and their new names.

    Raises:
        ConfigError: The file has both the old and the new name of a key.
    """
    for old in renamed:
        group, value = _without(values, old.split("."))
        if group is None:
            continue
        key = new_name(old, renamed)
        if _without(group, key.split("."))[0] is not None:
            raise ConfigError(f"{old} is the old name of {key}; give {key} alone")
        values = _with(group, key.split("."), value)
    return values


def _without(values: Any, path: list[str]) -> tuple[dict[str, Any] | None, Any]:
    """Returns nested mappings without a key, and its value; (None, None) if they lack it."""
    if not isinstance(values, Mapping) or path[0] not in values:
        return None, None
    if len(path) == 1:
        return {key: values[key] for key in values if key != path[0]}, values[path[0]]
    inner, value = _without(values[path[0]], path[1:])
    return (None, None) if inner is None else ({**values, path[0]: inner}, value)


def _with(values: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """Returns nested mappings with a key."""
    if len(path) == 1:
        return {**values, path[0]: value}
    return {**values, path[0]: _with(values.get(path[0], {}), path[1:], value)}
