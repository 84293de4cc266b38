"""Decoding of untrusted image files to RGB images."""

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
# The formats that Pillow may decode. It recognises them by content, not by name, and would run
# Ghostscript for EPS.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_BYTES = 1 << 30
# This is also Pillow's own limit, but a program may have switched that off.
MAX_PIXELS = 178_956_970
_ADVICE = "delete or replace the file, or set DATA.SKIP_BROKEN True"


@contextmanager
def open_image(file: BinaryIO, name: str, advice: str = _ADVICE) -> Iterator[Image.Image]:
    """Yields an image whose header has been read. All image files are opened here.

    Args:
        file: An image file of one of ``FORMATS``.
        name: Name of the file in error messages.
        advice: Advice at the end of error messages.

    Raises:
        DataError: The file has another format, its header is damaged, or the image has more than
            ``MAX_PIXELS`` pixels.
    """
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: the image is too large ({error}); {advice}") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name}: not an image file of {', '.join(FORMATS)} ({_size(file)} bytes); {advice}"
        ) from error
    except Exception as error:  # decoders raise errors of any kind on damaged files
        raise DataError(
            f"{name}: cannot read the image header ({_reason(error)}); {advice}"
        ) from error
    with image:
        _check_pixels(image, name, advice)
        yield image


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """Returns the content of an image file.

    Raises:
        OSError: The file cannot be read, has more than ``MAX_BYTES``, or is a pipe or device.
    """
    with open_regular(path, MAX_BYTES) as file:
        return file.read()


def decode_rgb(data: bytes, name: str, advice: str = _ADVICE) -> Image.Image:
    """Returns the decoded image, without applying its EXIF orientation.

    Args:
        data: Content of an image file of one of ``FORMATS``.
        name: Name of the file in error messages.
        advice: Advice at the end of error messages.

    Returns:
        An RGB image. 16-bit grey values are reduced to their high byte; transparency is dropped.

    Raises:
        DataError: The data are not an image, truncated or damaged, or the image has more than
            ``MAX_PIXELS`` pixels.
    """
    try:
        with open_image(io.BytesIO(data), name, advice) as image:
            return _to_rgb(image)
    except DataError:
        raise
    except Exception as error:  # even SyntaxError, on damaged files
        raise DataError(f"{name}: cannot decode the image ({_reason(error)}); {advice}") from error


def _check_pixels(image: Image.Image, name: str, advice: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{name}: the image has {image.width} x {image.height} pixels; allowed: {MAX_PIXELS} "
            f"in all; {advice}"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        image.load()
        return image.copy()
    if image.mode.startswith("I"):
        # Pillow's conversion clips 16-bit values to 255 instead of scaling them.
        high_byte = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255)
        return Image.fromarray(high_byte.astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
