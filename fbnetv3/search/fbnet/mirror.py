"""Candidate folders that are mirrored to a URI, for workers that share no disk."""

from __future__ import annotations

import logging
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3.errors import first_line
from fbnetv3.search.errors import StorageUnavailableError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_log = logging.getLogger(__name__)
_CHECKPOINT, _RESULT = "checkpoint_", "result.json"
"""Prefix of checkpoints and name of the result, which are uploaded last.

Checkpoints follow the scores of their epochs, and the result follows all other files, so that a
file at the URI never refers to a missing one.
"""


def is_uri(place: str) -> bool:
    """Returns whether a location is a URI such as ``s3://bucket/run`` rather than a path."""
    return "://" in place


class Mirror:
    """A folder at a URI, with one subfolder per candidate.

    Args:
        uri: URI that fsspec supports, such as ``s3://bucket/run`` or ``file:///path``.

    Raises:
        StorageUnavailableError: The URI's scheme is unknown, or its driver is not installed.
    """

    def __init__(self, uri: str) -> None:
        import fsspec

        self._uri = uri
        try:
            # A cached listing would miss files that another node has written since.
            self._files, self._root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        except Exception as error:  # drivers may raise anything
            raise StorageUnavailableError(
                f"SEARCH.CANDIDATES={uri!r}: {error}; give a folder, or a URI for which fsspec has "
                "a driver (s3://: pip install 'fbnetv3[s3]')"
            ) from error

    def check(self) -> None:
        """Writes a small file and deletes it.

        Raises:
            StorageUnavailableError: The URI cannot be written to.
        """
        name = f"{self._root}/.probe_{uuid.uuid4().hex}"
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(name, b"fbnetv3")
            self._files.rm_file(name)
        except Exception as error:  # drivers may raise anything
            raise self._error("write", error) from error

    def existing(self, names: Iterable[str]) -> Iterator[str]:
        """Yields the names of subfolders that exist, in the given order.

        Raises:
            StorageUnavailableError: The URI cannot be read.
        """
        for name in names:
            try:
                is_there = self._files.isdir(f"{self._root}/{name}")
            except Exception as error:  # drivers may raise anything
                raise self._error("read", error) from error
            if is_there:
                yield name

    @contextmanager
    def folder(self, name: str) -> Iterator[tuple[Path, Copy]]:
        """Yields the path of a temporary copy of a candidate's folder, and its :class:`Copy`.

        Args:
            name: Name of the candidate.

        Raises:
            StorageUnavailableError: The URI cannot be read.
        """
        with tempfile.TemporaryDirectory(prefix="fbnetv3_") as temporary:
            folder = Path(temporary) / name
            folder.mkdir()
            copy = Copy(self._files, f"{self._root}/{name}", folder)
            try:
                copy.pull()
            except Exception as error:  # drivers may raise anything
                raise self._error("read", error) from error
            yield folder, copy

    def _error(self, action: str, error: Exception) -> StorageUnavailableError:
        return StorageUnavailableError(
            f"cannot {action} SEARCH.CANDIDATES={self._uri!r}: {first_line(error)}"
        )


class Copy:
    """A local copy of a remote folder.

    Args:
        files: File system of fsspec.
        remote: Path of the remote folder in that file system.
        local: Path of the local folder.
    """

    def __init__(self, files: AbstractFileSystem, remote: str, local: Path) -> None:
        self._files, self._remote, self._local = files, remote, local
        self._uploaded: dict[str, tuple[int, int]] = {}

    def pull(self) -> None:
        """Downloads the remote files, and deletes incomplete uploads from the remote folder."""
        self._files.invalidate_cache()
        if not self._files.isdir(self._remote):
            return
        for path in self._files.ls(self._remote, detail=False):
            name = path.rsplit("/", 1)[-1]
            if name.startswith("."):
                self._files.rm_file(path)  # incomplete upload of a worker that died
                continue
            self._files.get_file(path, str(self._local / name))
            self._uploaded[name] = _version(self._local / name)

    def try_push(self) -> None:
        """Calls :meth:`push`. A failure is logged; the next call uploads what is missing."""
        try:
            self.push()
        except Exception as error:  # Drivers may raise anything, and the training must continue.
            _log.warning("cannot copy %s to %s: %s", self._local.name, self._remote, error)

    def push(self) -> None:
        """Uploads changed files and deletes removed ones; each upload is atomic."""
        paths = {path.name: path for path in self._local.iterdir() if path.name[0] != "."}
        self._files.makedirs(self._remote, exist_ok=True)
        for name in sorted(paths, key=_upload_order):
            version = _version(paths[name])
            if self._uploaded.get(name) == version:
                continue
            partial = f"{self._remote}/.{name}.{uuid.uuid4().hex}"
            self._files.put_file(str(paths[name]), partial)
            self._files.mv(partial, f"{self._remote}/{name}")
            self._uploaded[name] = version
        for name in [name for name in self._uploaded if name not in paths]:
            self._files.rm_file(f"{self._remote}/{name}")
            del self._uploaded[name]


def _upload_order(name: str) -> tuple[bool, bool]:
    return name == _RESULT, name.startswith(_CHECKPOINT)


def _version(path: Path) -> tuple[int, int]:
    """Returns modification time and size, by which a changed file is recognised."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size
