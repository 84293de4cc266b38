"""Bytes of an image file to an RGB image, whatever the file holds."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from fbnetv3.data.errors import DataError
from fbnetv3.io import open_regular

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff", ".gif")
)
# Of what Pillow reads: the content decides, not the name, and EPS would be run by Ghostscript
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_BYTES = 1 << 30
# Pillow refuses from here on too; stated here since a program may have switched that off
MAX_PIXELS = 178_956_970
_FIX = "delete or replace the file, or set DATA.SKIP_BROKEN True"


@contextmanager
def open_image(file: BinaryIO, name: str, fix: str = _FIX) -> Iterator[Image.Image]:
    """Yields an image of which the header is read; the one place where image files are opened.

    Args:
        file: One of ``FORMATS``.
        name: How an error names the file.
        fix: What an error says to do.

    Raises:
        DataError: Of another format, damaged, or larger than ``MAX_PIXELS``, by its header.
    """
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: the image is too large to be decoded ({error}); {fix}") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name}: not an image file of {', '.join(FORMATS)} ({_size(file)} bytes); {fix}"
        ) from error
    except Exception as error:  # as below
        raise DataError(
            f"{name}: cannot read the image's header ({_reason(error)}); {fix}"
        ) from error
    with image:
        _check_pixels(image, name, fix)
        yield image


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """Returns the content of an image file of at most ``MAX_BYTES``, no pipe or device.

    Raises:
        OSError: See :func:`fbnetv3.io.open_regular`.
    """
    with open_regular(path, MAX_BYTES) as file:
        return file.read()


def decode_rgb(data: bytes, name: str, fix: str = _FIX) -> Image.Image:
    """Decodes one image file; EXIF orientation is left alone.

    Args:
        data: The file's content, of one of ``FORMATS``.
        name: How an error names the file.
        fix: What an error says to do.

    Returns:
        An RGB image. 16-bit grey keeps its high byte; transparency is dropped.

    Raises:
        DataError: Not an image, cut short, damaged, or larger than ``MAX_PIXELS``.
    """
    try:
        with open_image(io.BytesIO(data), name, fix) as image:
            return _to_rgb(image)
    except DataError:
        raise
    except Exception as error:  # decoders raise anything on damaged files, SyntaxError included
        raise DataError(f"{name}: cannot decode the image ({_reason(error)}); {fix}") from error


def _check_pixels(image: Image.Image, name: str, fix: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{name}: {image.width} x {image.height} pixels, at most {MAX_PIXELS} are decoded; "
            f"{fix}"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        image.load()
        return image.copy()
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit values to 255 instead of scaling them
        high_byte = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255)
        return Image.fromarray(high_byte.astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
