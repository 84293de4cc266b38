"""Opening of the image files at a path: shards, a folder, a zip archive or a table."""

from __future__ import annotations

from pathlib import Path

from fbnetv3.data.errors import DataError
from fbnetv3.data.shards import INDEX, ShardSource
from fbnetv3.data.sources import FolderSource, Source, ZipSource
from fbnetv3.data.tables import TABLES, TableSource


def open_source(path: Path) -> Source:
    """Returns the image files of shards, of class folders or a zip of them, or of a table.

    Args:
        path: Folder that ``fbnetv3-data pack`` has written, folder or archive of class folders, or
            CSV or Parquet file with the columns path and label, or path and labels.

    Raises:
        DataError: The path is none of these, cannot be read, or has content that is not allowed.
        MissingPackageError: pyarrow, which reads Parquet, is not installed.
    """
    try:
        if path.suffix.lower() in TABLES:
            return TableSource(path)
        if (path / INDEX).is_file():
            return ShardSource(path)
        return FolderSource(path) if path.is_dir() else ZipSource(path)
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename or path} ({error.strerror or error}); check its "
            "permissions"
        ) from error
