"""Checks of the metadata of untrusted weights files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from fbnetv3.plain_yaml import YamlError, parse_yaml
from fbnetv3.weights.errors import WeightsFileError

_MAX_PIXELS = 8_192  # largest side of an image; larger ones could exhaust the memory
_INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < 1e6  # False for NaN and infinity, too


def _is_side(value: Any) -> bool:
    return _is_number(value) and value == math.floor(value) and 0 <= value <= _MAX_PIXELS


def _is_triple(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(map(_is_number, value))


def _is_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(name, (str, int)) and not isinstance(name, bool) for name in value
    )


_SIDE = (_is_side, f"a whole number of pixels up to {_MAX_PIXELS}")
_TRIPLE = (_is_triple, "three numbers")
_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "classes": (_is_names, "a list of names"),
    "resolution": _SIDE,
    "resize": _SIDE,
    "interpolation": (lambda value: value in _INTERPOLATIONS, ", ".join(_INTERPOLATIONS)),
    "mean": _TRIPLE,
    "std": _TRIPLE,
}
"""Checks of a classifier's classes and preprocessing, and descriptions of what is allowed."""


def check_metadata(metadata: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Checks the classes and the preprocessing in the metadata of a classifier's weights file.

    Args:
        metadata: Metadata of the file, with parsed values.
        path: Path of the file in error messages.

    Raises:
        WeightsFileError: A value has another type or is out of range, or the config in the metadata
            is not valid yaml.
    """
    config = metadata.get("config")
    try:
        tree = parse_yaml(config) if isinstance(config, str) else config
    except YamlError as error:
        raise WeightsFileError(f"the config in the metadata of {path}: {error}") from error
    section = tree.get("INPUT") if isinstance(tree, Mapping) else None
    if section is not None and not isinstance(section, Mapping):
        raise _error("config", f"INPUT: {section!r}", "INPUT with KEY: VALUE pairs", path)
    for key, (is_allowed, allowed) in _ALLOWED.items():
        values = {key: metadata.get(key), f"INPUT.{key.upper()}": (section or {}).get(key.upper())}
        for name, value in values.items():
            # empty values and a side of 0 stand for the default
            if value is not None and not _is_empty(value) and not is_allowed(value):
                raise _error(name, value, allowed, path)


def _is_empty(value: Any) -> bool:
    return isinstance(value, (str, list, tuple)) and not value


def _error(key: str, value: Any, allowed: str, path: str | os.PathLike[str]) -> WeightsFileError:
    return WeightsFileError(
        f"{path} has {key}={str(value)[:60]!r} in its metadata; allowed: {allowed}; use a file "
        "that training exported"
    )
