"""Writing files so that a reader sees the old content or the new, never a half."""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fbnetv3.errors import FBNetError


class WriteError(FBNetError):
    """A file could not be written: no permission, no space, no such folder."""


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; on success syncs and renames it to ``path``.

    The folder is made if it is missing. If the body raises, or the machine dies, ``path`` keeps
    its old content and the temporary file is removed (after a crash it may stay, as ``.NAME.*``).

    Raises:
        WriteError: The folder or file can't be written, or the disk is full.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(fd)
        temporary = Path(name)
        # mkstemp makes files that only the owner reads; keep what the umask would have given
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        yield temporary
        _fsync(temporary)
        os.replace(temporary, target)
        _fsync(target.parent)
    except OSError as error:
        raise _write_error(target, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def open_regular(path: str | os.PathLike[str], most: int) -> Iterator[BinaryIO]:
    """Yields a file that others made, open for reading.

    Args:
        path: Of the file; links are followed.
        most: Bytes it may have.

    Raises:
        OSError: It can't be read, is larger, or is a pipe or a device (which may never end).
    """
    # nonblocking: no pipe is waited for
    with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"{found.st_size} bytes; allowed: {most}", os.fspath(path))
        yield file


def refuse_links_out(folder: str | os.PathLike[str], patterns: Iterable[str]) -> None:
    """Checks before writing into a folder, perhaps of others, that what is written stays in it.

    :func:`atomic_write` takes the place of a link; what is opened for appending, and folders, would
    be followed.

    Args:
        folder: May be a link itself, or not exist yet.
        patterns: Of the names in it that will be written.

    Raises:
        WriteError: One is a link that leads out of the folder.
    """
    root, kinds = Path(folder).resolve(), tuple(patterns)
    for name in sorted(os.listdir(root)) if root.is_dir() else ():
        path = root / name
        if not path.is_symlink() or not any(fnmatch.fnmatchcase(name, kind) for kind in kinds):
            continue
        if not path.resolve().is_relative_to(root):
            raise WriteError(
                f"cannot write into {folder}: {name} is a link out of it, to {os.readlink(path)}; "
                "remove the link, or choose another OUTPUT_DIR"
            )


def check_writable(path: str | os.PathLike[str]) -> None:
    """Checks before long work that :func:`atomic_write` could write ``path``.

    The folder is made if it is missing.

    Raises:
        WriteError: The folder can't be written, or ``path`` is a folder.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise _write_error(target, error) from error


def _write_error(target: Path, error: OSError) -> WriteError:
    reason = error.strerror or str(error)
    return WriteError(f"cannot write {target}: {reason}; free space or choose a writable folder")
