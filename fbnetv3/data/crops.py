"""The crops of training and evaluation, of decoded images and of JPEG files."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from fbnetv3.data.jpeg import JpegImage, largest_divisor
from fbnetv3.data.sizes import without_ends

_CROP_AREA = (0.08, 1.0)  # fractions of the image area
# Filters that torch has for 8-bit images
_TORCH_MODES = {
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
}


class Fit:
    """Resize of the shorter side and centre crop, rounded like torchvision's.

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
        resized = F.resize(without_ends(image), [self.resize], interpolation=self.resampling)
        cropped: Image.Image = F.center_crop(resized, [self.resolution])
        return cropped

    def of_jpeg(self, jpeg: JpegImage) -> Image.Image:
        """Returns the crop of a JPEG file."""
        side = float(min(jpeg.size))
        divisor = largest_divisor((side, side), (self.resize, self.resize))
        return self(Image.fromarray(jpeg.pixels(divisor)))


class PaddedCrop(Fit):
    """A random crop of the resized image, which is padded by black borders of 1/8 of its side."""

    def __call__(self, image: Image.Image) -> Image.Image:
        image = super().__call__(image)
        pad, side = self.resolution // 8, self.resolution
        x, y = (torch.randint(2 * pad + 1, (2,)) - pad).tolist()
        # Pillow fills the area outside of the image with black.
        return image.crop((x, y, x + side, y + side))


class ResizedCrop:
    """A random part of the image, resized to a square (the crop of Inception)."""

    def __init__(self, resolution: int, resampling: Image.Resampling) -> None:
        self.size, self.resampling = (resolution, resolution), resampling
        self._draw = v2.RandomResizedCrop(resolution, scale=_CROP_AREA)

    def __call__(self, image: Image.Image) -> Image.Image:
        part = image.crop(self._box(image))
        return part.resize(self.size, self.resampling)

    def of_jpeg(self, jpeg: JpegImage) -> Image.Image:
        """Returns the crop of a JPEG file, with the box that would be drawn for the decoded image.

        If the file is decoded at a reduced size, the edges of the box are rounded outwards to whole
        pixels of the reduced image. The box still has at least as many pixels as the result.
        """
        width, height = jpeg.size
        # Only the shape of the tensor is read, which holds a single value in memory.
        left, top, right, bottom = self._box(torch.empty(()).expand(3, height, width))
        divisor = largest_divisor((right - left, bottom - top), self.size)
        rows = slice(top // divisor, -(-bottom // divisor))
        columns = slice(left // divisor, -(-right // divisor))
        part = jpeg.pixels(divisor)[rows, columns]
        return _resized(part, self.size, self.resampling)

    def _box(self, image: Image.Image | torch.Tensor) -> tuple[int, int, int, int]:
        box = self._draw.make_params([image])
        left, top = box["left"], box["top"]
        return left, top, left + box["width"], top + box["height"]


def _resized(
    pixels: npt.NDArray[np.uint8], size: tuple[int, int], resampling: Image.Resampling
) -> Image.Image:
    """Resizes pixels (H, W, 3) to (width, height); values differ from Pillow's by at most 2 of 255.

    torch's kernel for 8-bit images with the channels last uses vector instructions of the CPU,
    which Pillow's does not.
    """
    mode = _TORCH_MODES.get(resampling)
    if mode is None:
        return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, resampling)
    # (1, 3, H, W), with strides that torch recognises as channels_last
    images = torch.from_numpy(np.ascontiguousarray(pixels)).unsqueeze(0).permute(0, 3, 1, 2)
    result = interpolate(images, size[::-1], mode=mode, antialias=True)
    return Image.fromarray(result[0].permute(1, 2, 0).numpy())
