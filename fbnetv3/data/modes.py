"""Rules by which images of any mode and arrays of any type become 8-bit RGB.

The docstring of ``fbnetv3.data.decode.read_image`` has a table of these rules. 16- and 32-bit
values are converted in strips: a copy of a whole image in a wider type could take gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from fbnetv3.data.errors import DataError
from fbnetv3.data.sizes import check_size

_ORIENTATION = 0x0112  # EXIF tag
# EXIF orientation -> operation that turns the image upright; 5 to 8 swap width and height.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Keys of Image.info in which Pillow looks for the EXIF orientation.
_METADATA = frozenset(("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"))
# Formats whose grey images of mode I have 16 bits per pixel.
_16_BIT_FORMATS = ("PNG", "PPM")
_STRIP_PIXELS = 1 << 22  # pixels that are converted at a time
_ADVICE = "convert the image to 8 or 16 bits"


def orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation that has yet to be applied to an image, from 1 to 8.

    It is 1 (upright) if the metadata are damaged or lack an orientation, and for TIFF images, which
    Pillow turns upright when it loads their pixels.
    """
    if image.format == "TIFF" or image.info.keys().isdisjoint(_METADATA):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # parsers raise errors of any kind on damaged metadata
        return 1
    return value if isinstance(value, int) and value in TURNS else 1


def shown_size(image: Image.Image) -> tuple[int, int]:
    """Returns (width, height) of an image after it is turned by its EXIF orientation."""
    if image.format == "TIFF":
        image.load()  # until then, some versions of Pillow give the size of the unturned image
    width, height = image.size
    return (height, width) if orientation(image) >= 5 else (width, height)


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Returns an image in RGB, turned by its EXIF orientation.

    Args:
        image: Image of any mode.
        name: Name of the image in error messages.

    Returns:
        The image itself if it is in RGB and upright, else a new image without metadata.

    Raises:
        DataError: The values of a 32-bit or floating-point image are out of range.
    """
    image.load()
    turn = TURNS.get(orientation(image))
    if turn is None and image.mode == "RGB":
        return image
    turned = image if turn is None else image.transpose(turn)
    rgb = _converted(turned, image.format, name)
    rgb.info = {}  # a copy of the metadata would turn the image again
    return rgb


def _converted(image: Image.Image, file_format: str | None, name: str) -> Image.Image:
    mode = image.mode
    if mode == "RGB":
        return image
    if mode.startswith("I;16") or (mode == "I" and file_format in _16_BIT_FORMATS):
        return _in_strips(image, lambda part: Image.fromarray(_high_byte(np.asarray(part))))
    if mode == "I":
        return _in_strips(image, lambda part: _checked_ints(part, name))
    if mode == "F":
        _check_floats(image, name)
        return _in_strips(image, lambda part: part.convert("L"))
    if mode in ("La", "RGBa"):  # colours that are multiplied by their opacity
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    if mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _in_strips(image: Image.Image, to_grey: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Returns an image in RGB after converting it to mode L strip by strip with ``to_grey``."""
    rgb = Image.new("RGB", image.size)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        part = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb.paste(to_grey(part), (0, top))
    return rgb


def _high_byte(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    # Pillow's conversion clips 16-bit values to 255 instead of scaling them.
    return (values >> 8).astype(np.uint8)


def _checked_ints(part: Image.Image, name: str) -> Image.Image:
    low, high = part.getextrema()
    _refuse_outside(low, high, 255, f"{name}: 32-bit grey", _ADVICE)  # type: ignore[arg-type]
    return part.convert("L")


def _check_floats(image: Image.Image, name: str) -> None:
    rows = max(1, _STRIP_PIXELS // image.width)
    brightest = 0.0
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        values = np.asarray(image.crop(box))
        low, high = float(values.min()), float(values.max())
        _refuse_outside(low, high, 255, f"{name}: floating-point grey", _ADVICE)
        brightest = max(brightest, high)
    if 0 < brightest <= 1:
        raise DataError(
            f"{name}: floating-point grey values up to {brightest:g}, all nearly black in mode F; "
            "allowed: 0 (black) to 255 (white); multiply the values by 255"
        )


def _refuse_outside(low: float, high: float, most: int, kind: str, advice: str) -> None:
    if not (low >= 0 and high <= most):  # also refuses NaN
        raise DataError(f"{kind} values from {low:g} to {high:g}; allowed: 0 to {most}; {advice}")


def from_tensor(tensor: torch.Tensor, name: str) -> Image.Image:
    """Returns the RGB image of a tensor (C, H, W) or (H, W); see :func:`from_array`.

    Raises:
        DataError: The shape, the size, the type or the values are not allowed.
    """
    tensor = tensor.detach().cpu()
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and not 1 <= tensor.shape[0] <= 4):
        raise DataError(
            f"{name}: a tensor of shape {tuple(tensor.shape)}; allowed: (C, H, W) with 1 to 4 "
            "channels, or (H, W); pass one image at a time"
        )
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    pixels = tensor if tensor.ndim == 2 else tensor.permute(1, 2, 0)
    return from_array(pixels.numpy(), name)


def from_array(array: npt.NDArray[Any], name: str) -> Image.Image:
    """Returns the RGB image of an array.

    Args:
        array: (H, W) or (H, W, C) with 1 to 4 channels: grey, grey and opacity, RGB, RGBA;
            the opacity is dropped. The type is bool, uint8, uint16 (65535 is white), another
            integer type with values from 0 to 255, or a floating-point type with values from 0 to
            1.
        name: Name of the image in error messages.

    Raises:
        DataError: The shape, the size, the type or the values are not allowed.
    """
    if array.ndim not in (2, 3) or (array.ndim == 3 and not 1 <= array.shape[2] <= 4):
        raise DataError(
            f"{name}: an array of shape {array.shape}; allowed: (H, W) or (H, W, C) with 1 to 4 "
            "channels; pass one image at a time, channels last"
        )
    height, width = array.shape[:2]
    check_size(width, height, name, "pass a smaller image")
    if array.ndim == 3:  # drop the opacity
        array = array[:, :, :3] if array.shape[2] > 2 else array[:, :, 0]
    pixels = np.empty(array.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        pixels[top : top + rows] = _bytes_of(array[top : top + rows], name)
    image = Image.fromarray(pixels)
    return image if image.mode == "RGB" else image.convert("RGB")


def _bytes_of(values: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Returns values of any type as numbers from 0 to 255."""
    kind = values.dtype.kind
    if values.dtype == np.uint8:
        return values
    if kind == "b":
        return values * np.uint8(255)
    if kind == "u" and values.dtype.itemsize == 2:
        return values >> 8
    if kind in "ui":
        advice = "convert the array to uint8, or to uint16 for values up to 65535"
        _refuse_outside(
            int(values.min()), int(values.max()), 255, f"{name}: {values.dtype}", advice
        )
        return values
    if kind == "f":
        advice = "divide the array, or convert it to uint8"
        low, high = float(values.min()), float(values.max())
        _refuse_outside(low, high, 1, f"{name}: {values.dtype}", advice)
        return np.rint(values * 255)
    raise DataError(f"{name}: an array of type {values.dtype}; allowed: bool, integers and floats")
