"""Checks and limits of the sizes of images: their number of pixels, and their aspect ratio.

A resize that keeps the aspect ratio of an image of 1 x 20,000 pixels makes either a side of 0
pixels or an image of gigabytes. The functions of this module prevent both.
"""

from __future__ import annotations

from PIL import Image

from fbnetv3.data.errors import DataError

# Pillow refuses images above the same limit, unless a program has switched that check off.
MAX_PIXELS = 178_956_970
# Largest ratio of the long to the short side of an image that is resized by its short side.
MAX_ASPECT = 64


def check_size(width: int, height: int, name: str, advice: str) -> None:
    """Checks the size of an image before its pixels are decoded or copied.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        name: Name of the image in error messages.
        advice: Advice at the end of error messages.

    Raises:
        DataError: The image has no pixels, or more than ``MAX_PIXELS``.
    """
    if not 1 <= width * height <= MAX_PIXELS:
        raise DataError(
            f"{name}: the image has {width} x {height} pixels; allowed: 1 to {MAX_PIXELS} in all; "
            f"{advice}"
        )


def limit_aspect_ratio(image: Image.Image) -> Image.Image:
    """Returns an image, or its middle if its aspect ratio is above ``MAX_ASPECT``.

    The centre crop that follows a resize of the short side would drop the ends anyway.
    """
    longest = MAX_ASPECT * min(image.size)
    if max(image.size) <= longest:
        return image
    width, height = (min(side, longest) for side in image.size)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def size_within(width: int, height: int, max_width: int, max_height: int) -> tuple[int, int]:
    """Returns the largest size with the aspect ratio of an image that fits into a rectangle.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        max_width: Width of the rectangle in pixels.
        max_height: Height of the rectangle in pixels.

    Returns:
        Width and height, each at least 1 pixel.
    """
    scale = min(max_width / width, max_height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
