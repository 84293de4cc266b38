"""Candidate folders that are mirrored to a URI, for workers that share no disk."""

from __future__ import annotations

import logging
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3.errors import first_line
from fbnetv3.search.errors import StorageUnavailableError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_log = logging.getLogger(__name__)
_SCORES, _CHECKPOINT, _RESULT = "scores.json", "checkpoint_", "result.json"
"""Names of the records from which a training resumes; all checkpoints begin with the second one.

They are uploaded last and in this order: checkpoints follow the scores of their epochs, and the
result follows all other files, so that a file at the URI never refers to a missing one.
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
    """A local copy of a remote folder and its subfolders.

    Files that fail are logged, and do not keep others from being copied, with two exceptions. A
    record (scores, checkpoint or result) waits for the records before it. And if not even the
    remote folder can be listed after a failure, the error is raised, so that an unreachable server
    is asked once, not once per file.

    Names are relative to the folder, with ``/`` between their parts. Names with a part that begins
    with a dot are not copied.

    Args:
        files: File system of fsspec.
        remote: Path of the remote folder in that file system.
        local: Path of the local folder.
    """

    def __init__(self, files: AbstractFileSystem, remote: str, local: Path) -> None:
        self._files, self._remote, self._local = files, remote, local
        self._uploaded: dict[str, tuple[int, int]] = {}

    def pull(self) -> None:
        """Downloads the remote files, and deletes incomplete uploads from the remote folder.

        Raises:
            Exception: A record cannot be downloaded, or the remote folder cannot be listed.
        """
        self._files.invalidate_cache()
        if not self._files.isdir(self._remote):
            return
        for path in self._files.find(self._remote, detail=False):
            name = path[len(self._remote) :].removeprefix("/")
            try:
                self._pull_file(path, name)
            except Exception as error:  # drivers may raise anything
                self._raise_if_unreachable(error)
                if _rank(name):
                    raise
                _log.warning("cannot copy %s: %s; it is left out", path, first_line(error))

    def _pull_file(self, path: str, name: str) -> None:
        *folders, last = name.split("/")
        if any(_is_hidden(folder) for folder in folders) or not last:
            return  # another program's; an object store may hold any name, such as "../x" or "x/"
        if _is_hidden(last):
            self._files.rm_file(path)  # incomplete upload of a worker that died
            return
        target = self._local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._files.get_file(path, str(target))
        except Exception:
            target.unlink(missing_ok=True)  # a part of the file must not be uploaded later
            raise
        self._uploaded[name] = _version(target)

    def try_push(self) -> None:
        """Calls :meth:`push`. A failure is logged; the next call uploads what is missing."""
        try:
            self.push()
        except Exception as error:  # Drivers may raise anything, and the training must continue.
            self._warn(self._local.name, error)

    def push(self) -> None:
        """Uploads changed files and deletes removed ones; each upload is atomic.

        Raises:
            Exception: The remote folder cannot be created or listed.
        """
        paths = self._local_files()
        self._files.makedirs(self._remote, exist_ok=True)
        for name in sorted(paths, key=_upload_order):
            try:
                self._push_file(name, paths[name])
            except Exception as error:  # drivers may raise anything
                self._raise_if_unreachable(error)
                self._warn(f"{self._local.name}/{name}", error)
                if _rank(name):
                    return  # later records refer to it, and it may replace a file to delete
        self._delete_removed(paths)

    def _delete_removed(self, paths: Mapping[str, Path]) -> None:
        """Deletes uploaded files that are no longer among the local ones."""
        for name in [name for name in self._uploaded if name not in paths]:
            try:
                self._files.rm_file(f"{self._remote}/{name}")
            except FileNotFoundError:
                pass
            except Exception as error:  # drivers may raise anything
                self._raise_if_unreachable(error)
                _log.warning("cannot delete %s/%s: %s", self._remote, name, first_line(error))
                continue
            del self._uploaded[name]

    def _push_file(self, name: str, path: Path) -> None:
        """Uploads a file, unless its version at the URI is the same."""
        version = _version(path)
        if self._uploaded.get(name) == version:
            return
        folder, _, last = f"{self._remote}/{name}".rpartition("/")
        partial = f"{folder}/.{last}.{uuid.uuid4().hex}"
        self._files.makedirs(folder, exist_ok=True)
        try:
            self._files.put_file(str(path), partial)
            self._files.mv(partial, f"{folder}/{last}")
        except Exception:
            with suppress(Exception):
                self._files.rm_file(partial)
            raise
        self._uploaded[name] = version

    def _local_files(self) -> dict[str, Path]:
        """Returns the path of each local file by its name; linked folders are not entered."""
        paths: dict[str, Path] = {}
        for parent, folders, names in os.walk(self._local):
            folders[:] = [folder for folder in folders if not _is_hidden(folder)]
            for name in names:
                path = Path(parent, name)
                if path.is_file() and not _is_hidden(name):  # no socket, pipe or broken link
                    paths[path.relative_to(self._local).as_posix()] = path
        return paths

    def _raise_if_unreachable(self, error: Exception) -> None:
        """Raises the error of a file if the remote folder cannot be listed either."""
        try:
            self._files.ls(self._remote, detail=False)
        except FileNotFoundError:  # an object store has no empty folders
            return
        except Exception:
            raise error from None

    def _warn(self, name: str, error: Exception) -> None:
        _log.warning("cannot copy %s to %s: %s", name, self._remote, first_line(error))


def _is_hidden(part: str) -> bool:
    return part[:1] in ("", ".")


def _rank(name: str) -> int:
    """Returns the place of a record in the order of uploads, from 1; 0 for all other files."""
    if "/" in name:
        return 0
    if name.startswith(_CHECKPOINT):
        return 2
    return {_SCORES: 1, _RESULT: 3}.get(name, 0)


def _upload_order(name: str) -> tuple[int, str]:
    return _rank(name), name


def _version(path: Path) -> tuple[int, int]:
    """Returns modification time and size, by which a changed file is recognised."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size
