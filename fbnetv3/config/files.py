"""Config files: yaml of plain values, over the files that ``_BASE_`` names."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fbnetv3.config.arithmetic import evaluate
from fbnetv3.config.errors import ConfigError
from fbnetv3.plain_yaml import PlainLoader, YamlError, parse_yaml

_SUFFIXES = (".yaml", ".yml")


class _Loader(PlainLoader):
    """Plain values, and the arithmetic that detectron2's own RetinaNet configs hold in a tag."""

    def computed(self, node: yaml.SequenceNode) -> Any:
        """Computes ``!!python/object/apply:eval ["[2 * x for x in [1, 2]]"]``."""
        (text,) = self.construct_sequence(node)
        return evaluate(str(text))


_Loader.add_constructor("tag:yaml.org,2002:python/object/apply:eval", _Loader.computed)


def load_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Reads a yaml and merges it over its ``_BASE_`` files (one name or a list of names).

    Args:
        path: the file.
        seen: the files that led to it.

    Raises:
        ConfigError: a file can't be read, is no safe yaml or of another version, or the
            ``_BASE_`` go round in a circle.
    """
    if path.resolve() in seen:
        raise ConfigError(f"_BASE_ goes round in a circle at {path}")
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (YamlError, ValueError) as error:
        raise ConfigError(f"{path} is no yaml that can be read safely: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no KEY: VALUE pairs")
    merged: dict[str, Any] = {}
    for base in _base_names(values.pop("_BASE_", []), path):
        _merge_dict(merged, load_yaml(path.parent / base, (*seen, path.resolve())))
    _find_arch(values, path.parent)
    _merge_dict(merged, values)
    _check_version(merged, path)
    return merged


def check_place(key: str, value: str, path: Path, where: str | None) -> None:
    """Checks that a config file, perhaps of others, has only places near it written to.

    Args:
        key: of the value.
        value: as the file states it.
        path: of the config file.
        where: the folder or file that the value stands for, "" for none; None: it is an address.

    Raises:
        ConfigError: it is neither below the file's folder nor below the current one, or it is an
            address: these only the command line may give.
    """
    allowed = (Path.cwd().resolve(), path.resolve().parent)
    if where is not None and any(Path(where).resolve().is_relative_to(it) for it in allowed):
        return
    if where is None:
        why = "is an address; a file may not name one"
    else:
        why = (
            "is neither below the current folder nor below the file's; a file may not write "
            "elsewhere"
        )
    words = f"{key} {shlex.quote(value)}"
    raise ConfigError(f"{path}: {key} {value} {why}, give it as argument: {words}")


def check_output_dir(output_dir: str, path: Path) -> None:
    """Checks OUTPUT_DIR of a config file; see :func:`check_place`."""
    check_place("OUTPUT_DIR", output_dir, path, output_dir)


def _find_arch(values: dict[str, Any], folder: Path) -> None:
    """Makes a MODEL.ARCH that names a yaml beside the config a full path: both can be moved."""
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
        # else a config could have any file read, or a device that never ends
        if not name.endswith(_SUFFIXES):
            raise ConfigError(
                f"{path}: _BASE_ names {name!r}; allowed: files {' and '.join(_SUFFIXES)}"
            )
    return [Path(name).expanduser() for name in names]


def _check_version(values: Mapping[str, Any], path: Path) -> None:
    version = values.get("VERSION", 2)
    if version != 2:
        raise ConfigError(
            f"{path} has config VERSION {version}; this program reads 2 (detectron2's second "
            "format, in which keys were renamed); write the keys of get_cfg() and VERSION: 2"
        )


def _merge_dict(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge_dict(into[key], value)
        else:
            into[key] = value
