"""Reading of untrusted yaml: plain values of bounded size, without objects or code.

All yaml files of the project are read here, with PyYAML's safe loader. Tags such as
``!!python/object/apply:os.system`` give a one-line error. So do files of a few lines whose
nested aliases (``a: &a [x, x]``, ``b: [*a, *a]``, ...) stand for more values than fit into memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import yaml

from fbnetv3.errors import FBNetError
from fbnetv3.io import MAX_BYTES

MAX_VALUES = 1_000_000
"""Largest number of values and keys, counted again for each alias that repeats them."""
_MAX_NODES = 20_000
"""Largest number of values and keys, where an alias counts as one value.

PyYAML reads about 10,000 per second.
"""
_MAX_LEVELS = 100  # of nested values
_MAX_DIGITS = 100
"""Largest number of characters of a number; PyYAML's time is quadratic in it."""
_INT64 = range(-(2**63), 2**64)  # signed, or unsigned such as seeds
_TAG_PREFIX = "tag:yaml.org,2002:"
# Errors of PyYAML, including those for values that do not fit their tag (!!bool 5, !!timestamp x)
# and for too deeply nested values.
_BROKEN = (
    *(yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError),
    ArithmeticError,
)


class YamlError(FBNetError):
    """A string is not yaml, contains more than plain values, or exceeds a limit of this file."""


class PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader, with errors for unknown tags and for what exceeds the limits above."""

    def __init__(self, stream: str | bytes | IO[str] | IO[bytes]) -> None:
        super().__init__(stream)
        self._num_nodes = self._level = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Returns the node of the next value of the text.

        Raises:
            YamlError: There are too many values, or they are nested too deeply.
        """
        self._num_nodes += 1
        self._level += 1
        if self._num_nodes > _MAX_NODES or self._level > _MAX_LEVELS:
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise YamlError(
                f"line {line}: more than {_MAX_NODES} values, or values nested more than "
                f"{_MAX_LEVELS} levels deep"
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        self._level -= 1
        return node

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """Returns an integer in any of yaml's notations.

        Raises:
            YamlError: The integer has more than 100 characters or does not fit into 64 bits.
        """
        text = str(self.construct_scalar(node))
        value = self.construct_yaml_int(node) if len(text) <= _MAX_DIGITS else None
        if value is None or value not in _INT64:
            raise YamlError(
                f"line {node.start_mark.line + 1}: the integer {text[:30]}... ({len(text)} "
                "characters) does not fit into 64 bits; write a smaller one, or a string in quotes"
            )
        return int(value)

    def construct_number(self, node: yaml.ScalarNode) -> float:
        """Returns a floating-point number.

        Raises:
            YamlError: The number has more than 100 characters.
        """
        text = str(self.construct_scalar(node))
        if len(text) > _MAX_DIGITS:
            raise YamlError(
                f"line {node.start_mark.line + 1}: the number {text[:30]}... has {len(text)} "
                f"characters; allowed: {_MAX_DIGITS}"
            )
        return float(self.construct_yaml_float(node))

    def construct_document(self, node: yaml.Node) -> Any:
        """Returns the values of a document.

        Raises:
            YamlError: There are too many values, or one contains itself.
        """
        _count(node, {})
        return super().construct_document(node)

    def refuse(self, node: yaml.Node) -> Any:
        """Raises a YamlError for a node whose tag has no constructor."""
        tag = str(node.tag).replace(_TAG_PREFIX, "!!")
        raise YamlError(
            f"line {node.start_mark.line + 1}: the tag {tag} stands for an object or for code and "
            "is refused; allowed: plain values without tags"
        )


PlainLoader.add_constructor(None, PlainLoader.refuse)
PlainLoader.add_constructor(f"{_TAG_PREFIX}int", PlainLoader.construct_integer)
PlainLoader.add_constructor(f"{_TAG_PREFIX}float", PlainLoader.construct_number)


def parse_yaml(text: str, loader: type[PlainLoader] = PlainLoader) -> Any:
    """Returns the plain values in a yaml string.

    Args:
        text: A single yaml document.
        loader: Loader class, for further tags or checks.

    Raises:
        YamlError: The string is not yaml, is too long, has tags that the loader does not know, has
            too many or too deeply nested values, a number that is too large or too long, or a value
            that contains itself.
    """
    if len(text) > MAX_BYTES["config"]:
        raise YamlError(f"{len(text)} characters; allowed: {MAX_BYTES['config']}")
    try:
        return yaml.load(text, loader)
    except _BROKEN as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise YamlError(f"not valid yaml: {reason}") from error


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Returns the number of values of a node, including those that aliases repeat.

    Args:
        node: Node to count.
        known: Counts of the nodes seen so far, by id; 0 for a node that is still being counted.

    Raises:
        YamlError: There are too many values, or one contains itself.
    """
    if known.get(id(node), 1) == 0:
        raise YamlError(f"line {node.start_mark.line + 1}: a value contains itself by an alias")
    if id(node) not in known:
        known[id(node)] = 0
        known[id(node)] = 1 + sum(_count(child, known) for child in _children(node))
    if known[id(node)] > MAX_VALUES:
        raise YamlError(
            f"line {node.start_mark.line + 1}: more than {MAX_VALUES} values, including those "
            "that aliases repeat; write the values without aliases"
        )
    return known[id(node)]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def parse_mapping(text: str) -> Mapping[str, Any]:
    """Returns the mapping in a yaml string.

    Raises:
        YamlError: The string is not valid for :func:`parse_yaml`, or is not a mapping.
    """
    values = parse_yaml(text)
    if not isinstance(values, dict):
        raise YamlError(f"a {type(values).__name__} instead of KEY: VALUE pairs")
    return values
