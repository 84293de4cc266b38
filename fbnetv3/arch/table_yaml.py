"""Reading and writing of architecture tables in yaml, one row per line as papers print them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import yaml

from fbnetv3 import plain_yaml
from fbnetv3.arch.errors import ArchError


class _UniqueKeys(plain_yaml.PlainLoader):
    """A yaml loader that refuses a key written twice, instead of using its last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # the base class raises an error for keys that are no scalars
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ArchError(f"duplicate key in line {line}", key=key.value, value=None)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str, *, file: str | None = None) -> Any:
    """Returns the plain values in a yaml string.

    Args:
        text: Yaml text.
        file: Name of the file in error messages.

    Raises:
        ArchError: The text is not yaml, or gives a key twice.
    """
    try:
        return plain_yaml.parse_yaml(text, _UniqueKeys)
    except plain_yaml.YamlError as error:
        raise ArchError(f"cannot read the table: {error}", file=file) from None
    except ArchError as error:
        raise error.at(file=file) from None


def _to_single_line(value: Any) -> str:
    """Returns ``value`` as a single line of yaml."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    # PyYAML ends a document that is a bare scalar with "...".
    return text.removesuffix("...\n").strip()


def dump_table(table: Mapping[str, Any]) -> str:
    """Returns an architecture's table (``Arch.to_dict()``) as yaml with one row per line."""
    table = dict(table)
    rows = table.pop("rows")
    head = [f"{key}: {_to_single_line(value)}" for key, value in table.items()]
    return "\n".join([*head, "rows:", *(f"  - {_to_single_line(row)}" for row in rows)]) + "\n"
