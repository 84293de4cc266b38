"""Packing of a data set into shards, which :mod:`fbnetv3.data.shards` describes and reads."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fbnetv3.data.dataset import ImageDataset
from fbnetv3.data.decode import decode_rgb, shown_size_of
from fbnetv3.data.errors import DataError
from fbnetv3.data.shards import FORMAT, INDEX
from fbnetv3.io import WriteError, atomic_write, flush_to_disk, read_text

Place = tuple[int, int, int]  # index of the shard, offset and size of an image file in bytes
_FINGERPRINT = "fingerprint"  # file in the hidden folder
_ORDER_SEED = 0
_HEADER = 512  # bytes of a tar member before its content
_CHUNK = 256  # images in memory at a time
_MAX_THREADS = 16  # largest number of threads that read and reduce images


@dataclass(frozen=True)
class PackOptions:
    """Sizes of images and shards, and quality of reduced images.

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

    Everything is written into the hidden folder ``.NAME.partial`` next to ``folder``, which is
    renamed to ``folder`` at the end, so that ``folder`` never holds a part of a data set. After a
    kill or an error, the complete shards in the hidden folder are kept, and the next call continues
    after them. All files then have the same bytes as after an uninterrupted call. Images are
    shuffled by a fixed seed, for programs that read shards sequentially.

    Args:
        dataset: Data set to pack.
        folder: Folder to create, or a link to it; it must not exist yet or must be empty, and must
            not be a mount point, which cannot be renamed to.
        options: Sizes and quality; None uses the defaults.
        advance: Function that is called with numbers of packed images: first the number that an
            interrupted call has packed (0 if there was none), then 1 after each image.

    Returns:
        The number of shards.

    Raises:
        DataError: The folder is not empty, is a mount point or is being written, an image cannot be
            read or has several labels, or the hidden folder is left from other images or options.
        WriteError: The disk is full, or the folder cannot be written to or renamed to.
    """
    options = options or PackOptions()
    if dataset.is_multi_label:
        raise DataError(f"{dataset.name} has several labels per image, which shards do not hold")
    folder = Path(os.path.realpath(folder))  # a folder cannot be renamed to a link
    try:
        return _pack_into(folder, dataset, options, advance)
    except OSError as error:
        text = f"cannot write {folder}: {error.strerror or error}"
        raise WriteError(f"{text}; free space or choose a writable folder") from error


def _pack_into(
    folder: Path, dataset: ImageDataset, options: PackOptions, advance: Callable[[int], None]
) -> int:
    fingerprint = _fingerprint(dataset, options)
    if _is_renamed(folder, fingerprint):
        advance(len(dataset))
    else:
        _check_free(folder)
        with _partial_folder(folder, fingerprint) as partial:
            _write(dataset, partial, options, advance)
    return _finish(folder)


def _check_free(folder: Path) -> None:
    """Checks that another folder can be renamed to ``folder``, a path without links."""
    if os.path.ismount(folder):
        raise DataError(
            f"{folder} is a mount point, to which no folder can be renamed; choose a new folder "
            "below it"
        )
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists already; choose a new folder, or delete it first")


@contextmanager
def _partial_folder(folder: Path, fingerprint: str) -> Iterator[Path]:
    """Yields the hidden folder, which is renamed to ``folder`` on success.

    It is removed on an error if it has neither a complete shard nor an index.
    """
    partial = folder.parent / f".{folder.name}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    with _locked(partial):
        _check_fingerprint(partial, fingerprint)
        try:
            yield partial
            _rename(partial, folder)
        finally:
            kept = (partial / _record_name(0), partial / INDEX)
            if partial.exists() and not any(file.exists() for file in kept):
                shutil.rmtree(partial, ignore_errors=True)


def _rename(partial: Path, folder: Path) -> None:
    try:
        os.replace(partial, folder)
    except OSError as error:
        raise WriteError(
            f"{partial} has all shards, but cannot be renamed to {folder}: "
            f"{error.strerror or error}; empty or move {folder}, then repeat the command, "
            "which only renames"
        ) from error


def _is_renamed(folder: Path, fingerprint: str) -> bool:
    """Returns whether a call with this fingerprint was killed between its rename and its end."""
    file = folder / _FINGERPRINT
    return (folder / INDEX).is_file() and file.is_file() and _read(file) == fingerprint


def _finish(folder: Path) -> int:
    """Removes records and fingerprint from the renamed folder; returns the number of shards."""
    count = len(list(folder.glob("shard-*.tar")))
    for number in range(count):
        (folder / _record_name(number)).unlink(missing_ok=True)
    (folder / _FINGERPRINT).unlink(missing_ok=True)
    return count


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which ends with this process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"another process is writing {folder}; wait until it has ended"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _fingerprint(dataset: ImageDataset, options: PackOptions) -> str:
    """Returns a hash of all that determines the written bytes, except the content of images."""
    names = [dataset.short_name(i) for i in range(len(dataset))]
    values = [dataset.name, dataset.classes, dataset.targets, names, asdict(options)]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _check_fingerprint(partial: Path, fingerprint: str) -> None:
    file = partial / _FINGERPRINT
    if not file.exists() and not (partial / INDEX).exists():
        for left in partial.iterdir():  # of a call that was killed at its beginning
            left.unlink()
        with atomic_write(file) as temporary:
            temporary.write_text(fingerprint, encoding="ascii")
    elif not file.exists() or _read(file) != fingerprint:
        raise DataError(
            f"{partial} is left from packing other images, or with other options; repeat the "
            "earlier command to complete it, or delete the folder"
        )


def _read(file: Path) -> str:
    return read_text(file, "index", errors="replace")


def _write(
    dataset: ImageDataset, folder: Path, options: PackOptions, advance: Callable[[int], None]
) -> None:
    # Unlike numpy's Generator, RandomState has the same streams in every version of numpy.
    order = np.random.RandomState(_ORDER_SEED).permutation(len(dataset)).tolist()
    shards = _Shards(folder, options.shard_bytes)
    places = shards.restore()
    advance(len(places))
    rest = order[len(places) :]
    try:
        for i, (suffix, data) in zip(rest, _contents(dataset, rest, options), strict=True):
            places.append(shards.add(f"{i:08}", suffix, data, dataset.targets[i]))
            advance(1)
        shards.close()
    finally:
        shards.abandon()
    by_image = dict(zip(order, places, strict=True))
    index = {
        "format": FORMAT,
        "classes": dataset.classes,
        "shards": shards.names,
        "files": [dataset.short_name(i) for i in range(len(dataset))],
        "targets": dataset.targets,
        "places": [by_image[i] for i in range(len(dataset))],
    }
    with atomic_write(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(index), encoding="utf-8")


def _record_name(number: int) -> str:
    return f"shard-{number:05}.json"


class _Shards:
    """Writes tar files one after the other, and a record of the places in each complete one."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self.names: list[str] = []
        self._folder, self._shard_bytes = folder, shard_bytes
        self._tar: tarfile.TarFile | None = None
        self._places: list[Place] = []  # in the current tar file

    def restore(self) -> list[Place]:
        """Continues after the complete shards in the folder; returns the places of their images."""
        places: list[Place] = []
        while (record := self._folder / _record_name(len(self.names))).exists():
            places += [tuple(place) for place in json.loads(read_text(record, "index"))]
            self.names.append(f"shard-{len(self.names):05}.tar")
        return places

    def add(self, key: str, suffix: str, data: bytes, target: int) -> Place:
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
        self._places.append((len(self.names) - 1, offset, len(data)))
        return self._places[-1]

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)  # without time and owner: the same images make the same bytes
        info.size = len(data)
        assert self._tar is not None
        self._tar.addfile(info, io.BytesIO(data))

    def close(self) -> None:
        """Completes the current tar file, if there is one, and records its places."""
        if self._tar is None:
            return
        tar, self._tar = self._tar, None
        tar.close()
        flush_to_disk(self._folder / self.names[-1])
        with atomic_write(self._folder / _record_name(len(self.names) - 1)) as temporary:
            temporary.write_text(json.dumps(self._places), encoding="ascii")
        self._places = []

    def abandon(self) -> None:
        """Closes the current tar file, if there is one, without completing it."""
        if self._tar is not None and self._tar.fileobj is not None:
            self._tar.fileobj.close()


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
