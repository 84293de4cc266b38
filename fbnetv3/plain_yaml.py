"""Reading of untrusted yaml: plain values of bounded size, without objects or code.

All yaml files of the project are read here, with PyYAML's safe loader. Tags such as
``!!python/object/apply:os.system`` give an error of one line. So do files of a few lines whose
nested aliases (``a: &a [x, x]``, ``b: [*a, *a]``, ...) stand for more values than fit into memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from fbnetv3.errors import FBNetError

MOST_VALUES = 1_000_000
_TAG_PREFIX = "tag:yaml.org,2002:"
# Errors of PyYAML, including those for values that do not fit their tag (!!bool 5, !!timestamp x)
# and for too deeply nested values.
_BROKEN = (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError)


class YamlError(FBNetError):
    """A text is not yaml, or holds more than plain values."""


class PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader with an error for tags, and a limit for the number of values."""

    def construct_document(self, node: yaml.Node) -> Any:
        """Returns the values of a document.

        Raises:
            YamlError: There are too many values, or one contains itself.
        """
        _count(node, {})
        return super().construct_document(node)

    def refuse(self, node: yaml.Node) -> Any:
        """Raises a YamlError for a node with a tag."""
        tag = str(node.tag).replace(_TAG_PREFIX, "!!")
        raise YamlError(
            f"line {node.start_mark.line + 1}: the tag {tag} stands for an object or for code and "
            "is refused; allowed: plain values without tags"
        )


PlainLoader.add_constructor(None, PlainLoader.refuse)


def parse_yaml(text: str, loader: type[PlainLoader] = PlainLoader) -> Any:
    """Returns the plain values in a yaml text.

    Args:
        text: Text of a single document.
        loader: Loader class, for further tags or checks.

    Raises:
        YamlError: The text is not yaml, has tags other than yaml's own, or too many values.
    """
    try:
        return yaml.load(text, loader)
    except _BROKEN as error:
        raise YamlError(f"not valid yaml: {' '.join(str(error).split())[:300]}") from error


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Returns the number of values of a node, including those that aliases repeat.

    Args:
        node: Node to count.
        known: Counts of the nodes seen so far, by id; 0 for those that are being counted.
    """
    if known.get(id(node), 1) == 0:
        raise YamlError(f"line {node.start_mark.line + 1}: a value contains itself by an alias")
    if id(node) not in known:
        known[id(node)] = 0
        known[id(node)] = 1 + sum(_count(child, known) for child in _children(node))
    if known[id(node)] > MOST_VALUES:
        raise YamlError(
            f"line {node.start_mark.line + 1}: more than {MOST_VALUES} values, including those "
            "that aliases repeat; write the values without aliases"
        )
    return known[id(node)]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def parse_mapping(text: str) -> Mapping[str, Any]:
    """Returns the mapping in a yaml text.

    Raises:
        YamlError: The text is not valid for :func:`parse_yaml`, or does not hold a mapping.
    """
    values = parse_yaml(text)
    if not isinstance(values, dict):
        raise YamlError(f"a {type(values).__name__} instead of KEY: VALUE pairs")
    return values
