"""Architecture tables as yaml: one row a line, as papers print them."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from fbnetv3 import plain_yaml
from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.spec import Arch
from fbnetv3.errors import did_you_mean

_FAMILY_KEYS = ("family", "source", "defaults", "width_divisor", "archs")


class _UniqueKeys(plain_yaml.PlainLoader):
    """A loader for which a key given twice is an error, not the last one's."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # the loader refuses it
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ArchError(f"given twice (line {line})", key=key.value, value=None)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str, *, file: str | None = None) -> Any:
    """Returns the plain data in yaml text.

    Raises:
        ArchError: it is not yaml, or a key is there twice.
    """
    try:
        return plain_yaml.parse_yaml(text, _UniqueKeys)
    except plain_yaml.YamlError as error:
        raise ArchError(
            f"not yaml of plain values: {error}", file=file, allowed="an architecture table in yaml"
        ) from None
    except ArchError as error:
        raise error.at(file=file) from None


def _flow(value: Any) -> str:
    """Returns ``value`` as yaml on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("...\n").strip()


def dump_arch(arch: Arch) -> str:
    """Returns an architecture as yaml, one row a line."""
    table = arch.to_dict()
    rows = table.pop("rows")
    head = [f"{key}: {_flow(value)}" for key, value in table.items()]
    return "\n".join([*head, "rows:", *(f"  - {_flow(row)}" for row in rows)]) + "\n"


def load_arch(path: str | os.PathLike[str]) -> Arch:
    """Reads one architecture from a yaml file.

    Raises:
        ArchError: the file cannot be read, or is not an architecture.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArchError(f"cannot read it: {reason}", file=str(path)) from None
    return Arch.from_yaml(text, file=str(path))


def parse_family(text: str, *, file: str) -> list[Arch]:
    """Returns the architectures of a family file.

    Its keys are ``family``, ``source`` (where the numbers are from), ``defaults`` (filled into
    rows whose op takes the key), ``width_divisor`` and ``archs`` (name to table).

    Raises:
        ArchError: names file, architecture, row, key, value and what is allowed.
    """
    family = parse_yaml(text, file=file)
    allowed = ", ".join(_FAMILY_KEYS)
    if not isinstance(family, Mapping) or not isinstance(family.get("archs"), Mapping):
        raise ArchError("a family is a mapping with archs", file=file, allowed=allowed)
    for key in family:
        if key not in _FAMILY_KEYS:
            hint = did_you_mean(str(key), _FAMILY_KEYS)
            raise ArchError(
                f"unknown key{hint}", file=file, key=key, value=family[key], allowed=allowed
            )
    shared = {key: family[key] for key in ("defaults", "width_divisor") if key in family}
    return [
        Arch.from_dict({"name": name, **shared, **table}, file=file)
        for name, table in family["archs"].items()
    ]


def builtin_families() -> dict[str, str]:
    """Returns file name to text of the family files inside the package."""
    folder = resources.files("fbnetv3.arch") / "families"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {f.name: f.read_text(encoding="utf-8") for f in files}
