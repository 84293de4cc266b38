"""A node of the config tree that refuses unknown keys and values of the wrong type."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode as DetectronCfgNode

from fbnetv3.config.errors import ConfigError
from fbnetv3.config.files import load_yaml
from fbnetv3.config.precedence import epochs_to_clear, let_iterations_override_epochs_in_list
from fbnetv3.config.renamed import new_name, with_new_names
from fbnetv3.errors import did_you_mean

# Attributes of the tree's root: keys that files, KEY VALUE lists and other config trees give
_GIVEN_KEYS = "__given_keys__"  # all given keys
_GIVEN_OUTSIDE_BASES = "__given_outside_bases__"  # all but the keys that only _BASE_ files give
# Attribute of a node: its keys that code has assigned, with dots for keys of an assigned group
_ASSIGNED = "__assigned_keys__"
# Attribute of a node: its keys whose value is an integer or the word auto
_AUTO_KEYS, _AUTO = "__auto_keys__", "auto"
# Names of settings in other programs -> key here, which the error about an unknown key suggests
_ALIASES = {
    "LR": "BASE_LR",
    "LEARNING_RATE": "BASE_LR",
    "BATCH_SIZE": "IMS_PER_BATCH",
    "BATCH": "IMS_PER_BATCH",
    "EPOCHS": "MAX_EPOCHS",
    "NUM_EPOCHS": "MAX_EPOCHS",
    "ITERS": "MAX_ITER",
    "ITERATIONS": "MAX_ITER",
    "SCHEDULE": "LR_SCHEDULER_NAME",
    "SCHEDULER": "LR_SCHEDULER_NAME",
    "SIZE": "RESOLUTION",
    "IMAGE_SIZE": "RESOLUTION",
    "WORKERS": "NUM_WORKERS",
    "VAL": "TEST",
    "PRETRAINED": "WEIGHTS",
}


class CfgNode(DetectronCfgNode):
    """detectron2's node with strict keys and types.

    An unknown key from a file, from the command line or from an assignment in code raises a
    ConfigError that suggests the nearest key or lists the allowed ones. A value must have the type
    of the key's present value. An int is also accepted for a float, a Path for a string, one string
    for a list or tuple of strings, a list for a tuple and the reverse, and anything where the
    present value is None. Keys of :meth:`allow_auto` take an integer or ``auto``. An assignment of
    iterations also sets the epochs to 0, see config/precedence.py.
    Yaml is read with the safe loader only. New keys can be added after ``set_new_allowed(True)``.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        is_known, before = name in self, self.get(name)
        self._store(name, value)
        if is_known:
            self._record_assigned(name, before)

    def _store(self, name: str, value: Any) -> None:
        if self.is_frozen():
            raise ConfigError(
                f"the config is frozen: cannot set {name} to {value!r}; clone and defrost it first"
            )
        if name in self:
            value = self._checked_value(name, value, name)
        elif not self.is_new_allowed():
            raise ConfigError(f"unknown config key {name}{_nearest_key(self, (), name)}")
        super().__setitem__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # Without this method, copy and pickle would call __setitem__, which fails for frozen nodes.
        return _rebuilt, (type(self), dict(self), dict(self.__dict__))

    def _record_assigned(self, name: str, before: Any) -> None:
        """Records that code has assigned a key, whose iterations then override the epochs.

        Args:
            name: The key in this node.
            before: Its value before the assignment.
        """
        value, names = self[name], [name]
        if isinstance(value, CfgNode):
            earlier = dict(iter_keys(before)) if isinstance(before, CfgNode) else {}
            changed = ((key, earlier.get(key) != new) for key, new in iter_keys(value))
            names = [f"{name}.{key}" for key, is_changed in changed if is_changed]
        assigned: set[str] = self.__dict__.setdefault(_ASSIGNED, set())
        assigned.update(names)
        epochs = epochs_to_clear(name, value)
        if epochs in self and epochs not in assigned:
            self._store(epochs, 0.0)

    def _assigned_keys(self, path: tuple[str, ...] = ()) -> Iterator[str]:
        for name in self.__dict__.get(_ASSIGNED, ()):
            yield ".".join((*path, name))
        for name, node in self.items():
            if isinstance(node, CfgNode):
                yield from node._assigned_keys((*path, name))

    def allow_auto(self, *names: str) -> None:
        """Lets keys of this node have the value ``auto`` or an integer."""
        self.__dict__[_AUTO_KEYS] = {*self.__dict__.get(_AUTO_KEYS, ()), *names}

    def _checked_value(self, name: str, value: Any, key: str) -> Any:
        if name in self.__dict__.get(_AUTO_KEYS, ()):
            return _number_or_auto(value, key)
        if not isinstance(self[name], CfgNode):
            return _coerce(value, self[name], key)
        if not isinstance(value, CfgNode):
            raise ConfigError(f"{key} is a group of keys, not a value ({value!r})")
        return value

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merges a yaml file, after the files that its ``_BASE_`` lists.

        Args:
            cfg_filename: Path of the file.
            allow_unsafe: Must be False; the argument exists because detectron2's method has it.

        Raises:
            ConfigError: The file is missing or not yaml, or has unknown keys or values that are not
                allowed, or ``allow_unsafe`` is True.
        """
        _refuse_unsafe(allow_unsafe)
        own: dict[str, Any] = {}
        values: Mapping[str, Any] = load_yaml(Path(cfg_filename), own=own)
        try:
            values = with_new_names(values)
            self._merge(values, ())
        except ConfigError as error:
            raise ConfigError(f"{cfg_filename}: {error}") from None
        self._record_given((key for key, _ in iter_keys(values)), from_base=True)
        self._record_given((key for key, _ in iter_keys(with_new_names(own))), from_base=False)

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """Reads a yaml file and its ``_BASE_`` files with the safe loader, unlike fvcore's method.

        Args:
            filename: Path of the file.
            allow_unsafe: Must be False; the argument exists because detectron2's method has it.

        Raises:
            ConfigError: The file cannot be read, or ``allow_unsafe`` is True.
        """
        _refuse_unsafe(allow_unsafe)
        return load_yaml(Path(filename))

    @classmethod
    def load_cfg(cls, cfg_file_obj_or_str: object) -> CfgNode:
        """Always fails: yacs' method of this name runs ``.py`` files.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "load_cfg is disabled, as it runs .py files; use merge_from_file for yaml"
        )

    def merge_from_other_cfg(self, cfg_other: Mapping[str, Any]) -> None:
        """Merges another tree of keys and values, or a part of one.

        Raises:
            ConfigError: A key is unknown, or a value is not allowed.
        """
        before = dict(iter_keys(self))
        self._merge(cfg_other, ())
        changed = (key for key, value in iter_keys(self) if before.get(key) != value)
        self._record_given(changed, from_base=False)

    def given_keys(self, bases: bool = True) -> frozenset[str]:
        """Returns the full keys such as SOLVER.BASE_LR that files, lists, trees or code have given.

        A file or list gives all its keys, and an assignment in code its key, even those whose
        values equal the defaults. A tree merged by :meth:`merge_from_other_cfg`, or assigned as a
        group, gives the keys whose values it changed.

        Args:
            bases: Whether to include keys that only a file's ``_BASE_`` gives.
        """
        merged = self.__dict__.get(_GIVEN_KEYS if bases else _GIVEN_OUTSIDE_BASES, ())
        return frozenset((*merged, *self._assigned_keys()))

    def forget_given_keys(self) -> None:
        """Treats no key as given any more, as if the present values were defaults."""
        self.__dict__[_GIVEN_KEYS] = set()
        self.__dict__[_GIVEN_OUTSIDE_BASES] = set()
        self.__dict__[_ASSIGNED] = set()
        for node in self.values():
            if isinstance(node, CfgNode):
                node.forget_given_keys()

    def _record_given(self, keys: Iterable[str], *, from_base: bool) -> None:
        """Records full keys such as SOLVER.BASE_LR as given.

        Args:
            keys: The keys.
            from_base: Whether to record them for ``given_keys()`` only, not for
                ``given_keys(bases=False)``.
        """
        given = set(keys)
        for name in (_GIVEN_KEYS,) if from_base else (_GIVEN_KEYS, _GIVEN_OUTSIDE_BASES):
            self.__dict__.setdefault(name, set()).update(given)

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merges ``[KEY, VALUE, KEY, VALUE, ...]``.

        Strings are parsed as Python literals where they are literals, except for keys whose present
        value is a string.

        Raises:
            ConfigError: A key is unknown or has no value, a value is not allowed, or the same
                setting is given both in epochs and in iterations.
        """
        if len(cfg_list) % 2:
            raise ConfigError(f"the config key {cfg_list[-1]!r} has no value; give KEY VALUE pairs")
        pairs = [item if i % 2 else new_name(str(item)) for i, item in enumerate(cfg_list)]
        cfg_list = list(pairs)
        if "SOLVER" in self:  # the root of the tree, not a part of it
            pairs = let_iterations_override_epochs_in_list(pairs)
        for key, value in zip(pairs[0::2], pairs[1::2], strict=True):
            nested: Any = value
            for part in reversed(str(key).split(".")):
                nested = {part: nested}
            self._merge(nested, ())
        self._record_given(map(str, cfg_list[0::2]), from_base=False)

    def _merge(self, values: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for key, value in values.items():
            full_key = ".".join((*path, str(key)))
            if key not in self:
                if self.is_new_allowed():
                    self[key] = self._decode_cfg_value(value)
                    continue
                raise ConfigError(
                    f"unknown config key {full_key}{_nearest_key(self, path, str(key))}"
                )
            try:
                value = self._decoded(value, self[key])
            except ConfigError as error:
                raise ConfigError(f"{full_key}: {error}") from None
            if isinstance(self[key], CfgNode) and isinstance(value, Mapping):
                self[key]._merge(value, (*path, key))
            else:
                self._store(key, self._checked_value(key, value, full_key))

    def _decoded(self, value: Any, default: Any) -> Any:
        try:
            decoded = self._decode_cfg_value(value)
        except (MemoryError, RecursionError):  # Python's parser fails on deeply nested brackets
            raise ConfigError(f"a value is nested too deeply: {str(value)[:40]}...") from None
        if not _fits_64_bits(decoded):
            raise ConfigError(
                f"an integer does not fit into 64 bits: {str(value)[:40]}...; write a smaller one"
            )
        # Where the present value is a string, text stays text even if it reads as a number or a
        # list: OUTPUT_DIR may be a folder named 2024 or [1].
        stays_text = isinstance(default, str) and not isinstance(decoded, str)
        return value if stays_text and isinstance(value, str) else decoded

    def __str__(self) -> str:
        return self.dump()


def _number_or_auto(value: Any, key: str) -> Any:
    """Returns an integer or ``auto``; for other values, raises a ConfigError with the key."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,9}", value.strip()):
        # `_decoded` leaves text unparsed if the present value is the string auto.
        value = int(value)
    if value != _AUTO and type(value) is not int:
        raise ConfigError(f"{key} takes an integer or {_AUTO}, not {value!r}")
    return value


