"""Atomic writing of files, and safe reading and writing in untrusted folders."""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fbnetv3.errors import FBNetError

MAX_BYTES = {
    "config": 2**20,  # all yaml: configs, architectures and spaces
    "code": 2**24,  # files of --import
    "record": 2**24,  # the small json files of a run
    "latency table": 2**26,
    "warm start": 2**26,
    "metrics": 2**28,
    "log": 2**28,  # a batch in the log of a search, compressed or not: about 30,000 trials
    "index": 2**30,  # the index of a sharded data set: 2**26 for ImageNet
    "annotations": 2**32,  # COCO 2017 has 2**29
    "storage": 2**32,  # a SQLite file that is read from a copy: about a million trials
    "weights": 2**36,
    "archive": 2**44,
}
"""Largest size in bytes of untrusted files, by kind; for images see ``data/decode.py``."""

_DISK_ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
    errno.ENOTCONN,
)


class WriteError(FBNetError):
    """A file cannot be written, for example because permission or disk space is missing."""


def is_disk_fault(error: BaseException) -> bool:
    """Returns whether an error says that a disk is full, read-only, not accessible, broken or gone.

    Errors about missing files and about connections that were refused or reset, which are OSErrors
    as well, do not count.
    """
    return isinstance(error, OSError) and error.errno in _DISK_ERRNOS


def flush_to_disk(path: Path) -> None:
    """Waits until the content of a file or folder is on its disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path next to ``path``, which replaces ``path`` on success.

    A reader sees either the old content or the whole new one. A missing folder is created. If the
    ``with`` block raises an error, or the machine crashes before its end, ``path`` keeps its old
    content. The temporary file is removed; after a crash it may remain as ``.NAME.*``.

    Args:
        path: File to write.

    Raises:
        WriteError: The folder or file cannot be written, or the disk is full. Errors of the block
            that concern another file, or a connection, are raised as they are.
    """
    target = Path(path)
    temporary: Path | None = None
    is_foreign = False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(fd)
        temporary = Path(name)
        _set_default_permissions(temporary)
        try:
            yield temporary
        except OSError as error:
            is_foreign = _concerns_another(error, temporary)
            raise
        flush_to_disk(temporary)
        os.replace(temporary, target)
        flush_to_disk(target.parent)
    except OSError as error:
        if is_foreign:
            raise
        raise _write_error(target, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _set_default_permissions(path: Path) -> None:
    """Gives a file the permissions of other new files; mkstemp lets only its owner read it."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


@contextmanager
def open_regular(path: str | os.PathLike[str], max_bytes: int) -> Iterator[BinaryIO]:
    """Yields an untrusted file, opened for reading.

    Args:
        path: File to read; links are followed.
        max_bytes: Largest allowed size in bytes.

    Raises:
        OSError: The file cannot be read, is larger than ``max_bytes``, or is no regular file: a
            folder, or a pipe or device, which may be endless.
    """
    _check_regular(os.stat(path), path)  # first, since opening has side effects on some devices
    # In non-blocking mode, opening a pipe does not wait for its other end.
    with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        _check_regular(status, path)
        if status.st_size > max_bytes:
            message = f"{status.st_size} bytes; allowed: {max_bytes}"
            raise OSError(errno.EFBIG, message, os.fspath(path))
        yield file


def _check_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    """Raises OSError if a file is a pipe, a device, a socket or a folder."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


def read_file(path: str | os.PathLike[str], kind: str) -> bytes:
    """Returns the content of an untrusted file.

    Args:
        path: File to read; links are followed.
        kind: Key of :data:`MAX_BYTES`.

    Raises:
        OSError: The file cannot be read, is larger than files of its kind may be, or is no regular
            file.
    """
    with open_regular(path, MAX_BYTES[kind]) as file:
        return file.read()


def read_text(path: str | os.PathLike[str], kind: str, errors: str = "strict") -> str:
    """Returns the text of an untrusted UTF-8 file, with ``\\n`` at the ends of its lines.

    Args:
        path: File to read; links are followed.
        kind: Key of :data:`MAX_BYTES`.
        errors: Handling of bytes that are not UTF-8, as of :meth:`bytes.decode`.

    Raises:
        OSError: See :func:`read_file`.
        UnicodeDecodeError: The file is not UTF-8, and ``errors`` is ``strict``.
    """
    text = read_file(path, kind).decode("utf-8", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Returns the sha256 of a file as 64 hexadecimal digits.

    Raises:
        OSError: The file cannot be read, is larger than weights may be, or is no regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path, MAX_BYTES["weights"]) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def refuse_links_out(folder: str | os.PathLike[str], patterns: Iterable[str]) -> None:
    """Checks that writing into a possibly untrusted folder cannot change files outside of it.

    :func:`atomic_write` replaces a link, but appending, or writing into a subfolder, follows it.
    Pipes, devices and sockets are refused too, since opening one may wait forever or fail.

    Args:
        folder: Folder to check, which may be a link itself or not exist yet.
        patterns: Shell patterns of the names that will be written.

    Raises:
        WriteError: A matching name is a link that leads out of the folder, a pipe, a device or a
            socket.
    """
    root, kinds = Path(folder).resolve(), tuple(patterns)
    for name in sorted(os.listdir(root)) if root.is_dir() else ():
        path = root / name
        if not any(fnmatch.fnmatchcase(name, kind) for kind in kinds):
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise WriteError(
                f"cannot write into {folder}: {name} is a link to {os.readlink(path)}, outside of "
                "the folder; remove the link or choose another OUTPUT_DIR"
            )
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise WriteError(
                f"cannot write into {folder}: {name} is a pipe, a device or a socket; remove it or "
                "choose another OUTPUT_DIR"
            )


def check_writable(path: str | os.PathLike[str]) -> None:
    """Checks that :func:`atomic_write` can write ``path``, and creates its folder if it is missing.

    Long computations call it before they start.

    Raises:
        WriteError: The folder cannot be written to, or ``path`` is a folder.
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


def _concerns_another(error: OSError, path: Path) -> bool:
    """Returns whether an error is about another file than ``path``, or about a connection."""
    if error.errno is None or isinstance(error, (ConnectionError, TimeoutError)):
        return True  # requests and urllib raise OSErrors without a number
    names = [name for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return bool(names) and all(Path(os.fsdecode(name)) != path for name in names)


def _write_error(target: Path, error: OSError) -> WriteError:
    reason = error.strerror or str(error)
    return WriteError(f"cannot write {target}: {reason}; free space or choose a writable folder")
