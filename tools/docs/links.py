"""Paths of the repository's files in the documentation site, and the links between pages.

Pages of ``docs/`` lie at the top of the site; every other file lies below ``repository/`` under its
path in the repository. Links are rewritten, so that they work in a checkout and in the site.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS, REPOSITORY = "docs/", "repository/"
_LINK = re.compile(r"(?P<before>\]\()(?P<path>[^)#:\s]+)(?P<after>(?:#[^)\s]*)?\))")
_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def place_in_site(path: str) -> str:
    """Returns the path in the site of a file of the repository; both paths are relative."""
    return path.removeprefix(DOCS) if path.startswith(DOCS) else REPOSITORY + path


def place_in_repository(uri: str) -> str:
    """Returns the path in the repository of a file of the site; the inverse of `place_in_site`."""
    return uri.removeprefix(REPOSITORY) if uri.startswith(REPOSITORY) else DOCS + uri


def links_of(text: str, path: str) -> Iterator[str]:
    """Yields the files that a page links to, by their paths in the repository.

    Args:
        text: Markdown of the page.
        path: Path of the page in the repository.
    """
    for part in _CODE.split(text)[::2]:
        for link in _LINK.finditer(part):
            yield _target(link["path"], path)


def with_site_links(text: str, path: str) -> str:
    """Returns the Markdown of a page, with links that lead to the same files in the site.

    Args:
        text: Markdown of the page.
        path: Path of the page in the repository.
    """
    folder = posixpath.dirname(place_in_site(path))

    def replace(link: re.Match[str]) -> str:
        target = place_in_site(_target(link["path"], path))
        return f"{link['before']}{posixpath.relpath(target, folder or '.')}{link['after']}"

    parts = _CODE.split(text)
    parts[::2] = [_LINK.sub(replace, part) for part in parts[::2]]
    return "".join(parts)


def _target(link: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
