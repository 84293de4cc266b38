"""Reading of untrusted image files, and of images in memory, as RGB images."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError

from fbnetv3.data.errors import DataError
from fbnetv3.data.modes import from_array, from_tensor, shown_size, to_rgb
from fbnetv3.data.sizes import check_size
from fbnetv3.io import open_regular

ImageLike: TypeAlias = (
    str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[Any] | torch.Tensor
)
# Several images, or a batch of them in one array (N, H, W, C) or tensor (N, C, H, W).
Images: TypeAlias = Sequence[ImageLike] | npt.NDArray[Any] | torch.Tensor
_SINGLE = (str, os.PathLike, bytes, bytearray, Image.Image, np.ndarray, torch.Tensor)
# The formats that Pillow may decode. Without this list, Pillow would recognise other formats by the
# content of a file, whatever its name, and run Ghostscript for EPS.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SUFFIXES = {  # all but JPEG's
    "BMP": ".bmp",
    "GIF": ".gif",
    "PNG": ".png",
    "PPM": ".ppm",
    "TIFF": ".tif",
    "WEBP": ".webp",
}
MAX_BYTES = 1 << 30  # of an image file
ADVICE = (
    "delete or replace the file, or set DATA.SKIP_BROKEN True (fbnetv3-evaluate: --skip-broken)"
)
_REPLACE = "replace the file or leave it out"


@contextmanager
def open_image(file: BinaryIO, name: str, advice: str = ADVICE) -> Iterator[Image.Image]:
    """Yields an image whose header Pillow has read; no other function opens files with Pillow.

    Args:
        file: An image file of one of ``FORMATS``.
        name: Name of the file in error messages.
        advice: Advice at the end of error messages.

    Raises:
        DataError: The file has another format, its header is damaged, or the image has too many
            pixels (``sizes.MAX_PIXELS``).
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
        check_size(image.width, image.height, name, advice)
        yield image


def shown_size_of(data: bytes, name: str) -> tuple[int, int]:
    """Returns (width, height) of the image in ``data`` after its EXIF orientation is applied.

    Raises:
        DataError: The data are not an image, its header is damaged, or it is too large.
    """
    with data_errors(name), open_image(io.BytesIO(data), name) as image:
        return shown_size(image)


def file_suffix(data: bytes, name: str) -> str:
    """Returns the usual suffix of the format in which ``data`` holds an image, such as ``.jpg``.

    Raises:
        DataError: The data are not an image, its header is damaged, or it is too large.
    """
    with open_image(io.BytesIO(data), name) as image:
        return _SUFFIXES.get(image.format or "", ".jpg")


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """Returns the content of an image file.

    Raises:
        OSError: The file cannot be read, has more than ``MAX_BYTES``, or is a pipe or device.
        ValueError: The path contains a null character.
    """
    with open_regular(path, MAX_BYTES) as file:
        return file.read()


def read_image(source: ImageLike, name: str = "", advice: str = _REPLACE) -> Image.Image:
    """Returns an image of any kind in RGB, 8 bits per channel, upright.

    Training, evaluation, inference and drawing read images by these rules. For JPEG files of
    trainings, ``fbnetv3.data.jpeg`` applies them with a faster decoder.

    ====================================  ========================================================
    EXIF orientation                      applied once, in every format
    1, L, P, RGB, YCbCr, HSV, LAB, CMYK   as Pillow converts; colour profiles are ignored
    LA, PA, RGBA, transparent colours     opacity is dropped; the colour below it stays
    La, RGBa                              divided by the opacity, which is dropped
    I;16, and 16-bit PNG and PGM          the high byte: 65535 is white
    I (32 bits)                           0 to 255; other values are refused
    F                                     0 to 255; other values, NaN, and images scaled to
                                          0 to 1 are refused
    animations, several pages             the first frame; of a Pillow image, the current one
    array (H, W), (H, W, C)               C from 1 to 4: grey, grey and opacity, RGB, RGBA
    tensor (C, H, W), (H, W)              as for arrays; a tensor on a GPU is copied to the CPU
    values of arrays and tensors          bool; uint8; uint16: the high byte; other integers from
                                          0 to 255; floats from 0 to 1; other values are refused
    above ``sizes.MAX_PIXELS`` pixels     refused before it is decoded
    ====================================  ========================================================

    Args:
        source: Path or content of an image file, Pillow image, array or tensor. Channels are in
            the order RGB, not BGR.
        name: Name of the image in error messages; by default the path, or "image".
        advice: Advice at the end of messages about files.

    Returns:
        The image, which is ``source`` itself if that is an upright Pillow image in RGB.

    Raises:
        DataError: The source cannot be read, is damaged or too large, or its values are refused.
    """
    if isinstance(source, (str, os.PathLike)):
        return _from_path(source, name or os.fspath(source), advice)
    return _from_memory(source, name or "image", advice)


def _from_path(path: str | os.PathLike[str], name: str, advice: str) -> Image.Image:
    try:
        content = read_image_file(path)
    except (OSError, ValueError) as error:  # ValueError: the path contains a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read {name}: {reason}; {advice}") from error
    return decode_rgb(content, name, advice)


def _from_memory(source: Any, name: str, advice: str) -> Image.Image:
    if isinstance(source, Image.Image):
        check_size(source.width, source.height, name, advice)
        with data_errors(name, advice):
            return to_rgb(source, name)
    if isinstance(source, torch.Tensor):
        return from_tensor(source, name)
    if isinstance(source, np.ndarray):
        return from_array(source, name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return decode_rgb(bytes(source), name, advice)
    raise DataError(
        f"{name}: cannot read an image from {type(source).__name__}; allowed: a path, bytes, a "
        "Pillow image, a numpy array or a torch tensor"
    )


def as_images(images: Images) -> list[ImageLike]:
    """Returns the images of a sequence, or of a batch (N, ...) in one tensor or array.

    Raises:
        DataError: ``images`` is a single image; its rows or channels would be taken for images.
    """
    if isinstance(images, _SINGLE) and getattr(images, "ndim", 0) != 4:
        raise DataError("one image is given where several are expected; pass a list of images")
    return list(images)


def decode_rgb(data: bytes, name: str, advice: str = ADVICE) -> Image.Image:
    """Returns the image in ``data``, upright and in RGB, by the rules of :func:`read_image`.

    Args:
        data: Content of an image file of one of ``FORMATS``.
        name: Name of the file in error messages.
        advice: Advice at the end of error messages.

    Raises:
        DataError: The data are not an image, are truncated or damaged, or hold an image that is
            too large or whose values are refused.
    """
    with data_errors(name, advice), open_image(io.BytesIO(data), name, advice) as image:
        rgb = to_rgb(image, name)
        if rgb is not image:
            return rgb
        rgb = image.copy()  # a copy does not refer to the file
        rgb.info = {}
        return rgb


@contextmanager
def data_errors(name: str, advice: str = ADVICE) -> Iterator[None]:
    """Turns the errors of decoders into a DataError with the name of the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # on damaged files, Pillow raises even SyntaxError
        raise DataError(f"{name}: cannot decode the image ({_reason(error)}); {advice}") from error
