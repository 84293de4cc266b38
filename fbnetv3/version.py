"""The version of the installed package."""

from __future__ import annotations

from importlib import metadata


def package_version() -> str:
    """Returns the installed version, or ``0+unknown`` for a source tree that is not installed."""
    try:
        return metadata.version("fbnetv3")
    except metadata.PackageNotFoundError:
        return "0+unknown"