# Type of a default -> other types that are converted to it
_CONVERTIBLE_FROM: dict[type, tuple[type, ...]] = {float: (int,), tuple: (list,), list: (tuple,)}


def _coerce(value: Any, default: Any, key: str) -> Any:
    """Returns ``value`` converted to the type of ``default``, or raises a ConfigError."""
    kind = type(default)
    if default is None:
        return value
    if type(value) is kind and not isinstance(default, (list, tuple)):
        return value
    if kind is str and isinstance(value, Path):
        return str(value)
    if kind in (tuple, list) and isinstance(value, str):
        value = [value]
    if type(value) in (kind, *_CONVERTIBLE_FROM.get(kind, ())) and _items_match(value, default):
        return kind(value)
    name = {"int": "an integer", "str": "a string", "bool": "True or False"}.get(
        kind.__name__, f"a {kind.__name__}"
    )
    raise ConfigError(f"{key} takes {name} such as {default!r}, not {value!r}")


def _items_match(value: Any, default: Any) -> bool:
    """Returns whether all items are numbers; always True if the default is no list of numbers."""
    if not isinstance(default, (list, tuple)) or not all(map(_is_number, default)) or not default:
        return True
    return all(map(_is_number, value))


def _fits_64_bits(value: Any) -> bool:
    """Returns whether all integers lie in the range of signed or unsigned 64-bit integers."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_fits_64_bits, value))
    if isinstance(value, Mapping):
        return all(map(_fits_64_bits, value)) and all(map(_fits_64_bits, value.values()))
    return not isinstance(value, int) or -(2**63) <= value < 2**64


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _refuse_unsafe(allow_unsafe: bool) -> None:
    if allow_unsafe:
        raise ConfigError("configs are read with the safe yaml loader only; omit allow_unsafe")


def _rebuilt(kind: type[CfgNode], items: Mapping[str, Any], flags: Mapping[str, Any]) -> CfgNode:
    node = kind.__new__(kind)
    dict.update(node, items)
    node.__dict__.update(flags)
    return node


def _nearest_key(node: CfgNode, path: tuple[str, ...], key: str) -> str:
    alias = _ALIASES.get(key.upper())
    if alias in node:
        return f"; did you mean {alias}?"
    group, _, rest = key.partition(".")
    if rest and isinstance(node.get(group), CfgNode):
        return f"; in a yaml file and in Python, keys are nested: {group}: {{{rest}: ...}}"
    suggestion = did_you_mean(key, node)
    if suggestion:
        return suggestion
    place = f" in {'.'.join(path)}" if path else ""
    return f"; allowed keys{place}: {', '.join(sorted(node))}"


def iter_keys(node: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yields the full key and the value of every leaf, such as ``("SOLVER.BASE_LR", 0.026)``."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from iter_keys(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def same_value(one: object, other: object) -> bool:
    """Returns whether two values are equal; tuples equal lists, since yaml writes them as lists."""
    return bool(_plain(one) == _plain(other))


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def get_value(cfg: CfgNode, full_key: str) -> Any:
    """Returns the value of a full key, such as ``"SOLVER.BASE_LR"``."""
    node: Any = cfg
    for part in full_key.split("."):
        node = node[part]
    return node
