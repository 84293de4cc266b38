"""The images to predict: files, folders, zips, and lists of them. torch is not imported."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from fbnetv3.errors import one_line
from fbnetv3.image_files import (
    IMAGE_SUFFIXES,
    ImageArchive,
    Listing,
    count_suffixes,
    is_image,
    list_folder,
)
from fbnetv3.io import MAX_BYTES, open_regular, read_text
from fbnetv3.predictions.errors import PredictError

LIST_SUFFIX = ".txt"
STDIN = "-"


@dataclass(frozen=True)
class ImageFile:
    """An image to read: a file, or an entry of a zip.

    Attributes:
        path: The file, or the zip.
        entry: Name of the entry in the zip; "" for a file.
        archive: The zip; None for a file.
    """

    path: Path
    entry: str = ""
    archive: ImageArchive | None = None

    def __str__(self) -> str:
        return f"{self.path}/{self.entry}" if self.entry else str(self.path)

    @property
    def stem(self) -> str:
        """The name of the file without its folder and suffix."""
        return Path(self.entry or self.path).stem

    def read(self) -> Path | bytes:
        """Returns a path or the content of an entry, both of which ``read_image`` accepts.

        Raises:
            PredictError: The entry cannot be read.
        """
        if self.archive is None:
            return self.path
        try:
            return self.archive.read(self.entry)
        except Exception as error:  # for example RuntimeError if the entry is encrypted
            reason = " ".join(str(error).split())
            raise PredictError(
                f"{self}: cannot read the image from the archive ({reason}); create or download "
                "the archive again"
            ) from error


def find_images(paths: Iterable[Path | str], stdin: TextIO | None = None) -> list[ImageFile]:
    """Lists images.

    Files in folders and zips that are not images are left out, with a note on standard error.

    Args:
        paths: Image files, which are listed as they are; folders and ``.zip`` files, whose images
            are listed in alphabetical order, including subfolders (as in data sets, links are
            followed, and hidden files are ignored); ``.txt`` files with the path of an image file,
            folder or zip per line, relative to the folder of the list (empty lines and lines that
            begin with ``#`` are ignored); and ``-``, which reads such a list from ``stdin``, with
            paths relative to the current folder.
        stdin: Lines of ``-``; None: standard input.

    Raises:
        PredictError: A path does not exist or cannot be read, or a folder, a zip or a list
            contains no image.
    """
    images: list[ImageFile] = []
    for path in paths:
        if str(path) == STDIN:
            lines = _lines(sys.stdin if stdin is None else stdin, "standard input")
            images += _listed(lines, Path(), "standard input")
        elif Path(path).suffix.lower() == LIST_SUFFIX and Path(path).is_file():
            images += _listed(_list_lines(Path(path)), Path(path).parent, str(path))
        else:
            images += _images_at(Path(path))
    return images


def _lines(stream: Iterable[str], where: str) -> list[str]:
    try:
        return list(stream)
    except UnicodeDecodeError as error:
        raise PredictError(f"{where} is not text in UTF-8 ({error}); give paths") from error


def _list_lines(path: Path) -> list[str]:
    try:
        return read_text(path, "annotations").removeprefix("\ufeff").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PredictError(
            f"cannot read the list {path}: {reason}; a list is a text with one path per line"
        ) from error


def _listed(lines: Iterable[str], folder: Path, where: str) -> list[ImageFile]:
    images: list[ImageFile] = []
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        try:
            images += _images_at(folder / name)
        except PredictError as error:
            raise PredictError(f"{where}, line {number}: {error}") from error
    if not images:
        raise PredictError(f"{where} lists no images; give one path per line")
    return images


def _images_at(path: Path) -> list[ImageFile]:
    try:
        path.stat()
        if path.is_dir():
            names = _images_of(list_folder(path), path)
            return [ImageFile(path / name) for name in names]
        if path.suffix.lower() == ".zip":
            return list(_images_of_zip(path))
        if not is_image(path.name):
            with open_regular(path, MAX_BYTES["archive"]):
                pass  # a pipe or device raises an OSError
    except FileNotFoundError:
        raise PredictError(f"no such image or folder: {path}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise PredictError(f"cannot read {path}: {reason}; check the path") from error
    return [ImageFile(path)]


def _images_of_zip(path: Path) -> Iterator[ImageFile]:
    archive = ImageArchive(path)
    try:
        listing = archive.listing()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise PredictError(
            f"{path}: not a zip archive, or a damaged one ({error}); download it again"
        ) from error
    for name in _images_of(listing, path):
        yield ImageFile(path, name, archive)


def _images_of(listing: Listing, path: Path) -> list[str]:
    """Returns the names of the images in a folder or zip, sorted."""
    others = count_suffixes(listing.others)
    if not listing.images:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        there = f"; there are other files ({others})" if others else ""
        raise PredictError(
            f"no images in {path}; files with these suffixes count: {suffixes}{there}"
        )
    if others:
        note = f"{path}: files without the suffix of an image are left out: {others}"
        print(one_line(note), file=sys.stderr)
    return sorted(listing.images, key=Path)
