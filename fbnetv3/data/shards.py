"""Image files in tar shards of the WebDataset layout, with random access by an index of offsets.

A folder of shards has tar files ``shard-00000.tar`` and so on, in which each image is a pair of
members ``KEY.jpg`` (or another suffix) and ``KEY.cls`` (the index of its class, as a number), and
the file ``shards.json``::

    {"format": 1, "classes": ["cat", "dog"], "shards": ["shard-00000.tar"],
     "files": ["cat/1.jpg", ...], "targets": [0, ...],
     "places": [[0, 512, 8731], ...]}

``places`` has the index of the shard, the offset in bytes and the size in bytes of each image file.
The images in the index have the order of the packed data set, whatever their order in the shards.
Programs that stream WebDatasets read the tar files and need no index.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fbnetv3.data.decode import MAX_BYTES
from fbnetv3.data.errors import DataError
from fbnetv3.data.sources import Source
from fbnetv3.io import MAX_BYTES as LIMITS
from fbnetv3.io import open_regular, read_text

INDEX = "shards.json"
FORMAT = 1
_MAX_OPEN = 128  # open shards per process; Linux usually allows 1,024 open files
_LISTS = ("classes", "shards", "files", "targets", "places")


class _OpenFiles:
    """The most recently read files, kept open; threads that share an instance take turns."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, tuple[int, ExitStack]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """Returns up to ``size`` bytes of a regular file.

        Raises:
            OSError: The file cannot be read.
        """
        with self._lock:
            if path not in self._files:
                if len(self._files) >= _MAX_OPEN:
                    self._files.popitem(last=False)[1][1].close()
                with ExitStack() as stack:
                    file = stack.enter_context(open_regular(path, LIMITS["archive"]))
                    self._files[path] = file.fileno(), stack.pop_all()
            self._files.move_to_end(path)
            # Forked processes share a file's position, which pread, unlike seek, does not use.
            return os.pread(self._files[path][0], size, offset)

    def close(self) -> None:
        """Closes all files."""
        with self._lock:
            for _, stack in self._files.values():
                stack.close()
            self._files.clear()

    def __reduce__(self) -> tuple[type[_OpenFiles], tuple[()]]:
        return _OpenFiles, ()  # copies in other processes open the files themselves

    def __del__(self) -> None:
        self.close()


class ShardSource(Source):
    """Image files in a folder of shards.

    Args:
        path: Folder that has shards and their index.

    Raises:
        DataError: The index is damaged, or of another format.
        OSError: The index cannot be read.
    """

    def __init__(self, path: Path) -> None:
        index = _read_index(path)
        super().__init__(path, index["classes"], index["files"], index["targets"])
        self._shards: list[str] = index["shards"]
        self._places: list[tuple[int, int, int]] = [tuple(place) for place in index["places"]]
        self._open_files = _OpenFiles()

    def read(self, i: int) -> bytes:
        shard, offset, size = self._places[i]
        path = self.path / self._shards[shard]
        try:
            data = self._open_files.read(path, offset, size)
        except OSError as error:
            raise DataError(
                f"{path}: cannot read the shard ({error.strerror or error}); restore it, or pack "
                "the images again"
            ) from error
        if len(data) != size:
            raise DataError(
                f"{path}: the shard ends before the image {self.files[i]}; restore it, or pack the "
                "images again"
            )
        return data

    def file_name(self, i: int) -> str:
        return f"{self.path / self._shards[self._places[i][0]]}/{self.files[i]}"


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads(read_text(path / INDEX, "index"))
    except (ValueError, RecursionError) as error:  # bytes that are not UTF-8, or not JSON
        raise _damaged(path, f"it is not JSON ({type(error).__name__})") from error
    problem = _problem(index)
    if problem:
        raise _damaged(path, problem)
    return dict(index)


def _damaged(path: Path, problem: str) -> DataError:
    return DataError(f"{path / INDEX}: {problem}; pack the images again with fbnetv3-data pack")


def _problem(index: Any) -> str:
    """Returns what is wrong with an index; empty if nothing is."""
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        return f"it is not an index of format {FORMAT}"
    lists: list[Any] = [index.get(name) for name in _LISTS]
    if not all(isinstance(values, list) for values in lists):
        return f"it lacks one of the lists {', '.join(_LISTS)}"
    classes, shards, files, targets, places = lists
    if not len(files) == len(targets) == len(places) > 0:
        return f"it has {len(files)} files, {len(targets)} targets and {len(places)} places"
    if not all(isinstance(name, str) for name in (*classes, *shards, *files)):
        return "a name is not a string"
    if len(set(classes)) != len(classes):
        return "a class occurs twice"
    if any(name in ("", ".", "..") or "/" in name or "\0" in name for name in shards):
        return "a shard is outside of the folder"
    if not all(_is_index(target, len(classes)) for target in targets):
        return f"a target is not a number from 0 to {len(classes) - 1}"
    if not all(_is_place(place, len(shards)) for place in places):
        return "a place is not a shard, an offset and a size"
    return ""


def _is_index(value: Any, count: int) -> bool:
    return type(value) is int and 0 <= value < count


def _is_place(place: Any, num_shards: int) -> bool:
    if not isinstance(place, list) or len(place) != 3:
        return False
    shard, offset, size = place
    is_size = _is_index(offset, LIMITS["archive"]) and _is_index(size, MAX_BYTES + 1)
    return _is_index(shard, num_shards) and is_size
