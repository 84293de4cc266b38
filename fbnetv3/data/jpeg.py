"""JPEG files for training, decoded at the smallest size that a crop needs.

An evaluation decodes whole files, as :func:`fbnetv3.data.decode.read_image` does. A training first
reads the header only, which states the size. Rows below the crop, except for a few, are not decoded
unless the image is turned (EXIF) or the file may be damaged. A crop that will be reduced to half
its size or less is decoded by a smaller inverse transform (libjpeg's ``scale_denom``, which Pillow
calls draft mode). The rules of ``read_image`` apply here, too: limits of sizes, EXIF orientation,
grey as RGB, and error messages.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from fbnetv3.data.decode import ADVICE, data_errors, decode_rgb, open_image
from fbnetv3.data.modes import TURNS, orientation, to_rgb
from fbnetv3.data.sizes import check_size
from fbnetv3.requires import require

Pixels = npt.NDArray[np.uint8]
_DIVISORS = (8, 4, 2)  # reductions that libjpeg decodes with fast inverse transforms
_MAGIC = b"\xff\xd8\xff"
# Pillow's names of modes that libjpeg decodes to RGB itself; others (CMYK) need Pillow.
_MODES = ("RGB", "L")
_COLOR_SPACES = ("YCbCr", "RGB", "Gray")  # simplejpeg's names of the color spaces of these modes
# Bytes in the headers of files that may have an EXIF orientation (in EXIF or XMP) or several
# pictures, which need Pillow.
_SPECIAL = (b"Exif\0", b"rientation", b"MPF\0")
_END = b"\xff\xd9"  # marker of the end of an image
_FRAMES = (0xC0, 0xC1, 0xC2)  # markers of the frame's header: baseline, extended, progressive
# Number of additional rows, at the decoded size, that are decoded below the needed ones. The last
# needed rows depend on them: files may store colours with a half or a quarter of the image's rows,
# between which libjpeg interpolates.
_MARGIN = 8


class JpegImage:
    """A JPEG file whose header has been read, and whose pixels are decoded on request.

    Args:
        read: Function that returns the content of the file.
        name: Name of the file in error messages.
        size: Width and height in pixels, as the image is shown.
        whole: (H, W, 3) pixels of the whole image, if they are decoded already.
        turn: EXIF orientation, 1 to 8, that is applied to the decoded pixels.

    Attributes:
        name: Name of the file in error messages.
        size: Width and height in pixels, as the image is shown.
        turn: EXIF orientation, 1 to 8.
    """

    def __init__(
        self,
        read: Callable[[], bytes],
        name: str,
        size: tuple[int, int],
        whole: Pixels | None = None,
        turn: int = 1,
    ) -> None:
        self.name, self.size = name, size
        self.turn, self._read, self._whole = turn, read, whole

    def image(self) -> Image.Image:
        """Returns the whole image as ``read_image`` does.

        Raises:
            DataError: The file is damaged.
        """
        if self._whole is not None:
            return Image.fromarray(self._whole)
        return decode_rgb(self._read(), self.name)

    def pixels(self, divisor: int = 1, bottom: int = 0) -> Pixels:
        """Returns the pixels (H, W, 3) of the image, which the caller must not change.

        Args:
            divisor: 1, 2, 4 or 8; width and height are divided by it and rounded up.
            bottom: Number of rows of the whole image that are needed, from the top; 0 stands for
                all. The array may have more rows.

        Raises:
            DataError: The file is damaged.
        """
        if divisor == 1 and self._whole is not None:
            return self._whole
        data = self._read()
        width, height = (-(-side // divisor) for side in self.size)
        if bottom and self.turn == 1:
            top = _decoded_top(data, self.size, bottom, divisor)
            if top is not None and top.shape[1] == width and top.shape[0] * divisor >= bottom:
                return top
        stored = (height, width) if self.turn >= 5 else (width, height)
        decoded = _decoded(data, stored, divisor)
        if decoded is not None and decoded.shape[1::-1] == stored:
            return _turned(decoded, self.turn)
        # Pillow may decode the file nevertheless; if not, its error says what is wrong with it.
        return _by_pillow(data, self.name, divisor)


def open_jpeg(data: bytes, name: str) -> JpegImage | None:
    """Reads the header of an image file.

    Args:
        data: Content of the file.
        name: Name of the file in error messages.

    Returns:
        The image; None if the file is not a JPEG file of mode RGB or L, so that ``decode_rgb`` must
        decode it.

    Raises:
        DataError: The header is damaged, or the image has too many pixels.
        MissingPackageError: simplejpeg is not installed.
    """
    if not data.startswith(_MAGIC):
        return None
    require("simplejpeg", "train")
    size = _plain_size(data)
    if size is not None:
        check_size(*size, name, ADVICE)
        return JpegImage(lambda: data, name, size)
    with open_image(io.BytesIO(data), name) as image:
        if image.format != "JPEG" or image.mode not in _MODES:
            return None
        turn = orientation(image)
        width, height = image.size
        size = (height, width) if turn >= 5 else (width, height)
    return JpegImage(lambda: data, name, size, turn=turn)


def _plain_size(data: bytes) -> tuple[int, int] | None:
    """Returns width and height of a file of mode RGB or L without EXIF orientation.

    This takes a tenth of Pillow's time. None is returned if Pillow must read the header.
    """
    from simplejpeg import decode_jpeg_header

    _, end = _header(data)
    if any(data.find(mark, 0, end) >= 0 for mark in _SPECIAL):
        return None
    try:
        height, width, color_space, _ = decode_jpeg_header(data)
    except ValueError:
        return None
    return (width, height) if color_space in _COLOR_SPACES else None


def largest_divisor(size: tuple[float, float], target: tuple[int, int]) -> int:
    """Returns the largest of 8, 4 and 2 that reduces a part to no less than its target; else 1.

    Args:
        size: Width and height of the part of the image, in pixels of the whole image.
        target: Width and height to which the part will be resized.
    """
    ratio = min(size[0] / target[0], size[1] / target[1])
    return next((divisor for divisor in _DIVISORS if ratio >= divisor), 1)


def _decoded(data: bytes, size: tuple[int, int], divisor: int) -> Pixels | None:
    """Returns pixels (height, width, 3) of a file; None if simplejpeg does not decode it.

    simplejpeg keeps libjpeg's 3 bytes per pixel. Pillow, with the same values, stores 4 bytes per
    pixel, which takes a third longer, and numpy would copy them once more. simplejpeg refuses
    damaged files of which Pillow decodes a part.
    """
    from simplejpeg import decode_jpeg

    try:
        if divisor == 1:
            return decode_jpeg(data, "RGB")
        return decode_jpeg(data, "RGB", min_width=size[0], min_height=size[1], min_factor=divisor)
    except ValueError:
        return None


def _decoded_top(data: bytes, size: tuple[int, int], bottom: int, divisor: int) -> Pixels | None:
    """Returns the upper rows of the pixels, at least down to ``bottom``, without decoding the rest.

    These rows are equal to those of an image that is decoded in full. A copy of the file gets a
    smaller height in its header, which ends the decoding early; libjpeg skips the rest of the file.

    Returns:
        The pixels; None if the file should be decoded as a whole, since that is as fast, since the
        header is not understood, or since the file may be damaged.
    """
    from simplejpeg import decode_jpeg

    rows = bottom + _MARGIN * divisor
    # libjpeg warns of the rest that it skips, so its warnings are ignored below (strict=False). But
    # a warning is also its only sign of a truncated file, whose missing part it fills. So a file
    # without an end marker is not decoded in part.
    if rows >= size[1] or not data.endswith(_END):
        return None
    place, _ = _header(data)
    if not place:
        return None
    shorter = b"".join((data[:place], rows.to_bytes(2, "big"), data[place + 2 :]))
    try:
        if divisor == 1:
            return decode_jpeg(shorter, "RGB", strict=False)
        width, height = -(-size[0] // divisor), -(-rows // divisor)
        return decode_jpeg(
            shorter, "RGB", min_width=width, min_height=height, min_factor=divisor, strict=False
        )
    except ValueError:
        return None


def _header(data: bytes) -> tuple[int, int]:
    """Returns the offset of the height in the frame's header, and the end of all headers.

    The offset is 0 if no frame's header is found. If the headers cannot be followed to their end,
    the offset is 0, and the end is the size of the file.
    """
    at, height = 2, 0
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:  # pixels follow
            return height, at
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD9:  # padding, or markers without a length
            break
        if marker in _FRAMES:
            height = at + 5
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, len(data)


def _turned(pixels: Pixels, turn: int) -> Pixels:
    if turn not in TURNS:
        return pixels
    return np.asarray(Image.fromarray(pixels).transpose(TURNS[turn]))


def _by_pillow(data: bytes, name: str, divisor: int) -> Pixels:
    with data_errors(name), open_image(io.BytesIO(data), name) as image:
        width, height = image.size
        image.draft(None, (max(1, width // divisor), max(1, height // divisor)))
        return np.asarray(to_rgb(image, name))
