"""Image files below a folder or in an archive: which names are images, and which are ignored.

Data sets and ``fbnetv3-predict`` list files by these rules, so that both see the same images.
"""

from __future__ import annotations

import os
import stat
import threading
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fbnetv3 import io

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff", ".gif")
)
_SUFFIXES = tuple(IMAGE_SUFFIXES)
# Files and folders that operating systems add to a user's folders and archives.
_SYSTEM_NAMES = frozenset(("__macosx", "thumbs.db", "desktop.ini"))
_MAX_SUFFIXES = 5  # number of suffixes that a message lists


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
        inside = parts if name.endswith("/") else parts[:-1]
        folders.update("/".join(inside[: depth + 1]) for depth in range(len(inside)))
        if not name.endswith("/"):
            files.add(name)
    return Listing(tuple(sorted(files)), tuple(sorted(folders)))


def count_suffixes(names: Iterable[str]) -> str:
    """Returns the most frequent suffixes of files with counts, such as ``.heic 12, .txt 1``.

    At most five are listed; the number of the remaining suffixes follows.

    Args:
        names: Names or paths of files.
    """
    counts = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in names)
    listed = [f"{suffix} {count}" for suffix, count in counts.most_common(_MAX_SUFFIXES)]
    more = [f"{len(counts) - _MAX_SUFFIXES} more suffixes"] if len(counts) > _MAX_SUFFIXES else []
    return ", ".join(listed + more)


class ImageArchive:
    """A zip archive of images, which is read in place, without extracting it to disk.

    Each process opens the archive itself, and several threads may read from one instance.

    Args:
        path: Path of the archive, which is opened on first use.
        max_bytes: Largest size in bytes of an extracted file.
    """

    def __init__(self, path: Path, max_bytes: int = 1 << 30) -> None:
        self.path, self._max_bytes = path, max_bytes
        self._archive: zipfile.ZipFile | None = None
        self._pid = -1
        self._lock = threading.Lock()

    def listing(self) -> Listing:
        """Returns the files in the archive.

        Raises:
            OSError: The archive cannot be read, or is a pipe or device.
            BadZipFile, EOFError, ValueError, NotImplementedError: The file is no zip archive, or is
                damaged.
        """
        return list_archive(entry.filename for entry in self._open().infolist())

    def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Raises:
            Exception: The file cannot be read; zipfile raises errors of several kinds, such as
                RuntimeError for an encrypted file. Links and files that are too large are refused.
        """
        archive = self._open()
        info = archive.getinfo(name)
        if stat.S_ISLNK(info.external_attr >> 16):  # the upper half is the Unix mode
            raise zipfile.BadZipFile("it is a symbolic link")
        if info.file_size > self._max_bytes:
            raise zipfile.BadZipFile(
                f"it has {info.file_size} bytes when extracted; allowed: {self._max_bytes}"
            )
        return archive.read(info)

    def _open(self) -> zipfile.ZipFile:
        """Returns a handle that this process has opened.

        A handle from before a fork would share its file position with the parent process.
        """
        with self._lock:
            if self._archive is None or self._pid != os.getpid():
                with io.open_regular(self.path, io.MAX_BYTES["archive"]):
                    pass  # a pipe or device raises an OSError
                self._archive = zipfile.ZipFile(self.path)
                self._pid = os.getpid()
            return self._archive

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_archive", "_pid", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _archive=None, _pid=-1, _lock=threading.Lock())
