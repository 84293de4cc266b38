"""Image files in a folder with one subfolder per class, or in a zip archive of such a folder."""

from __future__ import annotations

import logging
import os
import stat
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fbnetv3 import io
from fbnetv3.data.decode import MAX_BYTES, read_image_file
from fbnetv3.data.errors import DataError
from fbnetv3.data.layout import find_classes
from fbnetv3.image_files import Listing, list_archive, list_folder

_log = logging.getLogger("fbnetv3")


class Source(ABC):
    """Image files with one class each.

    Attributes:
        path: Path of the folder or archive.
        classes: Names of the classes, in the order of their indices.
        files: Name of each file within the folder or archive, such as ``cat/1.jpg``.
        targets: Index of each file's class in ``classes``, or a tuple of several.
        is_multi_label: Whether the targets are tuples.
    """

    is_multi_label = False

    def __init__(
        self, path: Path, classes: Sequence[str], files: Sequence[str], targets: Sequence[Any]
    ) -> None:
        self.path = path
        self.classes, self.files, self.targets = list(classes), list(files), list(targets)

    @abstractmethod
    def read(self, i: int) -> bytes:
        """Returns the content of file ``i``.

        Raises:
            DataError: The file cannot be read.
        """

    @abstractmethod
    def file_name(self, i: int) -> str:
        """Returns the full path of file ``i``, as shown in error messages."""


class ClassFolderSource(Source):
    """Image files in class folders, sorted by class and name."""

    def __init__(self, path: Path, listing: Listing) -> None:
        """Sorts the files by class and name.

        Args:
            path: Path of the folder or archive.
            listing: Files and folders in it.

        Raises:
            DataError: There are no class folders, a class folder has no images, or the folders are
                splits of a data set instead of classes.
        """
        folders = find_classes(path, listing)
        super().__init__(path, folders.classes, folders.files, folders.targets)
        self._prefix = folders.prefix
        for note in folders.notes:
            _log.warning("%s", note)

    def file_name(self, i: int) -> str:
        return f"{self.path}/{self._prefix}{self.files[i]}"


class FolderSource(ClassFolderSource):
    """Image files in the class folders of a folder (see data/layout.py)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, list_folder(path))

    def read(self, i: int) -> bytes:
        try:
            return read_image_file(self.path / self._prefix / self.files[i])
        except OSError as error:
            raise DataError(
                f"{self.file_name(i)}: cannot read the file ({error.strerror or error}); "
                "restore it, or set DATA.SKIP_BROKEN True"
            ) from error


class ZipSource(ClassFolderSource):
    """Image files in a zip archive, which are read without extracting them to disk.

    Each process opens the archive itself, and several threads may read from one instance.
    """

    def __init__(self, path: Path) -> None:
        self._archive: zipfile.ZipFile | None = None
        self._pid = -1
        self._lock = threading.Lock()
        self.path = path
        super().__init__(path, list_archive(i.filename for i in self._open().infolist()))

    def read(self, i: int) -> bytes:
        archive = self._open()
        try:
            info = archive.getinfo(self._prefix + self.files[i])
            if stat.S_ISLNK(info.external_attr >> 16):  # the upper half is the Unix mode
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
        """Returns this process's handle; a forked one would share its parent's file position."""
        with self._lock:
            if self._archive is None or self._pid != os.getpid():
                self._archive = _open_zip(self.path)
                self._pid = os.getpid()
            return self._archive

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_archive", "_pid", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _archive=None, _pid=-1, _lock=threading.Lock())


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
