"""Labelled image files: the base class of all sources, and class folders on disk or in a zip.

The sources of shards, tables and data sets of Hugging Face are in ``shards.py``, ``tables.py`` and
``hugging_face.py``.
"""

from __future__ import annotations

import logging
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fbnetv3.data.decode import MAX_BYTES, read_image_file
from fbnetv3.data.errors import DataError
from fbnetv3.data.layout import find_classes
from fbnetv3.image_files import ImageArchive, Listing, list_folder

_log = logging.getLogger("fbnetv3")


class Source(ABC):
    """Labelled image files.

    Attributes:
        path: Path of the folder, archive or table; name of a data set of Hugging Face.
        classes: Names of the classes, in the order of their indices.
        files: Name of each file within the folder, archive or table, such as ``cat/1.jpg``.
        targets: Index of each file's class in ``classes``; if ``is_multi_label``, a tuple with the
            indices of any number of classes.
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
            DataError: There are no class folders, a class folder has no images, the folders are
                splits of a data set instead of classes, or the only folder has both images of its
                own and several subfolders with images.
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
    """Image files in a zip archive, which are read without extracting them to disk."""

    def __init__(self, path: Path) -> None:
        self._archive = ImageArchive(path, MAX_BYTES)
        super().__init__(path, _listing(self._archive))

    def read(self, i: int) -> bytes:
        try:
            return self._archive.read(self._prefix + self.files[i])
        except Exception as error:  # for example RuntimeError if the file is encrypted
            raise DataError(
                f"{self.file_name(i)}: cannot read the file from the archive "
                f"({' '.join(str(error).split())}); create or download the archive again, or set "
                "DATA.SKIP_BROKEN True"
            ) from error


def _listing(archive: ImageArchive) -> Listing:
    try:
        return archive.listing()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{archive.path}: not a zip archive, or a damaged one ({error}); download it again, or "
            "give a folder with one subfolder per class"
        ) from error
