"""Candidates' folders at a URI, for workers that share no disk."""

from __future__ import annotations

import logging
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fbnetv3.search.errors import PlaceError

_log = logging.getLogger(__name__)
_LATE, _LAST = "checkpoint_", "result.json"
"""A checkpoint goes up after the scores of the epochs before it, and the result after all: what is
found has what it stands for."""


def is_uri(place: str) -> bool:
    """Tells ``s3://bucket/run`` from the path of a folder."""
    return "://" in place


class Mirror:
    """A place that fsspec knows, as ``s3://`` and ``file://``, by candidate.

    Args:
        uri: of the place.

    Raises:
        PlaceError: there is no such kind of place, or its driver is not installed.
    """

    def __init__(self, uri: str) -> None:
        import fsspec

        self._uri = uri
        try:
            # listings of an hour ago would miss what another node has written since
            self._files, self._root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        except Exception as error:  # drivers raise all kinds
            raise PlaceError(
                f"SEARCH.CANDIDATES={uri!r}: {error}; give a folder, or a URI that fsspec knows "
                "and has a driver for (s3://: pip install 'fbnetv3[s3]')"
            ) from error

    def check(self) -> None:
        """Writes a small file and removes it.

        Raises:
            PlaceError: that can't be done.
        """
        name = f"{self._root}/.probe_{uuid.uuid4().hex}"
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(name, b"fbnetv3")
            self._files.rm_file(name)
        except Exception as error:  # drivers raise all kinds
            raise self._error("written", error) from error

    @contextmanager
    def folder(self, name: str) -> Iterator[tuple[Path, Copy]]:
        """Yields a temporary folder with what the place holds of a candidate, and how to keep it.

        Args:
            name: of the candidate.

        Raises:
            PlaceError: the place can't be read.
        """
        with tempfile.TemporaryDirectory(prefix="fbnetv3_") as temporary:
            folder = Path(temporary) / name
            folder.mkdir()
            copy = Copy(self._files, f"{self._root}/{name}", folder)
            try:
                copy.pull()
            except Exception as error:  # drivers raise all kinds
                raise self._error("read", error) from error
            yield folder, copy

    def _error(self, verb: str, error: Exception) -> PlaceError:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return PlaceError(f"SEARCH.CANDIDATES={self._uri!r} can't be {verb}: {reason}")


class Copy:
    """A folder here, and what a place has of it.

    Args:
        files: fsspec's file system.
        there: path in it.
        here: the folder.
    """

    def __init__(self, files: Any, there: str, here: Path) -> None:
        self._files, self._there, self._here = files, there, here
        self._kept: dict[str, tuple[int, int]] = {}

    def pull(self) -> None:
        """Copies here what is there."""
        self._files.invalidate_cache()
        if not self._files.isdir(self._there):
            return
        for path in self._files.ls(self._there, detail=False):
            name = path.rsplit("/", 1)[-1]
            if name.startswith("."):
                self._files.rm_file(path)  # half of a file, of a worker that died
                continue
            self._files.get_file(path, str(self._here / name))
            self._kept[name] = _state(self._here / name)

    def try_push(self) -> None:
        """As :meth:`push`; what fails is logged, and done with the next one."""
        try:
            self.push()
        except Exception as error:  # drivers raise all kinds; a training is worth more than a copy
            _log.warning("%s could not be copied to %s: %s", self._here.name, self._there, error)

    def push(self) -> None:
        """Brings the place up to date: what changed, each file whole or not at all."""
        found = {path.name: path for path in self._here.iterdir() if path.name[0] != "."}
        self._files.makedirs(self._there, exist_ok=True)
        for name, path in sorted(found.items(), key=_turn):
            state = _state(path)
            if self._kept.get(name) == state:
                continue
            part = f"{self._there}/.{name}.{uuid.uuid4().hex}"
            self._files.put_file(str(path), part)
            self._files.mv(part, f"{self._there}/{name}")
            self._kept[name] = state
        for name in [name for name in self._kept if name not in found]:
            self._files.rm_file(f"{self._there}/{name}")
            del self._kept[name]


def _turn(item: tuple[str, Path]) -> tuple[bool, bool]:
    return item[0] == _LAST, item[0].startswith(_LATE)


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
