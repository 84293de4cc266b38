"""Transforms of images to normalised tensors, for training and evaluation.

They work on Pillow images, which is faster than on tensors (measured on one thread). All random
numbers are drawn from torch's global CPU generator, which the loaders seed for each image.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from fbnetv3 import imagenet
from fbnetv3.data.decode import ImageLike, read_image
from fbnetv3.data.errors import DataError
from fbnetv3.data.sizes import without_ends

T = TypeVar("T")
Step = Callable[[Image.Image], Image.Image]
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_POLICIES = {
    "imagenet": v2.AutoAugmentPolicy.IMAGENET,
    "cifar10": v2.AutoAugmentPolicy.CIFAR10,
}
# The published policies were learned with grey pixels outside of moved images.
_AUGMENT_FILL = [128, 128, 128]
_CROP_AREA = (0.08, 1.0)  # fractions of the image area


class ImageTransform(ABC):
    """A transform in two steps, so that a loader can normalise a whole batch at once.

    It takes images of any kind and mode, which ``fbnetv3.data.read_image`` converts to RGB.

    Args:
        mean: RGB mean of pixels scaled to [0, 1].
        std: RGB standard deviation > 0 of pixels scaled to [0, 1].

    Raises:
        DataError: Mean or std do not have three values, or a standard deviation is not positive.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise DataError(f"mean is {mean}, std is {std}; allowed: three numbers each, std > 0")
        self._shift = torch.tensor(mean, dtype=torch.float32) * 255
        self._scale = 1 / (torch.tensor(std, dtype=torch.float32) * 255)

    @abstractmethod
    def image(self, image: Image.Image) -> Image.Image:
        """Returns the transformed image, from RGB to RGB, in its final size."""

    def pixels(self, image: ImageLike) -> npt.NDArray[np.uint8]:
        """Returns the pixels (H, W, 3) of the transformed image."""
        return np.array(self.image(read_image(image)))

    def normalize(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Returns normalised float32 (..., 3, H, W), in channels_last, of pixels (..., H, W, 3)."""
        values = torch.as_tensor(pixels, dtype=torch.float32)
        return values.sub_(self._shift).mul_(self._scale).movedim(-1, -3)

    def __call__(self, image: ImageLike) -> torch.Tensor:
        """Returns the transformed and normalised image, float32 (3, H, W)."""
        return self.normalize(self.pixels(image))


class TrainTransform(ImageTransform):
    """Random crop, flip and AutoAugment, followed by normalisation.

    Args:
        resolution: Side of the output in pixels.
        mean: RGB mean of pixels scaled to [0, 1].
        std: RGB standard deviation > 0 of pixels scaled to [0, 1].
        crop: Kind of crop. ``resized`` resizes a random part (8% to 100% of the area, aspect ratio
            3:4 to 4:3), as for ImageNet. ``padded`` resizes the image and shifts it by up to
            ``resolution // 8`` pixels, as for CIFAR-10. ``none`` resizes the shorter side and
            crops the centre.
        flip: Whether to mirror half of the images.
        auto_augment: Policy of AutoAugment: ``none``, ``imagenet`` or ``cifar10``.
        interpolation: Resampling: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.

    Raises:
        DataError: A choice is unknown or a number out of range; the message lists allowed values.
    """

    def __init__(
        self,
        resolution: int,
        mean: Sequence[float] = imagenet.MEAN,
        std: Sequence[float] = imagenet.STD,
        crop: str = "resized",
        flip: bool = True,
        auto_augment: str = "none",
        interpolation: str = "bilinear",
    ) -> None:
        super().__init__(mean, std)
        _check_resolution(resolution)
        crops = {"resized": _ResizedCrop, "padded": _PaddedCrop, "none": _Fit}
        policy = _choice("auto_augment", auto_augment, {"none": None, **_POLICIES})
        resampling = _choice("interpolation", interpolation, _RESAMPLING)
        self._steps: list[Step] = [_choice("crop", crop, crops)(resolution, resampling)]
        if flip:
            self._steps.append(_flip_half)
        if policy is not None:
            self._steps.append(v2.AutoAugment(policy, fill=_AUGMENT_FILL))

    def image(self, image: Image.Image) -> Image.Image:
        for step in self._steps:
            image = step(image)
        return image


class EvalTransform(ImageTransform):
    """Resize of the shorter side and centre crop, followed by normalisation.

    Args:
        resolution: Side of the output in pixels.
        resize: Length of the shorter side before the crop in pixels, at least ``resolution``. None
            takes ``resolution``. An image of this size is not resampled.
        interpolation: Resampling: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.
        mean: RGB mean of pixels scaled to [0, 1].
        std: RGB standard deviation > 0 of pixels scaled to [0, 1].

    Raises:
        DataError: A choice is unknown or a number out of range; the message lists allowed values.
    """

    def __init__(
        self,
        resolution: int,
        resize: int | None = None,
        interpolation: str = "bilinear",
        mean: Sequence[float] = imagenet.MEAN,
        std: Sequence[float] = imagenet.STD,
    ) -> None:
        super().__init__(mean, std)
        _check_resolution(resolution)
        if resize is not None and resize < resolution:
            raise DataError(f"resize is {resize}; allowed: {resolution} (the resolution) or more")
        resampling = _choice("interpolation", interpolation, _RESAMPLING)
        self._fit = _Fit(resolution, resampling, resize)

    def image(self, image: Image.Image) -> Image.Image:
        return self._fit(image)


class _Fit:
    """Resize of the shorter side and centre crop, rounded like torchvision's."""

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


class _PaddedCrop(_Fit):
    """A crop at a random position of the image, padded by a black border of 1/8 of its side."""

    def __call__(self, image: Image.Image) -> Image.Image:
        image = super().__call__(image)
        pad, side = self.resolution // 8, self.resolution
        x, y = (torch.randint(2 * pad + 1, (2,)) - pad).tolist()
        # Pillow fills the area outside of the image with black.
        return image.crop((x, y, x + side, y + side))


class _ResizedCrop:
    """A random part of the image, resized to a square (the crop of Inception)."""

    def __init__(self, resolution: int, resampling: Image.Resampling) -> None:
        self.size, self.resampling = (resolution, resolution), resampling
        self._draw = v2.RandomResizedCrop(resolution, scale=_CROP_AREA)

    def __call__(self, image: Image.Image) -> Image.Image:
        box = self._draw.make_params([image])
        left, top = box["left"], box["top"]
        part = image.crop((left, top, left + box["width"], top + box["height"]))
        return part.resize(self.size, self.resampling)


def _flip_half(image: Image.Image) -> Image.Image:
    if float(torch.rand(())) < 0.5:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def _choice(key: str, value: str, allowed: dict[str, T]) -> T:
    if value not in allowed:
        raise DataError(f"{key} {value!r} is unknown; allowed: {', '.join(allowed)}")
    return allowed[value]


def _check_resolution(resolution: int) -> None:
    if resolution < 1:
        raise DataError(f"the resolution is {resolution}; allowed: 1 pixel or more")


def default_resize(resolution: int) -> int:
    """Returns the shorter side before the crop, for weights whose record does not state it.

    The published model zoo resizes to 256 for a crop of 224. Other resolutions have the same
    ratio, rounded up to a multiple of 8.
    """
    return math.ceil(resolution * 256 / 224 / 8) * 8
