"""Image files below a folder or in an archive: which names are images, and which are ignored.

Data sets and ``fbnetv3-predict`` list files by these rules, so that both see the same images.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff", ".gif")
)
_SUFFIXES = tuple(IMAGE_SUFFIXES)
# Files and folders that operating systems add to a user's folders and archives.
_SYSTEM_NAMES = frozenset(("__macosx", "thumbs.db", "desktop.ini"))
_MAX_SUFFIXES = 5


def is_image(name: str) -> bool:
    """Returns whether a name has one of ``IMAGE_SUFFIXES``, in upper or lower case."""
    return name.lower().endswith(_SUFFIXES)


def is_passed_over(name: str) -> bool:
    """Returns whether files and folders with this name are ignored.

    These are names that begin with a dot, ``__MACOSX``, ``Thumbs.db`` and ``desktop.ini``, and the
    empty first part of an absolute path.
    """
    return not name or name.startswith(".") or name.lower() in _SYSTEM_NAMES


@dataclass(frozen=True)
class Listing:
    """The files and folders below a root, without those that are ignored.

    Attributes:
        files: Posix path of each file relative to the root, sorted.
        folders: Posix path of each folder relative to the root, sorted.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]

    @property
    def images(self) -> list[str]:
        """The files with the suffix of an image."""
        return [name for name in self.files if is_image(name)]

    @property
    def others(self) -> list[str]:
        """The files with another suffix."""
        return [name for name in self.files if not is_image(name)]


def list_folder(root: Path) -> Listing:
    """Lists the files below a folder, at any depth. Links are followed, except in circles.

    Raises:
        OSError: A folder cannot be read.
    """
    status = os.stat(root)
    files: list[str] = []
    folders: list[str] = []
    for name, is_folder in _entries(root, "", frozenset([(status.st_dev, status.st_ino)])):
        (folders if is_folder else files).append(name)
    return Listing(tuple(sorted(files)), tuple(sorted(folders)))


def _entries(
    folder: Path, prefix: str, ancestors: frozenset[tuple[int, int]]
) -> Iterator[tuple[str, bool]]:
    """Yields the path of each entry relative to the root, and whether it is a folder."""
    with os.scandir(folder) as scan:
        entries = [entry for entry in scan if not is_passed_over(entry.name)]
    for entry in entries:
        name = prefix + entry.name
        if not entry.is_dir():
            yield name, False
            continue
        status = entry.stat()
        identity = (status.st_dev, status.st_ino)
        if identity not in ancestors:  # otherwise it is a link to a folder that contains it
            yield name, True
            yield from _entries(folder / entry.name, f"{name}/", ancestors | {identity})


def list_archive(names: Iterable[str]) -> Listing:
    """Lists the files of an archive.

    Args:
        names: Names of the entries; those of folders end with a slash. Paths that lead out of the
            archive are ignored.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for name in names:
        parts = name.removesuffix("/").split("/")
        if any(map(is_passed_over, parts)):
            continue
        own = parts if name.endswith("/") else parts[:-1]
        folders.update("/".join(own[: depth + 1]) for depth in range(len(own)))
        if not name.endswith("/"):
            files.add(name)
    return Listing(tuple(sorted(files)), tuple(sorted(folders)))


def count_suffixes(names: Iterable[str]) -> str:
    """Returns the suffixes of files with their counts, such as ``.heic 12, .txt 1``.

    Args:
        names: Names or paths of files.
    """
    counts = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in names)
    listed = [f"{suffix} {count}" for suffix, count in counts.most_common(_MAX_SUFFIXES)]
    more = [f"{len(counts) - _MAX_SUFFIXES} more suffixes"] if len(counts) > _MAX_SUFFIXES else []
    return ", ".join(listed + more)
