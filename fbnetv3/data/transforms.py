"""Images to normalised tensors, for training and for evaluation.

The steps work on Pillow images (measured faster than on tensors, on one thread) and draw
from torch's global CPU generator only; the loaders seed it for each image.
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
from fbnetv3.data.errors import DataError

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
# what the policies were found with: borders that move in are grey
_AUGMENT_FILL = [128, 128, 128]
_AREA_SHARE = (0.08, 1.0)
# long side over short side, from where on the ends are cut off before resizing: the centre crop
# would drop them, and a line of 1 x 20,000 pixels would grow to gigabytes on the way
_MOST_ELONGATED = 64


class ImageTransform(ABC):
    """A transform in two halves, so that a loader can normalise a whole batch at once.

    Args:
        mean: Per channel, of pixels scaled to 0..1.
        std: Per channel; > 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise DataError(f"mean {mean} and std {std}: three numbers each, std above 0")
        self._shift = torch.tensor(mean, dtype=torch.float32) * 255
        self._scale = 1 / (torch.tensor(std, dtype=torch.float32) * 255)

    @abstractmethod
    def image(self, image: Image.Image) -> Image.Image:
        """Returns the RGB image of the final size."""

    def pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Returns the image of the final size as H x W x 3."""
        return np.array(self.image(image))

    def normalize(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Turns (N x) H x W x 3 pixels to float32 (N x) 3 x H x W, channels last in memory."""
        values = torch.as_tensor(pixels, dtype=torch.float32)
        return values.sub_(self._shift).mul_(self._scale).movedim(-1, -3)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Returns float32 3 x H x W."""
        return self.normalize(self.pixels(image))


class TrainTransform(ImageTransform):
    """Random crop, flip and AutoAugment, then normalisation.

    Args:
        resolution: Side of the result, pixels.
        mean, std: See ImageTransform.
        crop: ``resized`` (8-100% of the area, aspect ratio 3:4 to 4:3, as on ImageNet),
            ``padded`` (fit, then move by up to ``resolution // 8`` pixels, as on CIFAR-10), or
            ``none`` (fit: resize the shorter side, crop the centre).
        flip: Mirror half of the images.
        auto_augment: ``none``, ``imagenet`` or ``cifar10``.
        interpolation: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.

    Raises:
        DataError: An unknown choice or a bad number; the allowed ones are named.
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
    """Shorter side to ``resize``, centre crop of ``resolution``, normalisation.

    Args:
        resolution: Side of the result, pixels.
        resize: Length of the shorter side before the crop; None is ``resolution``. An image
            that has it already is not resampled.
        interpolation: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.
        mean, std: See ImageTransform.

    Raises:
        DataError: An unknown choice or a bad number; the allowed ones are named.
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
            raise DataError(f"resize {resize} is smaller than the crop, {resolution}; enlarge it")
        resampling = _choice("interpolation", interpolation, _RESAMPLING)
        self._fit = _Fit(resolution, resampling, resize)

    def image(self, image: Image.Image) -> Image.Image:
        return self._fit(image)


class _Fit:
    """Resizes the shorter side and crops the centre, with torchvision's rounding."""

    def __init__(
        self, resolution: int, resampling: Image.Resampling, resize: int | None = None
    ) -> None:
        self.resolution, self.resampling = resolution, resampling
        self.resize = resolution if resize is None else resize

    def __call__(self, image: Image.Image) -> Image.Image:
        if image.size == (self.resize, self.resize) == (self.resolution, self.resolution):
            return image
        resized = F.resize(_without_ends(image), [self.resize], interpolation=self.resampling)
        cropped: Image.Image = F.center_crop(resized, [self.resolution])
        return cropped


def _without_ends(image: Image.Image) -> Image.Image:
    most = _MOST_ELONGATED * min(image.size)
    if max(image.size) <= most:
        return image
    middle: Image.Image = F.center_crop(image, [min(image.height, most), min(image.width, most)])
    return middle


class _PaddedCrop(_Fit):
    """A crop at a random place of the image with a black border of an eighth of its side."""

    def __call__(self, image: Image.Image) -> Image.Image:
        image = super().__call__(image)
        pad, side = self.resolution // 8, self.resolution
        x, y = (torch.randint(2 * pad + 1, (2,)) - pad).tolist()
        # Pillow fills what lies outside of the image with black
        return image.crop((x, y, x + side, y + side))


class _ResizedCrop:
    """A random part of the image, resized to a square (Inception's crop)."""

    def __init__(self, resolution: int, resampling: Image.Resampling) -> None:
        self.size, self.resampling = (resolution, resolution), resampling
        self._draw = v2.RandomResizedCrop(resolution, scale=_AREA_SHARE)

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
        raise DataError(f"resolution {resolution}: must be at least 1 pixel")


def default_resize(resolution: int) -> int:
    """Returns the shorter side before the crop where no record states one.

    The published zoo's rule: 256 for a crop of 224, in proportion, up to a multiple of 8.
    """
    return math.ceil(resolution * 256 / 224 / 8) * 8
