"""Names of architectures. The built-in families are read on first use."""

from __future__ import annotations

import fnmatch
from functools import cache

from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.files import builtin_families, load_arch, parse_family
from fbnetv3.arch.spec import Arch
from fbnetv3.errors import did_you_mean

_REGISTERED: dict[str, Arch] = {}


@cache
def _builtin() -> dict[str, Arch]:
    """Returns the architectures of the family files, by name."""
    families = builtin_families().items()
    archs = [arch for file, text in families for arch in parse_family(text, file=file)]
    return {arch.name: arch for arch in archs}


def register_arch(arch: Arch) -> Arch:
    """Makes an architecture known by its name, and returns it.

    Raises:
        ArchError: the name belongs to another architecture.
    """
    known = _builtin().get(arch.name) or _REGISTERED.get(arch.name)
    if known is not None and known != arch:
        raise ArchError("another architecture has this name", key="name", value=arch.name)
    _REGISTERED[arch.name] = arch
    return arch


def list_archs(pattern: str = "*") -> list[str]:
    """Returns the known names that match a shell pattern, sorted."""
    return sorted(set(fnmatch.filter([*_builtin(), *_REGISTERED], pattern)))


def get_arch(name: str) -> Arch:
    """Returns the architecture of that name, or the one in a ``.yaml`` file of that path.

    Raises:
        ArchError: the name is unknown (the message lists close ones), or the file is bad.
    """
    known = {**_builtin(), **_REGISTERED}
    if name in known:
        return known[name]
    if str(name).endswith((".yaml", ".yml")):
        return load_arch(name)
    hint = did_you_mean(str(name), known)
    allowed = f"a path to a .yaml file, or one of {', '.join(sorted(known))}"
    raise ArchError(f"unknown architecture{hint}", key="name", value=name, allowed=allowed)
