"""Writes a config as two files: one with the keys not at their defaults, and one with all keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fbnetv3.config.keys import ADDED_KEYS
from fbnetv3.config.node import CfgNode, get_value, iter_keys, same_value
from fbnetv3.config.precedence import EXCLUSIVE_KEYS
from fbnetv3.io import atomic_write

FULL_SUFFIX = "_full"
"""Suffix of the name of the file with all keys: ``config_full.yaml`` next to ``config.yaml``."""


def changes_yaml(cfg: CfgNode, defaults: CfgNode) -> str:
    """Returns the keys of a config that differ from the defaults, as yaml to be merged over them.

    A length or period may be given in epochs or in iterations, see config/precedence.py. If the
    epochs are above 0, the iterations are left out. If the epochs are 0 and differ from their
    default, both are written, even if the iterations have their default.

    Args:
        cfg: The config.
        defaults: Defaults with the same keys.
    """
    changed = {
        key: value
        for key, value in iter_keys(cfg)
        if not same_value(value, get_value(defaults, key))
    }
    for epochs, iterations in EXCLUSIVE_KEYS.items():
        if get_value(cfg, epochs) > 0:
            changed.pop(iterations, None)
        elif epochs in changed:
            changed[iterations] = get_value(cfg, iterations)
    tree: dict[str, Any] = {"VERSION": cfg.VERSION}
    for key in sorted(changed):
        *path, name = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[name] = _plain(changed[key])
    text = yaml.safe_dump(tree, sort_keys=True)
    return f"# What differs from the defaults; a file NAME{FULL_SUFFIX}.yaml has all keys.\n{text}"


def completed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of all keys of a config, even if an earlier version wrote fewer.

    Keys that the earlier version did not have get their defaults. In a tree of version 0.1, which
    lacks the first of ADDED_KEYS, SOLVER.NESTEROV False becomes None. False was the default of that
    version; classifiers did not read the key, and for detectors False and None mean the same.

    Args:
        values: Values by dotted key, of a tree that this or an earlier version wrote.
        defaults: Defaults by dotted key.
    """
    result = {**defaults, **values}
    if ADDED_KEYS[0] not in values and values.get("SOLVER.NESTEROV") is False:
        result["SOLVER.NESTEROV"] = None
    return result


def write_config(path: Path, cfg: CfgNode, defaults: CfgNode, comments: str = "") -> None:
    """Writes the changed keys of a config to ``NAME.yaml``, and all keys to ``NAME_full.yaml``.

    Args:
        path: The short file, ``NAME.yaml``.
        cfg: The config.
        defaults: Defaults with the same keys.
        comments: Lines that begin with ``#``, for the top of the short file.

    Raises:
        WriteError: A file cannot be written.
    """
    with atomic_write(full_path(path)) as temporary:
        temporary.write_text(cfg.dump(), encoding="utf-8")
    with atomic_write(path) as temporary:
        temporary.write_text(comments + changes_yaml(cfg, defaults), encoding="utf-8")


def full_path(path: Path) -> Path:
    """Returns the path of the file with all keys, ``NAME_full.yaml``, for a path ``NAME.yaml``."""
    return path.with_name(f"{path.stem}{FULL_SUFFIX}{path.suffix}")


def _plain(value: Any) -> Any:
    """Returns a value with lists in place of tuples, which yaml does not have."""
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
