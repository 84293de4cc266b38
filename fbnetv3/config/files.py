"""Reading config files: yaml of plain values, merged over the files that ``_BASE_`` lists."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fbnetv3.config.arithmetic import evaluate
from fbnetv3.config.errors import ConfigError
from fbnetv3.config.precedence import let_iterations_override_epochs
from fbnetv3.io import read_text
from fbnetv3.plain_yaml import PlainLoader, YamlError, parse_yaml

_SUFFIXES = (".yaml", ".yml")


class _Loader(PlainLoader):
    """Reads plain values, and the arithmetic that detectron2's RetinaNet configs have in a tag."""

    def construct_arithmetic(self, node: yaml.SequenceNode) -> Any:
        """Evaluates ``!!python/object/apply:eval ["[2 * x for x in [1, 2]]"]``."""
        (text,) = self.construct_sequence(node)
        return evaluate(str(text))


_Loader.add_constructor("tag:yaml.org,2002:python/object/apply:eval", _Loader.construct_arithmetic)


def load_yaml(path: Path, own: dict[str, Any] | None = None) -> dict[str, Any]:
    """Reads a config file and merges it over its ``_BASE_`` files (one name or a list of names).

    Args:
        path: The file.
        own: Mapping that is filled with the file's own values, without those of its bases; None if
            they are not needed.

    Raises:
        ConfigError: A file cannot be read, is not yaml of plain values, has no keys, has a VERSION
            other than 2 or a ``_BASE_`` that is not allowed, or is its own ``_BASE_``, directly or
            by way of other files.
    """
    return _load(path, (), {}, own)


def _load(
    path: Path,
    above: tuple[Path, ...],
    bases: dict[Path, dict[str, Any]],
    own: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Reads a config file; see :func:`load_yaml`.

    Args:
        path: The file.
        above: Files that include this one through ``_BASE_``, to detect cycles.
        bases: Merged values of each base file read so far, by its path; the bases of this file are
            added. A base that several files include is thus read only once.
        own: Mapping that is filled with the file's own values.
    """
    if path.resolve() in above:
        raise ConfigError(f"{path} is its own _BASE_, directly or by way of other files")
    try:
        values = parse_yaml(read_text(path, "config"), _Loader)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (YamlError, ValueError) as error:
        raise ConfigError(f"{path} is not a yaml file that can be read safely: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} has no KEY: VALUE pairs")
    merged: dict[str, Any] = {}
    for base in _base_names(values.pop("_BASE_", []), path):
        file = path.parent / base
        if file not in bases:
            bases[file] = _load(file, (*above, path.resolve()), bases)
        _merge_dict(merged, copy.deepcopy(bases[file]))
    _make_arch_path_absolute(values, path.parent)
    if own is not None:
        own.update(values)
    _merge_dict(merged, let_iterations_override_epochs(values))
    _check_version(merged, path)
    return merged


def check_is_local(key: str, value: str, path: Path, local_path: str | None) -> None:
    """Checks that a path in a config file is below the config's folder or the working directory.

    Config files are untrusted. Only the command line may give other paths, or network addresses.

    Args:
        key: Key of the config.
        value: Its value in the file.
        path: The config file.
        local_path: The file or folder that the value refers to, absolute or relative to the working
            directory; "" for the working directory itself, None for a network address.

    Raises:
        ConfigError: The path is elsewhere, or the value is a network address.
    """
    allowed = (Path.cwd().resolve(), path.resolve().parent)
    if local_path is not None and any(
        Path(local_path).resolve().is_relative_to(x) for x in allowed
    ):
        return
    if local_path is None:
        why = "is a network address, which a config file may not name"
    else:
        why = "is neither below the current folder nor below the folder of the config file"
    argument = f"{key} {shlex.quote(value)}"
    raise ConfigError(f"{path}: {key} {value} {why}; give it on the command line: {argument}")


def check_output_dir(output_dir: str, path: Path) -> None:
    """Checks that the OUTPUT_DIR in a config file passes :func:`check_is_local`."""
    check_is_local("OUTPUT_DIR", output_dir, path, output_dir)


def _make_arch_path_absolute(values: dict[str, Any], folder: Path) -> None:
    """Makes MODEL.ARCH an absolute path if it is a yaml file relative to the config's folder."""
    model = values.get("MODEL")
    if not isinstance(model, dict):
        return
    name = model.get("ARCH")
    if isinstance(name, str) and name.endswith((".yaml", ".yml")) and (folder / name).is_file():
        values["MODEL"] = {**model, "ARCH": str((folder / name).resolve())}


def _base_names(base: Any, path: Path) -> list[Path]:
    names = [base] if isinstance(base, str) else base
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ConfigError(f"{path}: _BASE_ takes a file name or a list of them, not {base!r}")
    for name in names:
        # Without this check, a config could make the program read a file of any kind, or a device
        # that never ends.
        if not name.endswith(_SUFFIXES):
            raise ConfigError(
                f"{path}: _BASE_ names {name!r}; allowed: {' and '.join(_SUFFIXES)} files"
            )
    return [Path(name).expanduser() for name in names]


def _check_version(values: Mapping[str, Any], path: Path) -> None:
    version = values.get("VERSION", 2)
    if version != 2:
        raise ConfigError(
            f"{path} has VERSION {version}; only VERSION 2 is supported; rename the keys to those "
            "of get_cfg() and set VERSION: 2"
        )


def _merge_dict(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge_dict(into[key], value)
        else:
            into[key] = value
