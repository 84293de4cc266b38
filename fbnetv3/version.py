"""The version of the installed package."""

from __future__ import annotations

from importlib import metadata


def package_version() -> str:
    """Returns the installed version, ``0+unknown`` where the source tree is used uninstalled."""
    try:
        return metadata.version("fbnetv3")
    except metadata.PackageNotFoundError:
        return "0+unknown"
