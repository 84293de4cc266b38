"""Writing of exported files by way of a temporary folder, with errors of one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from fbnetv3.errors import FBNetError, first_line
from fbnetv3.export.check import remove
from fbnetv3.export.errors import ExportError
from fbnetv3.io import WriteError


def write_file(format: str, write: Callable[[Path], None], path: Path) -> None:
    """Writes a file in a temporary folder, and moves all files written there to ``path``'s folder.

    Args:
        format: Name of the format in error messages.
        write: Function that writes the file, and files that belong to it beside it.
        path: The file; its folder is created.

    Raises:
        ExportError: ``write`` fails, with an error that is neither an FBNetError nor an OSError.
        WriteError: A file cannot be written.
        FBNetError: ``write`` raised it.
    """
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=folder) as temporary:
            _call(format, write, Path(temporary) / path.name)
            remove(path)
            for file in Path(temporary).iterdir():
                os.replace(file, folder / file.name)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


def _call(format: str, write: Callable[[Path], None], path: Path) -> None:
    try:
        write(path)
    except (FBNetError, OSError):
        raise
    except Exception as error:  # exporters raise errors of every kind
        raise ExportError(
            f"format {format}: the exporter cannot write this network "
            f"({type(error).__name__}: {first_line(error)}); choose another format"
        ) from error
