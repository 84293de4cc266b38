"""A node of the config tree that refuses unknown keys and values of other types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode as DetectronCfgNode

from fbnetv3.config.errors import ConfigError
from fbnetv3.config.files import load_yaml
from fbnetv3.errors import did_you_mean


class CfgNode(DetectronCfgNode):
    """detectron2's node, made strict.

    Unknown keys fail with the nearest valid one, whether they come from a file, the command line
    or an assignment in code; values must have the type of the default (an int is taken where a
    float is meant); yaml is read with the safe loader only. ``set_new_allowed(True)`` opens a
    node for keys of one's own.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if self.is_frozen():
            raise ConfigError(
                f"the config is frozen, {name} can't become {value!r}; clone() and defrost() it"
            )
        if name in self:
            value = self._checked(name, value, name)
        elif not self.is_new_allowed():
            raise ConfigError(f"no config key {name}{_nearest_key(self, (), name)}")
        super().__setitem__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # else a copy would be filled through __setitem__, into nodes that are frozen or closed
        return _rebuilt, (type(self), dict(self), dict(self.__dict__))

    def _checked(self, name: str, value: Any, key: str) -> Any:
        if not isinstance(self[name], CfgNode):
            return _coerce(value, self[name], key)
        if not isinstance(value, CfgNode):
            raise ConfigError(f"{key} is a group of keys, not a value ({value!r})")
        return value

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merges a yaml file and the files named by its ``_BASE_``, which its own keys override.

        Raises:
            ConfigError: the file is missing or no yaml, or has unknown keys or wrong types;
                or ``allow_unsafe`` is asked for, which is never done.
        """
        _refuse_unsafe(allow_unsafe)
        values = load_yaml(Path(cfg_filename))
        try:
            self._merge(values, ())
        except ConfigError as error:
            raise ConfigError(f"{cfg_filename}: {error}") from None

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """Reads a yaml as :meth:`merge_from_file` does; fvcore's would unpickle where asked to.

        Raises:
            ConfigError: see there.
        """
        _refuse_unsafe(allow_unsafe)
        return load_yaml(Path(filename))

    @classmethod
    def load_cfg(cls, cfg_file_obj_or_str: Any) -> CfgNode:
        """Is refused: yacs would run a ``.py`` file.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("load_cfg of yacs runs .py files; read a yaml by merge_from_file")

    def merge_from_other_cfg(self, cfg_other: Mapping[str, Any]) -> None:
        """Merges another tree, or the part of one."""
        self._merge(cfg_other, ())

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merges ``[KEY, VALUE, KEY, VALUE, ...]``; strings are read as Python literals."""
        if len(cfg_list) % 2:
            raise ConfigError(f"overrides come in pairs KEY VALUE; {cfg_list[-1]!r} has no value")
        for key, value in zip(cfg_list[0::2], cfg_list[1::2], strict=True):
            nested: Any = value
            for part in reversed(str(key).split(".")):
                nested = {part: nested}
            self._merge(nested, ())

    def _merge(self, values: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for key, value in values.items():
            full_key = ".".join((*path, str(key)))
            if key not in self:
                if self.is_new_allowed():
                    self[key] = self._decode_cfg_value(value)
                    continue
                raise ConfigError(f"no config key {full_key}{_nearest_key(self, path, str(key))}")
            value = self._decoded(value, self[key])
            if isinstance(self[key], CfgNode) and isinstance(value, Mapping):
                self[key]._merge(value, (*path, key))
            else:
                self[key] = self._checked(key, value, full_key)

    def _decoded(self, value: Any, default: Any) -> Any:
        try:
            decoded = self._decode_cfg_value(value)
        except (MemoryError, RecursionError):  # of Python's parser: brackets in brackets in ...
            raise ConfigError(f"a value is nested too deeply: {str(value)[:40]}...") from None
        # OUTPUT_DIR 2024 is a name, no number
        is_name = isinstance(default, str) and isinstance(decoded, (int, float))
        return value if is_name and isinstance(value, str) else decoded

    def __str__(self) -> str:
        return self.dump()


_LIKE: dict[type, tuple[type, ...]] = {float: (int,), tuple: (list,), list: (tuple,)}


def _coerce(value: Any, default: Any, key: str) -> Any:
    """Returns ``value`` in the type of ``default``, or raises a ConfigError that names the key."""
    wanted = type(default)
    if default is None:
        return value
    if type(value) is wanted and not isinstance(default, (list, tuple)):
        return value
    if wanted is str and isinstance(value, Path):
        return str(value)
    if wanted in (tuple, list) and isinstance(value, str):
        value = [value]
    if type(value) in (wanted, *_LIKE.get(wanted, ())) and _are_alike(value, default):
        return wanted(value)
    raise ConfigError(f"{key} takes a {wanted.__name__} (as {default!r}), not {value!r}")


def _are_alike(value: Any, default: Any) -> bool:
    """Whether a list has only numbers where the default has."""
    if not isinstance(default, (list, tuple)) or not all(map(_is_number, default)) or not default:
        return True
    return all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _refuse_unsafe(allow_unsafe: bool) -> None:
    if allow_unsafe:
        raise ConfigError("configs are read with the safe yaml loader only; drop allow_unsafe")


def _rebuilt(kind: type[CfgNode], items: Mapping[str, Any], flags: Mapping[str, Any]) -> CfgNode:
    node = kind.__new__(kind)
    dict.update(node, items)
    node.__dict__.update(flags)
    return node


def _nearest_key(node: CfgNode, path: tuple[str, ...], key: str) -> str:
    here = did_you_mean(key, node)
    if here:
        return here
    inside = ".".join(path) or "the group"
    return f"; {inside} has {', '.join(sorted(node))}"


def iter_keys(node: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yields ``("SOLVER.BASE_LR", value)`` for every leaf of the tree."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from iter_keys(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def get_value(cfg: CfgNode, full_key: str) -> Any:
    """Returns ``cfg.SOLVER.BASE_LR`` for ``"SOLVER.BASE_LR"``."""
    node: Any = cfg
    for part in full_key.split("."):
        node = node[part]
    return node
