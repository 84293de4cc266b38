"""Yaml that others wrote: plain values of bounded size. Nothing in it makes objects or runs code.

Every yaml of the project is read here. It is PyYAML's safe loader, with an error of one line for
tags (``!!python/object/apply:os.system``), and against files of a few lines whose aliases
(``a: &a [x, x]``, ``b: [*a, *a]``, ...) stand for more values than any memory holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from fbnetv3.errors import FBNetError

MOST_VALUES = 1_000_000
_TAG_PREFIX = "tag:yaml.org,2002:"
# what PyYAML raises of a value that its tag does not fit (!!bool 5, !!timestamp x), or of depth
_BROKEN = (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError)


class YamlError(FBNetError):
    """Text that is no yaml, or asks for more than plain values."""


class PlainLoader(yaml.SafeLoader):
    """The safe loader, which refuses tags by name and aliases that grow without bound."""

    def construct_document(self, node: yaml.Node) -> Any:
        """Makes the values of a document.

        Raises:
            YamlError: They are too many, or one holds itself.
        """
        _count(node, {})
        return super().construct_document(node)

    def refuse(self, node: yaml.Node) -> Any:
        """Raises a YamlError that names the tag."""
        tag = str(node.tag).replace(_TAG_PREFIX, "!!")
        raise YamlError(
            f"line {node.start_mark.line + 1}: the tag {tag} asks for an object or for code, "
            "which is never made or run; allowed are plain values: write the value itself"
        )


PlainLoader.add_constructor(None, PlainLoader.refuse)


def parse_yaml(text: str, loader: type[PlainLoader] = PlainLoader) -> Any:
    """Returns the plain values in yaml text.

    Args:
        text: Of one document.
        loader: For tags or checks of one's own.

    Raises:
        YamlError: It is no yaml, has a tag other than yaml's plain ones, or too many values.
    """
    try:
        return yaml.load(text, loader)
    except _BROKEN as error:
        raise YamlError(f"no yaml: {' '.join(str(error).split())[:300]}") from error


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Returns how many values a node stands for, those that aliases repeat included."""
    if known.get(id(node), 1) == 0:
        raise YamlError(f"line {node.start_mark.line + 1}: a value holds itself by an alias")
    if id(node) not in known:
        known[id(node)] = 0  # being counted
        known[id(node)] = 1 + sum(_count(child, known) for child in _children(node))
    if known[id(node)] > MOST_VALUES:
        raise YamlError(
            f"line {node.start_mark.line + 1}: more than {MOST_VALUES} values, with those that "
            "aliases repeat; write what is needed without aliases"
        )
    return known[id(node)]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def parse_mapping(text: str) -> Mapping[str, Any]:
    """Returns the KEY: VALUE pairs in yaml text.

    Raises:
        YamlError: It holds none; see :func:`parse_yaml`.
    """
    found = parse_yaml(text)
    if not isinstance(found, dict):
        raise YamlError(f"no KEY: VALUE pairs but a {type(found).__name__}")
    return found
