"""Packing of a data set into shards, which :mod:`fbnetv3.data.shards` describes and reads."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fbnetv3.data.dataset import ImageDataset
from fbnetv3.data.decode import decode_rgb, shown_size_of
from fbnetv3.data.errors import DataError
from fbnetv3.data.shards import FORMAT, INDEX
from fbnetv3.io import WriteError, atomic_write, flush_to_disk

_ORDER_SEED = 0
_HEADER = 512  # bytes of a tar member before its content
_CHUNK = 256  # images in memory at a time
_MAX_THREADS = 16


@dataclass(frozen=True)
class PackOptions:
    """How images are packed.

    Attributes:
        short_side: Largest short side in pixels. Larger images are reduced to it, turned
            upright and written as JPEG files; 0 keeps all files as they are.
        quality: Quality of the JPEG files of reduced images, from 1 to 100.
        shard_bytes: Size in bytes after which a new shard begins.

    Raises:
        DataError: A number is out of its range.
    """

    short_side: int = 0
    quality: int = 95
    shard_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("short side", self.short_side, 0, 1 << 16),
            ("quality", self.quality, 1, 100),
            ("size of a shard", self.shard_bytes, 1, 1 << 40),
        ):
            if not low <= value <= high:
                raise DataError(f"the {name} is {value}; allowed: {low} to {high}")


def pack(
    dataset: ImageDataset,
    folder: Path,
    options: PackOptions | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> int:
    """Writes a data set as shards.

    Everything is written into a hidden folder next to ``folder``, which is renamed to ``folder`` at
    the end, so that ``folder`` never holds a part of a data set. The images are shuffled with a
    fixed seed, for programs that read the shards sequentially.

    Args:
        dataset: Data set to pack.
        folder: Folder to create; it must not exist yet or must be empty.
        options: Sizes and quality; None uses the defaults.
        advance: Function that is called with the number of images written since its last call.

    Returns:
        The number of shards.

    Raises:
        DataError: The folder is not empty, an image cannot be read, or images have several labels.
        WriteError: The disk is full, or the folder cannot be written.
    """
    options = options or PackOptions()
    if dataset.is_multi_label:
        raise DataError(f"{dataset.name} has several labels per image, which shards do not hold")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists already; choose a new folder, or delete it first")
    try:
        with _new_folder(folder) as temporary:
            return _write(dataset, temporary, options, advance)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(
            f"cannot write {folder}: {reason}; free space or choose a writable folder"
        ) from error


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder, which is renamed to ``folder`` on success and removed otherwise."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
        umask = os.umask(0)  # the umask can be read only by setting it
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)  # mkdtemp makes folders that only their owner can read
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    dataset: ImageDataset, folder: Path, options: PackOptions, advance: Callable[[int], None]
) -> int:
    # Unlike numpy's Generator, RandomState has the same streams in every version of numpy.
    order = np.random.RandomState(_ORDER_SEED).permutation(len(dataset)).tolist()
    places: list[tuple[int, int, int]] = [(0, 0, 0)] * len(dataset)
    shards = _Shards(folder, options.shard_bytes)
    try:
        for i, (suffix, data) in zip(order, _contents(dataset, order, options), strict=True):
            places[i] = shards.add(f"{i:08}", suffix, data, dataset.targets[i])
            advance(1)
    finally:
        shards.close()
    index = {
        "format": FORMAT,
        "classes": dataset.classes,
        "shards": shards.names,
        "files": [dataset.short_name(i) for i in range(len(dataset))],
        "targets": dataset.targets,
        "places": places,
    }
    with atomic_write(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(index), encoding="utf-8")
    return len(shards.names)


class _Shards:
    """Writes tar files one after the other."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self.names: list[str] = []
        self._folder, self._shard_bytes = folder, shard_bytes
        self._tar: tarfile.TarFile | None = None

    def add(self, key: str, suffix: str, data: bytes, target: int) -> tuple[int, int, int]:
        """Writes an image and its class; returns shard, offset and size of the image."""
        if self._tar is None or self._tar.offset >= self._shard_bytes:
            self.close()
            self.names.append(f"shard-{len(self.names):05}.tar")
            # The ustar format has one header of 512 bytes for each member.
            path = self._folder / self.names[-1]
            self._tar = tarfile.TarFile(path, "w", format=tarfile.USTAR_FORMAT)
        offset = self._tar.offset + _HEADER
        self._member(f"{key}{suffix}", data)
        self._member(f"{key}.cls", str(target).encode())
        return len(self.names) - 1, offset, len(data)

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)  # without time and owner: the same images make the same bytes
        info.size = len(data)
        assert self._tar is not None
        self._tar.addfile(info, io.BytesIO(data))

    def close(self) -> None:
        """Ends the current tar file, if there is one."""
        if self._tar is not None:
            tar, self._tar = self._tar, None
            tar.close()
            flush_to_disk(self._folder / self.names[-1])


def _contents(
    dataset: ImageDataset, order: Sequence[int], options: PackOptions
) -> Iterator[tuple[str, bytes]]:
    """Yields suffix and content of each file in ``order``; images are reduced in threads."""

    def content(i: int) -> tuple[str, bytes]:
        suffix, data = dataset.content(i)
        if not options.short_side:
            return suffix, data
        reduced = _reduced(data, dataset.file_name(i), options)
        return (suffix, data) if reduced is None else (".jpg", reduced)

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(order), _CHUNK):
            yield from pool.map(content, order[start : start + _CHUNK])


def _reduced(data: bytes, name: str, options: PackOptions) -> bytes | None:
    """Returns the content of a reduced JPEG file; None if the image needs no reduction."""
    width, height = shown_size_of(data, name)
    if min(width, height) <= options.short_side:
        return None
    scale = options.short_side / min(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = decode_rgb(data, name).resize(size, Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=options.quality)
    return out.getvalue()
