"""Fetching weights into the cache: to a temporary name, checked, then renamed.

The cache is the folder that the environment's ``FBNETV3_CACHE`` names, else ``~/.cache/fbnetv3``.
Beside each file lies ``FILE.sha256`` (readable by ``sha256sum -c``): the hash that the record
states or, where it states none, the hash of the first download. Each use checks the file again.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

from iopath.common.file_io import HTTPURLHandler, PathHandler, PathManager, file_lock

from fbnetv3.io import atomic_write
from fbnetv3.resources import model_zoo_path
from fbnetv3.version import package_version
from fbnetv3.weights.errors import DownloadError, ZooError
from fbnetv3.weights.files import read_tensors, sha256_of
from fbnetv3.weights.progress import DownloadProgress
from fbnetv3.weights.records import WeightRecord, find_record

TIMEOUT = 30.0  # seconds without a byte
ZOO_SCHEME = "zoo://"
_CHUNK = 1 << 16
_SOCKET = (TimeoutError, ConnectionError)


def cache_dir() -> Path:
    """Returns the folder of downloaded weights (it may not exist yet)."""
    return Path(os.environ.get("FBNETV3_CACHE") or "~/.cache/fbnetv3").expanduser()


def package_dir() -> Path:
    """Returns the folder of packaged weights, of an installed package or of a checkout."""
    return model_zoo_path() / "weights"


def missing_weights(path: Path) -> str:
    """Returns the message for weights of the repository that are not installed."""
    return (
        f"weights {path} are missing: the file is part of the repository, not of the wheel; copy "
        f"model_zoo/weights/{path.name} of the repository to this path"
    )


def local_path(record: WeightRecord) -> Path:
    """Returns where the record's file is, or will be once fetched."""
    if record.path is not None:
        return package_dir() / record.path
    return cache_dir() / record.filename


def pin_path(path: Path) -> Path:
    """Returns the file that holds the hash of the cached file ``path``."""
    return path.with_name(path.name + ".sha256")


def known_sha256(record: WeightRecord) -> str | None:
    """Returns the hash that the record's file must have: the record's, else the pinned one."""
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
    """Checks a file's size, hash and form against the record.

    Returns:
        Its sha256.

    Raises:
        DownloadError: another size or hash than the record's.
        WeightsFileError: it can't be read as weights (looked at where no hash vouches for it).
    """
    size = path.stat().st_size
    if record.size is not None and size != record.size:
        raise DownloadError(f"it has {size} bytes, the record says {record.size}")
    expected, found = known_sha256(record), sha256_of(path)
    if expected is None:
        read_tensors(path)
    elif found != expected:
        raise DownloadError(f"its sha256 is {found}, expected {expected}")
    return found


