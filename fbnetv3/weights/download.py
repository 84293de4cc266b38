"""Fetching weights from the package, or by download into a cache; every use checks the file.

The cache is the folder in the environment variable ``FBNETV3_CACHE``, by default
``~/.cache/fbnetv3``. Beside each file lies ``FILE.sha256`` (readable by ``sha256sum -c``) with the
hash that the record states, or if it states none, the hash that the file had on its first use (the
pinned hash). A file is downloaded to a temporary name, checked, and renamed only when it is
complete.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from fbnetv3.io import atomic_write, sha256_of
from fbnetv3.weights.errors import DownloadError, ZooError
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.packaged import copy_weights, missing_weights, package_dir
from fbnetv3.weights.records import WeightRecord
from fbnetv3.weights.transfer import Transfer

TIMEOUT = 30.0  # seconds
ZOO_SCHEME = "zoo://"


def cache_dir() -> Path:
    """Returns the folder of downloaded weights, which may not exist yet."""
    return Path(os.environ.get("FBNETV3_CACHE") or "~/.cache/fbnetv3").expanduser()


def local_path(record: WeightRecord) -> Path:
    """Returns the path of a record's file, whether or not it has been downloaded."""
    if record.path is not None:
        return package_dir() / record.path
    return cache_dir() / record.filename


def pin_path(path: Path) -> Path:
    """Returns the path of the ``.sha256`` file that belongs to the cached file ``path``."""
    return path.with_name(path.name + ".sha256")


def known_sha256(record: WeightRecord) -> str | None:
    """Returns the sha256 that a record's file must have: the record's own or the pinned one.

    Returns:
        64 hexadecimal digits, or None if the record states no hash and none is pinned yet.

    Raises:
        DownloadError: The file with the pinned hash cannot be read.
    """
    if record.sha256 is not None:
        return record.sha256
    pin = pin_path(local_path(record))
    try:
        return pin.read_text("utf-8").split()[0]
    except FileNotFoundError:
        return None
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise DownloadError(f"cannot read the pinned hash {pin}; delete that file") from error


def check_file(path: Path, record: WeightRecord) -> str:
    """Checks that a file is the one that a record describes.

    Args:
        path: Path of the file.
        record: Record with the expected size and sha256. If no sha256 is known, the file must be
            readable as weights.

    Returns:
        The file's sha256 as 64 hexadecimal digits.

    Raises:
        DownloadError: The size or the hash differs, or the pinned hash cannot be read.
        WeightsFileError: No hash is known, and the file cannot be read as weights.
        OSError: The file is missing or cannot be read.
    """
    size = path.stat().st_size
    if record.size is not None and size != record.size:
        raise DownloadError(f"it has {size} bytes, the record says {record.size}")
    expected, sha256 = known_sha256(record), sha256_of(path)
    if expected is None:
        read_tensors(path)
    elif sha256 != expected:
        raise DownloadError(f"its sha256 is {sha256}, expected {expected}")
    return sha256


def fetch(record: WeightRecord, *, timeout: float = TIMEOUT) -> Path:
    """Returns the path of a record's file, downloaded on first use and checked on every use.

    If several processes ask for the same file at once, one downloads it and the others wait (see
    :func:`_locked` for an exception).

    Args:
        record: Record of the weights.
        timeout: Seconds to wait for the connection and between bytes.

    Raises:
        DownloadError: The server cannot be reached or refuses, a packaged file is missing, the
            cache cannot be written, or the file is not the one that the record describes. The
            files in the cache are left as they were.
    """
    path = local_path(record)
    if record.path is not None and not path.is_file():
        raise DownloadError(missing_weights(path))
    if record.path is not None or (path.is_file() and pin_path(path).is_file()):
        _check_existing(path, record)
    else:
        _fetch_locked(path, record, timeout)
    return path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lets one process at a time work on ``path``, and leaves no lock file behind.

    If the lock file is removed while a second process waits for it, a third process may create a
    new one and run at the same time as the second. That costs at most one more download, and no
    file is damaged, because a finished file is put in place by an atomic rename.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = Path(f"{path}.lock")
    with FileLock(lock):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows cannot remove an open file
                lock.unlink()


def _fetch_locked(path: Path, record: WeightRecord, timeout: float) -> None:
    try:
        with _locked(path):
            if path.is_file():  # another process was faster, or the user put it there
                sha256 = _check_existing(path, record)
            else:
                sha256 = _download(path, record, timeout)
            with atomic_write(pin_path(path)) as temporary:
                temporary.write_text(f"{sha256}  {path.name}\n", "utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise DownloadError(
            f"cannot use the cache {path.parent}: {reason}; set FBNETV3_CACHE to a writable folder"
        ) from error


def _check_existing(path: Path, record: WeightRecord) -> str:
    try:
        return check_file(path, record)
    except (ZooError, OSError) as error:
        download_again = f"delete it and {pin_path(path).name} to download {record.url} again"
        remedy = download_again if record.url else copy_weights(path)
        raise DownloadError(
            f"{path} is not the file of {record.full_name}: {error}; {remedy}"
        ) from error


def _download(path: Path, record: WeightRecord, timeout: float) -> str:
    with atomic_write(path) as temporary:
        try:
            Transfer(str(record.url), temporary, timeout).run()
            return check_file(temporary, record)
        except ZooError as error:
            reason = str(error).replace(str(temporary), "the file")
            raise DownloadError(
                f"cannot download {record.full_name} from {record.url}: {reason}; try again, or "
                f"download it yourself to {path}"
            ) from error
