"""Writing of exported files by way of a temporary folder, with errors of one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from fbnetv3.errors import FBNetError, first_line
from fbnetv3.export.check import files_of, with_format
from fbnetv3.export.errors import ExportError
from fbnetv3.io import WriteError

T = TypeVar("T")


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
    write_checked(format, write, path, lambda file: None)


def write_checked(
    format: str, write: Callable[[Path], None], path: Path, check: Callable[[Path], T]
) -> T:
    """Writes a file in a temporary folder, checks it there, and then moves it to its place.

    Until the check has passed, an earlier file at ``path`` and the files that belong to it stay as
    they are, also if the process is interrupted.

    Args:
        format: Name of the format in error messages.
        write: Function that writes the file, and files that belong to it beside it.
        path: The file; its folder is created.
        check: Function that is called with the file in the temporary folder.

    Returns:
        The result of ``check``.

    Raises:
        ExportError: ``write`` fails, with an error that is neither an FBNetError nor an OSError, or
            ``check`` fails, with an error that is no FBNetError.
        WriteError: A file cannot be written.
        FBNetError: ``write`` or ``check`` raised it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
            written, former = Path(temporary, "written"), Path(temporary, "former")
            written.mkdir()
            former.mkdir()
            _call(format, write, written / path.name)
            result = _checked(format, check, written / path.name)
            _move(written, path, former)
            return result
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


def _move(written: Path, path: Path, former: Path) -> None:
    """Moves files to the folder of ``path``, and its former files to the folder ``former``.

    On an error or an interruption, all files are moved back, so that files that belong together are
    never of two exports.
    """
    new, folder = sorted(written.iterdir()), path.parent
    try:
        for file in files_of(path):
            os.replace(file, former / file.name)
        for file in new:
            os.replace(file, folder / file.name)
    except BaseException:
        for file in new:
            if not file.exists():
                os.replace(folder / file.name, file)
        for file in former.iterdir():
            os.replace(file, folder / file.name)
        raise


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


def _checked(format: str, check: Callable[[Path], T], path: Path) -> T:
    try:
        return check(path)
    except Exception as error:  # runtimes raise errors of every kind
        raise with_format(format, error) from error
