"""Writing files so that a reader sees the old content or the new, never a half."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
        WriteError: the folder or file can't be written, or the disk is full.
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


def check_writable(path: str | os.PathLike[str]) -> None:
    """Checks before long work that :func:`atomic_write` could write ``path``.

    The folder is made if it is missing.

    Raises:
        WriteError: the folder can't be written, or ``path`` is a folder.
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
