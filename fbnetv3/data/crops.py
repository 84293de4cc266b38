"""Crops for training and evaluation, taken from decoded images or from JPEG files."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as F

from fbnetv3.data.jpeg import JpegImage, largest_divisor
from fbnetv3.data.seeding import uniform
from fbnetv3.data.sizes import limit_aspect_ratio

Pixels = npt.NDArray[np.uint8]
_CROP_AREA = (0.08, 1.0)  # fractions of the image area
_ASPECT = (3 / 4, 4 / 3)  # width / height
_LOG_ASPECT = tuple(torch.log(torch.tensor(_ASPECT)).tolist())  # in float32
_ATTEMPTS = 10  # largest number of random boxes that are drawn until one fits into the image
# Filters that torch has for 8-bit images
_TORCH_MODES = {
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
}


class ResizeCenterCrop:
    """Resize of the shorter side and centre crop, with torchvision's rounding of sizes and offsets.

    Very long images are reduced to their middle first, which leaves out what the crop drops anyway.

    Args:
        resolution: Side of the square crop in pixels.
        resampling: Filter of the resize.
        resize: Length of the shorter side before the crop in pixels; None uses ``resolution``.
    """

    def __init__(
        self, resolution: int, resampling: Image.Resampling, resize: int | None = None
    ) -> None:
        self.resolution, self.resampling = resolution, resampling
        self.resize = resolution if resize is None else resize

    def __call__(self, image: Image.Image) -> Image.Image:
        if image.size == (self.resize, self.resize) == (self.resolution, self.resolution):
            return image
        resized = F.resize(limit_aspect_ratio(image), [self.resize], interpolation=self.resampling)
        cropped: Image.Image = F.center_crop(resized, [self.resolution])
        return cropped

    def crop_jpeg(self, jpeg: JpegImage) -> Pixels | Image.Image:
        """Crops a JPEG file, which is decoded at 1/8, 1/4, 1/2 or all of its size.

        This is the smallest of these sizes whose shorter side is at least ``resize``, or the whole
        size if there is none.
        """
        side = float(min(jpeg.size))
        divisor = largest_divisor((side, side), (self.resize, self.resize))
        return self(Image.fromarray(jpeg.pixels(divisor)))


class RandomPaddedCrop(ResizeCenterCrop):
    """The centre crop, padded by black borders of 1/8 of its side, then cropped at random.

    The random crop is as large as the centre crop.
    """

    def __call__(self, image: Image.Image) -> Image.Image:
        image = super().__call__(image)
        pad, side = self.resolution // 8, self.resolution
        x, y = (torch.randint(2 * pad + 1, (2,)) - pad).tolist()
        # Pillow fills the area outside of the image with black.
        return image.crop((x, y, x + side, y + side))


class RandomResizedCrop:
    """A random part of the image, resized to a square (the crop of Inception)."""

    def __init__(self, resolution: int, resampling: Image.Resampling) -> None:
        self.size, self.resampling = (resolution, resolution), resampling

    def __call__(self, image: Image.Image) -> Image.Image:
        part = image.crop(random_resized_crop_box(image.size))
        return part.resize(self.size, self.resampling)

    def crop_jpeg(self, jpeg: JpegImage) -> Pixels | Image.Image:
        """Crops a JPEG file, with the box that would be drawn for the decoded image.

        If the file is decoded at a reduced size, the edges of the box are rounded outwards to whole
        pixels of the reduced image. The crop still has at least as many pixels as the result.
        """
        left, top, right, bottom = random_resized_crop_box(jpeg.size)
        divisor = largest_divisor((right - left, bottom - top), self.size)
        rows = slice(top // divisor, -(-bottom // divisor))
        columns = slice(left // divisor, -(-right // divisor))
        part = jpeg.pixels(divisor, bottom)[rows, columns]
        return _resized(part, self.size, self.resampling)


def random_resized_crop_box(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Draws a random part of an image, as ``torchvision.transforms.v2.RandomResizedCrop`` does.

    Args:
        size: Width and height of the image in pixels.

    Returns:
        Left, top, right and bottom edge in pixels.
    """
    width, height = size
    for _ in range(_ATTEMPTS):
        area = width * height * uniform(*_CROP_AREA)
        aspect = torch.exp(torch.empty(1).uniform_(*_LOG_ASPECT)).item()
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(height - h + 1, ()))
            left = int(torch.randint(width - w + 1, ()))
            return left, top, left + w, top + h
    # the largest central part with an allowed aspect ratio
    w = min(width, round(height * _ASPECT[1]))
    h = min(height, round(width / _ASPECT[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _resized(
    pixels: Pixels, size: tuple[int, int], resampling: Image.Resampling
) -> Pixels | Image.Image:
    """Resizes pixels (H, W, 3) to (width, height); values differ from Pillow's by at most 2 of 255.

    torch's kernel for 8-bit images with the channels last uses vector instructions of the CPU,
    which Pillow's does not.
    """
    mode = _TORCH_MODES.get(resampling)
    if mode is None:
        return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, resampling)
    # Torch warns of read-only arrays, such as cached pixels; they are copied.
    pixels = np.require(pixels, requirements=("C", "W"))
    # (1, 3, H, W), with strides that torch recognises as channels_last
    images = torch.from_numpy(pixels).unsqueeze(0).permute(0, 3, 1, 2)
    result = interpolate(images, size[::-1], mode=mode, antialias=True)
    return result[0].permute(1, 2, 0).numpy()
