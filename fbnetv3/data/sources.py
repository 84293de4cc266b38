"""Image files in a folder with one subfolder per class, or in a zip archive of such a folder."""

from __future__ import annotations

import os
import stat
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fbnetv3 import io
from fbnetv3.data.decode import IMAGE_SUFFIXES, MAX_BYTES, read_image_file
from fbnetv3.data.errors import DataError, some

_SPLIT_NAMES = frozenset(("train", "val", "valid", "validation", "test"))
_LAYOUT = "images must be at CLASS/NAME.jpg"


class Source(ABC):
    """Image files in class folders.

    Attributes:
        path: Path of the folder or archive.
        classes: Names of the class folders, sorted.
        files: Posix path of each file relative to ``path``, sorted by class and name.
        targets: Index of each file's class in ``classes``.
    """

    def __init__(self, path: Path, names: Iterable[str], folders: Iterable[str]) -> None:
        """Sorts the files by class and name.

        Args:
            path: Path of the folder or archive.
            names: Posix paths of files relative to ``path``. Those outside of class folders and
                those that are not images are left out.
            folders: Names of the class folders.

        Raises:
            DataError: There are no class folders, a class folder has no images, or the folders are
                splits of a data set instead of classes.
        """
        self.path = path
        names = sorted({n for n in names if "/" in n and _is_image(n)})
        owners = [n.split("/", 1)[0] for n in names]
        self.classes = sorted({*owners, *folders})
        _check_classes(path, self.classes, set(owners))
        index = {c: i for i, c in enumerate(self.classes)}
        pairs = sorted((index[owner], name) for owner, name in zip(owners, names, strict=True))
        self.targets = [target for target, _ in pairs]
        self.files = [name for _, name in pairs]

    @abstractmethod
    def read(self, i: int) -> bytes:
        """Returns the content of file ``i``.

        Raises:
            DataError: The file cannot be read.
        """

    def file_name(self, i: int) -> str:
        """Returns the full path of file ``i``, as shown in error messages."""
        return f"{self.path}/{self.files[i]}"


class FolderSource(Source):
    """Image files below ``path/CLASS/``, at any depth."""

    def __init__(self, path: Path) -> None:
        names: list[str] = []
        for folder, subfolders, files in os.walk(path, followlinks=True, onerror=_raise):
            subfolders[:] = [s for s in subfolders if not _is_skipped(s) and not _loops(folder, s)]
            parent = Path(folder).relative_to(path).as_posix()
            names += [f"{parent}/{f}" for f in files if parent != "." and not _is_skipped(f)]
        with os.scandir(path) as entries:
            folders = [e.name for e in entries if e.is_dir() and not _is_skipped(e.name)]
        super().__init__(path, names, folders)

    def read(self, i: int) -> bytes:
        try:
            return read_image_file(self.path / self.files[i])
        except OSError as error:
            raise DataError(
                f"{self.file_name(i)}: cannot read the file ({error.strerror or error}); "
                "restore it, or set DATA.SKIP_BROKEN True"
            ) from error


class ZipSource(Source):
    """Image files in a zip archive, which are read without extracting them to disk.

    The class folders may be inside a single top-level folder of any name. Each process opens the
    archive itself, and several threads may read from one instance.
    """

    def __init__(self, path: Path) -> None:
        self._archive: zipfile.ZipFile | None = None
        self._pid = -1
        self._lock = threading.Lock()
        self.path = path
        entries = [i.filename for i in self._open().infolist()]
        entries = [e for e in entries if not any(map(_is_skipped, _parts(e)))]
        self._prefix = _common_top(entries)
        inside = [e.removeprefix(self._prefix) for e in entries if e.startswith(self._prefix)]
        # Folders may be stored as entries that end with a slash.
        folders = {_parts(e)[0] for e in inside if e.endswith("/")}
        super().__init__(path, (e for e in inside if not e.endswith("/")), folders)

    def read(self, i: int) -> bytes:
        archive = self._open()
        try:
            info = archive.getinfo(self._prefix + self.files[i])
            if stat.S_ISLNK(info.external_attr >> 16):
                raise zipfile.BadZipFile("it is a symbolic link")
            if info.file_size > MAX_BYTES:
                raise zipfile.BadZipFile(f"{info.file_size} bytes when extracted")
            return archive.read(info)
        except Exception as error:  # for example RuntimeError if the file is encrypted
            raise DataError(
                f"{self.file_name(i)}: cannot read the file from the archive "
                f"({' '.join(str(error).split())}); create or download the archive again, or set "
                "DATA.SKIP_BROKEN True"
            ) from error

    def _open(self) -> zipfile.ZipFile:
        """Returns the handle of this process; a forked handle would share its file position."""
        with self._lock:
            if self._archive is None or self._pid != os.getpid():
                self._archive = _open_zip(self.path)
                self._pid = os.getpid()
            return self._archive

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_archive", "_pid", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _archive=None, _pid=-1, _lock=threading.Lock())


def open_source(path: Path) -> Source:
    """Returns the image files of a folder, or of a zip archive, with one subfolder per class.

    Raises:
        DataError: The path is neither, or its images are not in class folders.
    """
    try:
        return FolderSource(path) if path.is_dir() else ZipSource(path)
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename or path} ({error.strerror or error}); check its "
            "permissions"
        ) from error


def _open_zip(path: Path) -> zipfile.ZipFile:
    with io.open_regular(path, io.MAX_BYTES["archive"]):
        pass  # a pipe or device raises an OSError
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path}: not a zip archive, or a damaged one ({error}); download it again, or give a "
            "folder with one subfolder per class"
        ) from error


def _raise(error: OSError) -> None:
    raise error


def _loops(folder: str, name: str) -> bool:
    """Returns whether a subfolder is a link to a folder that contains it."""
    path = os.path.join(folder, name)
    if not os.path.islink(path):
        return False
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(path))


def _parts(name: str) -> list[str]:
    return name.removesuffix("/").split("/")


def _is_skipped(name: str) -> bool:
    """Returns whether files and folders of this name are left out.

    These are hidden ones, the copies of macOS, and the empty first part of an absolute path.
    """
    return not name or name.startswith(".") or name == "__MACOSX"


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _common_top(entries: list[str]) -> str:
    """Returns ``TOP/`` if all images are in class folders of one top-level folder, else ``""``."""
    images = [_parts(e) for e in entries if _is_image(e) and not e.endswith("/")]
    tops = {p[0] for p in images}
    wrapped = len(tops) == 1 and all(len(p) > 2 for p in images)
    return f"{tops.pop()}/" if wrapped else ""


def _check_classes(path: Path, classes: list[str], with_images: set[str]) -> None:
    if not with_images:
        suffixes = ", ".join(sorted(s[1:] for s in IMAGE_SUFFIXES))
        raise DataError(f"{path}: no images in class folders; {_LAYOUT} (suffixes: {suffixes})")
    if set(classes) <= _SPLIT_NAMES:
        raise DataError(
            f"{path}: contains splits instead of classes; give one of them: {', '.join(classes)}"
        )
    empty = [c for c in classes if c not in with_images]
    if empty:
        raise DataError(
            f"{path}: class folder without images: {some(empty)}; add images or delete the folder"
        )
