"""Architectures by name or yaml file. The built-in families are read on first use.

To add a built-in architecture, write its table into a file of ``arch/families``.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping
from functools import cache
from importlib import resources

from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.spec import Arch
from fbnetv3.arch.table_yaml import parse_yaml
from fbnetv3.errors import did_you_mean
from fbnetv3.io import read_text
from fbnetv3.registries import NETWORKS

_FAMILY_KEYS = ("family", "source", "defaults", "width_divisor", "archs")


def _read_arch(path: str | os.PathLike[str]) -> Arch:
    """Returns the architecture in a yaml file.

    Raises:
        ArchError: The file cannot be read, or does not hold an architecture.
    """
    try:
        text = read_text(path, "config")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArchError(f"cannot read the file: {reason}", file=str(path)) from None
    return Arch.from_yaml(text, file=str(path))


def parse_family(text: str, *, file: str) -> list[Arch]:
    """Returns the architectures of a family file.

    Its keys are ``family``, ``source`` (origin of the numbers), ``defaults`` (values for rows
    whose op accepts the key), ``width_divisor`` and ``archs`` (a mapping from name to table).

    Raises:
        ArchError: The file is not valid. The message names the architecture, the row, the key, its
            value and the allowed values, as far as the problem concerns them.
    """
    family = parse_yaml(text, file=file)
    allowed = ", ".join(_FAMILY_KEYS)
    if not isinstance(family, Mapping) or not isinstance(family.get("archs"), Mapping):
        problem = "a family must be a mapping with the key archs"
        raise ArchError(problem, file=file, allowed=allowed)
    for key in family:
        if key not in _FAMILY_KEYS:
            hint = did_you_mean(str(key), _FAMILY_KEYS)
            raise ArchError(
                f"unknown key{hint}", file=file, key=key, value=family[key], allowed=allowed
            )
    shared = {key: family[key] for key in ("defaults", "width_divisor") if key in family}
    archs = []
    for name, table in family["archs"].items():
        if not isinstance(table, Mapping):
            raise ArchError("a table must be a mapping", file=file, key=str(name), value=table)
        archs.append(Arch.from_dict({"name": name, **shared, **table}, file=file))
    return archs


def builtin_families() -> dict[str, str]:
    """Returns the text of each family file of the package, by file name."""
    folder = resources.files("fbnetv3.arch") / "families"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {f.name: f.read_text(encoding="utf-8") for f in files}


_REGISTERED: dict[str, Arch] = {}


@cache
def _builtin() -> dict[str, Arch]:
    """Returns the architectures of the family files, by name."""
    families = builtin_families().items()
    archs = [arch for file, text in families for arch in parse_family(text, file=file)]
    return {arch.name: arch for arch in archs}


def register_arch(arch: Arch) -> Arch:
    """Registers an architecture under its name, and returns it.

    Args:
        arch: The architecture. If the same architecture is registered already, nothing changes.

    Raises:
        ArchError: Another architecture has this name.
    """
    known = _builtin().get(arch.name) or _REGISTERED.get(arch.name)
    if known is not None and known != arch:
        raise ArchError("another architecture has this name", key="name", value=arch.name)
    _REGISTERED[arch.name] = arch
    return arch


def list_archs(pattern: str = "*") -> list[str]:
    """Returns the names of the known architectures that match a shell pattern, sorted."""
    return sorted(set(fnmatch.filter([*_builtin(), *_REGISTERED], pattern)))


def get_arch(name: str) -> Arch:
    """Returns the architecture of that name, or the one in a yaml file.

    Args:
        name: Name of a built-in or registered architecture, or path of a yaml file.

    Raises:
        ArchError: The name is unknown (the message has the known names and a similar one), or the
            file cannot be read or does not hold an architecture.
    """
    known = {**_builtin(), **_REGISTERED}
    if name in known:
        return known[name]
    if str(name).endswith((".yaml", ".yml")):
        return _read_arch(name)
    hint = did_you_mean(str(name).partition("?")[0], [*known, *NETWORKS])
    allowed = (
        "a path to a .yaml file, a name that a file of --import registers, or one of "
        f"{', '.join(sorted(known))}"
    )
    raise ArchError(f"unknown architecture{hint}", key="name", value=name, allowed=allowed)