def fetch(record: WeightRecord, *, timeout: float = TIMEOUT) -> Path:
    """Returns the record's file, downloaded on first use and checked on every use.

    Several processes may ask at once: one downloads, the others wait for it.

    Args:
        record: of the weights.
        timeout: seconds to wait for the server, for the connection and between bytes.

    Raises:
        DownloadError: no network, an error of the server, a file that is not what the record
            says. Nothing is left in the cache but what was there.
    """
    path = local_path(record)
    if record.path is not None:
        if not path.is_file():
            raise DownloadError(missing_weights(path))
        _check_existing(path, record)
        return path
    if not (path.is_file() and pin_path(path).is_file()):
        _fetch_locked(path, record, timeout)
    else:
        _check_existing(path, record)
    return path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lets one process at a time work on ``path``, and leaves no lock file behind.

    Who waits on the removed file while another makes a new one may work beside it: that costs
    a second download, and the rename keeps it harmless.
    """
    with file_lock(str(path)):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # some systems keep what is open
                Path(f"{path}.lock").unlink()


def _fetch_locked(path: Path, record: WeightRecord, timeout: float) -> None:
    try:
        with _locked(path):
            if path.is_file():  # another process was faster, or the user put it there
                found = _check_existing(path, record)
            else:
                found = _download(path, record, timeout)
            with atomic_write(pin_path(path)) as temporary:
                temporary.write_text(f"{found}  {path.name}\n", "utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise DownloadError(
            f"cannot use the cache {path.parent}: {reason}; set FBNETV3_CACHE to a writable folder"
        ) from error


def _check_existing(path: Path, record: WeightRecord) -> str:
    try:
        return check_file(path, record)
    except (ZooError, OSError) as error:
        again = f"delete it (and {pin_path(path).name}) to download again from {record.url}"
        what_to_do = again if record.url else "install fbnetv3 again"
        raise DownloadError(f"{path} is not {record.full_name}: {error}; {what_to_do}") from error


def _download(path: Path, record: WeightRecord, timeout: float) -> str:
    with atomic_write(path) as temporary:
        try:
            open_paths().get_local_path(str(record.url), target=temporary, timeout=timeout)
            return check_file(temporary, record)
        except ZooError as error:
            reason = str(error).replace(str(temporary), "the file")
            raise DownloadError(
                f"cannot get {record.full_name} from {record.url}: {reason}; "
                f"or download it by hand to {path}"
            ) from error


def _network_reason(error: Exception, timeout: float) -> str:
    if isinstance(error, HTTPError):
        return f"the server answers {error.code} {error.reason}"
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {timeout:g} s"
    return f"{getattr(cause, 'strerror', None) or cause or type(cause).__name__}"


def _copy(response: http.client.HTTPResponse, out: BinaryIO, label: str) -> None:
    length = response.headers.get("Content-Length")
    total, done = (int(length) if length else None), 0
    with DownloadProgress(label, total) as progress:
        while chunk := response.read(_CHUNK):
            out.write(chunk)
            done += len(chunk)
            progress.update(done)
    if total is not None and done != total:
        raise DownloadError(f"the connection ended after {done} of {total} bytes")


class CheckedHTTPHandler(HTTPURLHandler):
    """iopath's handler of http addresses with what it lacks: a timeout and a check of length."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["http://", "https://"]

    def _get_local_path(
        self,
        path: str,
        force: bool = False,
        target: str | os.PathLike[str] | None = None,
        timeout: float = TIMEOUT,
        **kwargs: Any,
    ) -> str:
        """Downloads ``path`` to ``target`` (default: its base name in the cache)."""
        self._check_kwargs(kwargs)
        target = Path(target or cache_dir() / Path(urlparse(path).path).name)
        agent = {"User-Agent": f"fbnetv3/{package_version()}"}
        request = urllib.request.Request(path, headers=agent)
        # what the network does and what the disk does are both OSErrors: tell them apart
        with open(target, "wb") as out:
            try:
                with urllib.request.urlopen(request, timeout=timeout) as response:
                    _copy(response, out, path.rpartition("/")[2])
            except (URLError, http.client.HTTPException, ssl.SSLError, *_SOCKET) as error:
                raise DownloadError(_network_reason(error, timeout)) from error
        return str(target)


class ZooHandler(PathHandler):
    """Makes ``zoo://NAME[.TAG]`` a path: that of the checked file in the cache."""

    def _get_supported_prefixes(self) -> list[str]:
        return [ZOO_SCHEME]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        return str(fetch(find_record(path.removeprefix(ZOO_SCHEME))))

    def _open(self, path: str, mode: str = "rb", buffering: int = -1, **kwargs: Any) -> Any:
        self._check_kwargs(kwargs)
        return open(self._get_local_path(path), mode, buffering)


@functools.cache
def open_paths() -> PathManager:
    """Returns the project's own path manager, which knows http(s) and ``zoo://`` addresses."""
    manager = PathManager()
    for handler in (CheckedHTTPHandler(), ZooHandler()):
        manager.register_handler(handler)
    return manager
