"""AutoAugment (Cubuk et al., 2019) of 8-bit RGB images, with torchvision's draws and pixels.

Policies, draws and results are the same as in ``torchvision.transforms.v2.AutoAugment`` on Pillow
images, in less time:

- Operations that map equal values of a channel to equal values are tables of 256 values. Tables of
  consecutive operations are combined, and the histogram of their result is computed from that of
  their input, so that the pixels are read and written less often.
- Operations that numpy can express by a few arithmetic instructions run on arrays, unless they
  follow a table with which they can be combined.
- Pixels are converted between arrays and Pillow images only where the next operation needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageEnhance, ImageStat
from torchvision.transforms.v2 import functional as F

from fbnetv3.data.policies import Policy
from fbnetv3.data.seeding import uniform

Pixels = npt.NDArray[np.uint8]
# One table of 256 values for each of the three channels
Tables = tuple[bytes, bytes, bytes]
_LEVELS = 10  # of each magnitude
_IDENTITY = bytes(range(256))  # table that keeps all values


class _Canvas:
    """An image to which operations are applied.

    It is stored as an array or Pillow image, together with the combined tables of the operations
    that have not been applied to its pixels yet.
    """

    def __init__(self, image: Pixels | Image.Image) -> None:
        self._array = image if isinstance(image, np.ndarray) else None
        self._image = image if isinstance(image, Image.Image) else None
        self._tables: Tables | None = None
        self._histogram: npt.NDArray[np.int64] | None = None  # before the tables are applied

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        if self._image is not None:
            return self._image.size
        assert self._array is not None
        return self._array.shape[1], self._array.shape[0]

    def image(self) -> Image.Image:
        """Returns the current image."""
        image = self._untabled()
        if self._tables is not None:
            image = image.point(b"".join(self._tables))
            self.set_image(image)
        return image

    def array(self) -> Pixels:
        """Returns the current pixels (H, W, 3), which must not be changed."""
        if self._array is None or self._tables is not None:
            self._array = np.asarray(self.image())
        return self._array

    def set_image(self, image: Image.Image) -> None:
        """Replaces the image."""
        self._image, self._array, self._tables, self._histogram = image, None, None, None

    def apply(self, tables: Tables, arithmetic: Callable[[Pixels], Pixels] | None = None) -> None:
        """Maps the values of each channel.

        Args:
            tables: New value of each value, by channel.
            arithmetic: Function that maps an array in the same way, if it is faster than a table.
        """
        if self._tables is not None:
            first, then = self._tables, tables
            self._tables = (
                first[0].translate(then[0]),
                first[1].translate(then[1]),
                first[2].translate(then[2]),
            )
        elif arithmetic is not None:
            self._array, self._image = arithmetic(self.array()), None
            self._histogram = None
        else:
            self._tables = tables

    def histogram(self) -> npt.NDArray[np.int64]:
        """Returns the number of pixels (3, 256) of each value, by channel."""
        if self._histogram is None:
            self._histogram = np.array(self._untabled().histogram()).reshape(3, 256)
        if self._tables is None:
            return self._histogram
        counts = np.zeros((3, 256), dtype=np.int64)
        for channel, table in enumerate(self._tables):
            np.add.at(counts[channel], list(table), self._histogram[channel])
        return counts

    def _untabled(self) -> Image.Image:
        """Returns the image before the tables are applied."""
        if self._image is None:
            assert self._array is not None
            self._image = Image.fromarray(self._array)
        return self._image


def _geometric(canvas: _Canvas, fill: list[float], **change: object) -> None:
    values = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]} | change
    canvas.set_image(F.affine(canvas.image(), fill=fill, **values))


def _rotate(canvas: _Canvas, degrees: float, fill: list[float]) -> None:
    canvas.set_image(F.rotate(canvas.image(), degrees, fill=fill))


def _shear_x(canvas: _Canvas, slope: float, fill: list[float]) -> None:
    _geometric(canvas, fill, shear=[math.degrees(math.atan(slope)), 0.0], center=[0, 0])


def _shear_y(canvas: _Canvas, slope: float, fill: list[float]) -> None:
    _geometric(canvas, fill, shear=[0.0, math.degrees(math.atan(slope))], center=[0, 0])


def _translate_x(canvas: _Canvas, pixels: float, fill: list[float]) -> None:
    _geometric(canvas, fill, translate=[int(pixels), 0])


def _translate_y(canvas: _Canvas, pixels: float, fill: list[float]) -> None:
    _geometric(canvas, fill, translate=[0, int(pixels)])


def _brightness(canvas: _Canvas, change: float, fill: list[float]) -> None:
    canvas.apply(_blend_tables(0, 1 + change))


def _contrast(canvas: _Canvas, change: float, fill: list[float]) -> None:
    mean = int(ImageStat.Stat(canvas.image().convert("L")).mean[0] + 0.5)
    canvas.apply(_blend_tables(mean, 1 + change))


def _color(canvas: _Canvas, change: float, fill: list[float]) -> None:
    if change:  # the factor 1 keeps the image
        canvas.set_image(ImageEnhance.Color(canvas.image()).enhance(1 + change))


def _sharpness(canvas: _Canvas, change: float, fill: list[float]) -> None:
    if change:
        canvas.set_image(ImageEnhance.Sharpness(canvas.image()).enhance(1 + change))


def _blend_tables(value: int, factor: float) -> Tables:
    """Returns the tables of ``value + factor * (x - value)``, as Pillow rounds and clips them."""
    ramp = Image.frombytes("L", (256, 1), _IDENTITY)
    table = Image.blend(Image.new("L", (256, 1), value), ramp, factor).tobytes()
    return table, table, table


def _posterize(canvas: _Canvas, bits: float, fill: list[float]) -> None:
    mask = np.uint8(256 - (1 << (8 - int(bits))) & 255)
    canvas.apply(_posterize_tables(int(mask)), lambda pixels: np.bitwise_and(pixels, mask))


@lru_cache(256)
def _posterize_tables(mask: int) -> Tables:
    table = bytes(value & mask for value in range(256))
    return table, table, table


def _solarize(canvas: _Canvas, fraction: float, fill: list[float]) -> None:
    threshold = math.ceil(255.0 * fraction)  # values are whole numbers

    def invert_above(pixels: Pixels) -> Pixels:
        # -1 is 255: the exclusive or with it inverts all bits.
        inverted = np.greater_equal(pixels, threshold).view(np.uint8)
        np.negative(inverted, out=inverted)
        return np.bitwise_xor(pixels, inverted, out=inverted)

    canvas.apply(_solarize_tables(threshold), invert_above)


@lru_cache(256)
def _solarize_tables(threshold: int) -> Tables:
    table = bytes(value if value < threshold else 255 - value for value in range(256))
    return table, table, table


def _invert(canvas: _Canvas, magnitude: float, fill: list[float]) -> None:
    canvas.apply(_solarize_tables(0), np.bitwise_not)


def _equalize(canvas: _Canvas, magnitude: float, fill: list[float]) -> None:
    canvas.apply(_equalizing(canvas.histogram()))


def _auto_contrast(canvas: _Canvas, magnitude: float, fill: list[float]) -> None:
    canvas.apply(_stretching(canvas.histogram()))


def _equalizing(histogram: npt.NDArray[np.int64]) -> Tables:
    """Returns the tables of PIL.ImageOps.equalize for a histogram (3, 256)."""
    highest = 255 - (histogram[:, ::-1] != 0).argmax(axis=1)  # index of the last used value
    below = np.cumsum(histogram, axis=1) - histogram
    steps = below[np.arange(3), highest] // 255  # 0: the channel is kept, as by Pillow
    values = (steps[:, None] // 2 + below) // np.maximum(steps, 1)[:, None]
    return _tables(np.minimum(values, 255), steps > 0)  # Pillow clips larger values


def _stretching(histogram: npt.NDArray[np.int64]) -> Tables:
    """Returns the tables of PIL.ImageOps.autocontrast for a histogram (3, 256)."""
    used = histogram != 0
    low, high = used.argmax(axis=1), 255 - used[:, ::-1].argmax(axis=1)
    scale = 255.0 / np.maximum(high - low, 1)
    values = np.arange(256) * scale[:, None] + (-low * scale)[:, None]
    return _tables(np.clip(values, 0, 255), high > low)


def _tables(values: npt.NDArray[np.generic], change: npt.NDArray[np.bool_]) -> Tables:
    """Returns the rows of ``values`` (3, 256), and identities for channels that do not change."""
    rows = values.astype(np.uint8).tobytes()
    red, green, blue = (
        rows[256 * i : 256 * i + 256] if changes else _IDENTITY
        for i, changes in enumerate(change.tolist())
    )
    return red, green, blue


Apply = Callable[[_Canvas, float, list[float]], None]
_OPERATIONS: dict[str, Apply] = {
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Brightness": _brightness,
    "Color": _color,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
}
_NO_MAGNITUDE = ("AutoContrast", "Equalize", "Invert")
_UNSIGNED = ("Posterize", "Solarize", *_NO_MAGNITUDE)  # their magnitudes have no random sign
# Magnitude at the highest level; for translations, as a fraction of the image's side. `magnitude`
# computes those of Posterize and Solarize.
_MAXIMUM = {
    "ShearX": 0.3,
    "ShearY": 0.3,
    "TranslateX": 150.0 / 331.0,
    "TranslateY": 150.0 / 331.0,
    "Rotate": 30.0,
    "Brightness": 0.9,
    "Color": 0.9,
    "Contrast": 0.9,
    "Sharpness": 0.9,
}


@lru_cache(1024)
def magnitude(name: str, level: int, width: int, height: int) -> float:
    """Returns the magnitude of an operation, without its sign.

    Args:
        name: Name of the operation.
        level: Level of the magnitude, 0 to 9.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """
    if name in _NO_MAGNITUDE:
        return 0.0
    if name == "Posterize":
        bits = (8 - torch.arange(_LEVELS) / ((_LEVELS - 1) / 4)).round().int()
        return float(bits[level])
    if name == "Solarize":
        return float(torch.linspace(1.0, 0.0, _LEVELS)[level])
    side = {"TranslateX": width, "TranslateY": height}.get(name, 1)
    return float(torch.linspace(0.0, _MAXIMUM[name] * side, _LEVELS)[level])


def apply_operation(
    image: Pixels | Image.Image, operations: list[tuple[str, float]], fill: list[float]
) -> Pixels:
    """Applies operations one after the other.

    Args:
        image: RGB image, or its pixels (H, W, 3).
        operations: Names and signed magnitudes.
        fill: RGB values of areas that a geometric operation uncovers.

    Returns:
        The pixels (H, W, 3) of the result, which must not be changed.
    """
    canvas = _Canvas(image)
    for name, value in operations:
        _OPERATIONS[name](canvas, value, fill)
    return canvas.array()


class AutoAugment:
    """Draws one of the pairs of operations of a policy, and applies each with its probability.

    All draws are from torch's global generator.

    Args:
        policy: Pairs of operations.
        fill: RGB values of areas that a geometric operation uncovers.
    """

    def __init__(self, policy: Policy, fill: list[float]) -> None:
        self._policy, self._fill = policy, fill

    def __call__(self, image: Pixels | Image.Image) -> Pixels:
        """Returns the pixels (H, W, 3) of the augmented image, which must not be changed."""
        width, height = _Canvas(image).size
        operations = []
        for name, probability, level in self._policy[int(torch.randint(len(self._policy), ()))]:
            if uniform() <= probability:
                value = magnitude(name, level, width, height)
                if name not in _UNSIGNED and uniform() <= 0.5:
                    value = -value
                operations.append((name, value))
        return apply_operation(image, operations, self._fill)
