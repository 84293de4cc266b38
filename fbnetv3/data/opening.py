"""Opening of the image files at a path: shards, a folder or a zip archive."""

from __future__ import annotations

from pathlib import Path

from fbnetv3.data.errors import DataError
from fbnetv3.data.shards import INDEX, ShardSource
from fbnetv3.data.sources import FolderSource, Source, ZipSource


def open_source(path: Path) -> Source:
    """Returns the image files of shards, or of a folder or zip archive with one folder per class.

    Args:
        path: Folder that ``fbnetv3-data pack`` has written, or folder or archive of class folders.

    Raises:
        DataError: The path is none of these or unreadable, or ``find_classes`` refuses its folders.
    """
    try:
        if (path / INDEX).is_file():
            return ShardSource(path)
        return FolderSource(path) if path.is_dir() else ZipSource(path)
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename or path} ({error.strerror or error}); check its "
            "permissions"
        ) from error
