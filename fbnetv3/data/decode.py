"""Bytes of an image file to an RGB image, whatever the file holds."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from fbnetv3.data.errors import DataError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff", ".gif")
)
# Pillow refuses from here on too; stated here since a program may have switched that off
MAX_PIXELS = 178_956_970
_FIX = "delete or replace the file, or set DATA.SKIP_BROKEN True"


def decode_rgb(data: bytes, name: str, fix: str = _FIX) -> Image.Image:
    """Decodes one image file; EXIF orientation is left alone.

    Args:
        data: the file's content, in any format that Pillow reads.
        name: how an error names the file.
        fix: what an error says to do.

    Returns:
        An RGB image. 16-bit grey keeps its high byte; transparency is dropped.

    Raises:
        DataError: not an image, cut short, damaged, or larger than ``MAX_PIXELS``.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_pixels(image, name, fix)
            return _to_rgb(image)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: the image is too large to be decoded ({error}); {fix}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not an image file ({len(data)} bytes); {fix}") from error
    except Exception as error:  # decoders raise anything on damaged files, SyntaxError included
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: cannot decode the image ({reason}); {fix}") from error


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
