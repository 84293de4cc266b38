"""Transforms of images to normalised tensors, for training and evaluation.

They work on Pillow images or, where that is faster, on arrays: for random crops of JPEG files (see
data/crops.py) and some operations of AutoAugment. All random numbers are drawn from the global CPU
generator of torch, which the loaders seed for each image.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from fbnetv3 import imagenet
from fbnetv3.data.augment import AUGMENTATIONS, augmentation
from fbnetv3.data.autoaugment import AutoAugment
from fbnetv3.data.crops import RandomPaddedCrop, RandomResizedCrop, ResizeCenterCrop
from fbnetv3.data.decode import ImageLike, read_image
from fbnetv3.data.errors import DataError
from fbnetv3.data.jpeg import JpegImage
from fbnetv3.data.policies import CIFAR10, IMAGENET
from fbnetv3.data.seeding import uniform
from fbnetv3.errors import first_line
from fbnetv3.registries import TRANSFORMS
from fbnetv3.registry import RegistryError, parse_call

Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")
Step = Callable[[Pixels | Image.Image], Pixels | Image.Image]
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_POLICIES = {"imagenet": IMAGENET, "cifar10": CIFAR10}
# The published policies were learned with grey pixels in the areas that a shift or turn uncovers.
_AUGMENT_FILL = [128.0, 128.0, 128.0]


class Normalize:
    """Normalisation of batches of pixels in float32, on the device that holds the batch.

    Args:
        mean: RGB mean of pixels scaled to [0, 1].
        std: RGB standard deviation > 0 of pixels scaled to [0, 1].

    Raises:
        DataError: Mean or std does not have three values, or a standard deviation is not positive.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise DataError(f"mean is {mean}, std is {std}; allowed: three numbers each, std > 0")
        self._shift = torch.tensor(mean, dtype=torch.float32) * 255
        self._scale = 1 / (torch.tensor(std, dtype=torch.float32) * 255)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns the normalised pixels, float32 (..., 3, H, W) in channels_last.

        Args:
            pixels: uint8 (..., 3, H, W), in channels_last.
        """
        if self._shift.device != pixels.device:
            self._shift, self._scale = self._shift.to(pixels.device), self._scale.to(pixels.device)
        # In the shape (..., H, W, 3), which is the order in memory; the copy is changed in place.
        values = pixels.movedim(-3, -1).to(torch.float32, copy=True)
        return values.sub_(self._shift).mul_(self._scale).movedim(-1, -3)


class ImageTransform(ABC):
    """A transform in two steps, so that a loader can normalise a whole batch at once.

    The steps are :meth:`pixels` and :meth:`normalize`. Images may be of any kind and mode;
    ``fbnetv3.data.read_image`` converts them to RGB.

    Args:
        mean: RGB mean of pixels scaled to [0, 1].
        std: RGB standard deviation > 0 of pixels scaled to [0, 1].

    Raises:
        DataError: Mean or std does not have three values, or a standard deviation is not positive.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._normalize = Normalize(mean, std)

    @abstractmethod
    def image(self, image: Image.Image) -> Image.Image:
        """Transforms an image in RGB to one in RGB of the final size."""

    def pixels(self, image: ImageLike | JpegImage) -> npt.NDArray[np.uint8]:
        """Returns the pixels (H, W, 3) of the transformed image."""
        return np.array(self.image(_whole(image)))

    def normalize(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Normalises pixels (..., H, W, 3) to float32 (..., 3, H, W) in channels_last."""
        values = pixels if pixels.flags.writeable else pixels.copy()  # torch warns otherwise
        return self._normalize(torch.from_numpy(values).movedim(-1, -3))

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
        flip: Whether to mirror each image with probability 1/2.
        auto_augment: ``none``, AutoAugment's policy ``imagenet`` or ``cifar10``, ``randaugment`` or
            ``trivialaugment``.
        interpolation: Resampling: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.
        randaugment: Number of operations per image, and their magnitude from 0 to 30, for
            ``randaugment``.
        registered: Registered transforms, such as ``blur?radius=2``, which are applied after crop,
            flip and ``auto_augment``; see ``TRANSFORMS`` in registries.py.

    Raises:
        DataError: A choice is unknown or a number out of range; the message lists allowed values.
            Or a registered transform cannot be made.
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
        randaugment: tuple[int, int] = (2, 9),
        registered: Sequence[str] = (),
    ) -> None:
        super().__init__(mean, std)
        _check_resolution(resolution)
        crops = {"resized": RandomResizedCrop, "padded": RandomPaddedCrop, "none": ResizeCenterCrop}
        policies = {"none": None, **_POLICIES, **dict.fromkeys(AUGMENTATIONS)}
        policy = _choice("auto_augment", auto_augment, policies)
        resampling = _choice("interpolation", interpolation, _RESAMPLING)
        self._crop: ResizeCenterCrop | RandomResizedCrop = _choice("crop", crop, crops)(
            resolution, resampling
        )
        self._steps: list[Step] = []
        if flip:
            self._steps.append(_flip_half)
        if policy is not None:
            self._steps.append(AutoAugment(policy, _AUGMENT_FILL))
        elif auto_augment in AUGMENTATIONS:
            step = augmentation(auto_augment, _AUGMENT_FILL, *randaugment)
            self._steps.append(partial(_on_pillow, step))
        self._steps += [partial(_on_pillow, _RegisteredStep(text)) for text in registered]

    def image(self, image: Image.Image) -> Image.Image:
        return Image.fromarray(self._augmented(self._crop(image)))

    def pixels(self, image: ImageLike | JpegImage) -> npt.NDArray[np.uint8]:
        """Returns the pixels (H, W, 3) of the transformed image.

        The crop of a JPEG file is drawn before the file is decoded, see :mod:`fbnetv3.data.jpeg`.
        """
        if isinstance(image, JpegImage):
            return self._augmented(self._crop.crop_jpeg(image))
        return self._augmented(self._crop(read_image(image)))

    def _augmented(self, image: Pixels | Image.Image) -> Pixels:
        for step in self._steps:
            image = step(image)
        return np.asarray(image)


class EvalTransform(ImageTransform):
    """Resize of the shorter side and centre crop, followed by normalisation.

    Args:
        resolution: Side of the output in pixels.
        resize: Length of the shorter side before the crop in pixels, at least ``resolution``; None
            uses ``resolution``. An image that has this length already is not resampled.
        interpolation: Resampling: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.
        mean: RGB mean of pixels scaled to [0, 1].
        std: RGB standard deviation > 0 of pixels scaled to [0, 1].

    Attributes:
        rule: The arguments by name, for files that describe the preprocessing.

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
        self._crop = ResizeCenterCrop(resolution, resampling, resize)
        self.rule: dict[str, Any] = {
            "resolution": resolution,
            "resize": self._crop.resize,
            "interpolation": interpolation,
            "mean": list(mean),
            "std": list(std),
        }

    def image(self, image: Image.Image) -> Image.Image:
        return self._crop(image)


def _on_pillow(
    step: Callable[[Image.Image], Image.Image], image: Pixels | Image.Image
) -> Image.Image:
    """Applies a step to a Pillow image, to which an array is converted.

    torchvision's transforms would return the array unchanged.
    """
    return step(image if isinstance(image, Image.Image) else Image.fromarray(image))


class _RegisteredStep:
    """A registered transform, whose results are checked.

    When it is sent to a worker process, the transform is made again there from ``text``: a
    registered factory mostly returns a local function, which cannot be pickled.

    Args:
        text: Name and arguments, such as ``blur?radius=2``.

    Raises:
        DataError: The name is unknown, or the arguments are not allowed.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        try:
            name, arguments = parse_call(text)
            self._transform = TRANSFORMS.get(name)(**arguments)
        except RegistryError as error:
            raise DataError(str(error)) from error
        except (TypeError, ValueError) as error:
            raise DataError(f"transform {text} cannot be made ({first_line(error)})") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return _RegisteredStep, (self._text,)

    def __call__(self, image: Image.Image) -> Image.Image:
        result = self._transform(image)
        if not isinstance(result, Image.Image) or result.size != image.size:
            made = f"a {type(result).__name__}"
            if isinstance(result, Image.Image):
                made = f"an image of {result.width} x {result.height} pixels"
            raise DataError(
                f"transform {self._text} returned {made}; allowed: a Pillow image of "
                f"{image.width} x {image.height} pixels"
            )
        return result if result.mode == "RGB" else result.convert("RGB")


def _whole(image: ImageLike | JpegImage) -> Image.Image:
    return image.image() if isinstance(image, JpegImage) else read_image(image)


def _flip_half(image: Pixels | Image.Image) -> Pixels | Image.Image:
    if uniform() >= 0.5:
        return image
    if isinstance(image, Image.Image):
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(image).flip(1).numpy()  # numpy takes more than ten times as long


def _choice(key: str, value: str, allowed: dict[str, T]) -> T:
    if value not in allowed:
        raise DataError(f"{key} {value!r} is unknown; allowed: {', '.join(allowed)}")
    return allowed[value]


def _check_resolution(resolution: int) -> None:
    if resolution < 1:
        raise DataError(f"the resolution is {resolution}; allowed: 1 pixel or more")


def default_resize(resolution: int) -> int:
    """Returns the default length in pixels of the shorter side before the crop of an evaluation.

    The published model zoo resizes to 256 for a crop of 224. For other resolutions, the length has
    the same ratio to the crop, rounded up to a multiple of 8.
    """
    return math.ceil(resolution * 256 / 224 / 8) * 8
