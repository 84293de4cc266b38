"""The preprocessing of images that a model of the zoo expects, as a value and as a transform."""

from __future__ import annotations

from dataclasses import dataclass

from fbnetv3 import imagenet
from fbnetv3.arch import get_arch
from fbnetv3.arch.library_names import DEFAULT_RESOLUTION, is_library_name
from fbnetv3.data.transforms import EvalTransform, default_resize
from fbnetv3.weights.detector_records import is_detector_name
from fbnetv3.weights.download import ZOO_SCHEME
from fbnetv3.weights.errors import RecordError
from fbnetv3.weights.records import all_records, find_record, is_weights_name


@dataclass(frozen=True)
class Preprocessing:
    """Resize of the shorter side, centre crop and normalisation of RGB images.

    Attributes:
        resolution: Side of the crop in pixels, the input of the network.
        resize: Length in pixels to which the shorter side is resized before the crop.
        interpolation: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.
        mean: Mean of each channel, for pixels in 0..1.
        std: Standard deviation of each channel, for pixels in 0..1.
    """

    resolution: int
    resize: int
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = imagenet.MEAN
    std: tuple[float, float, float] = imagenet.STD

    def transform(self) -> EvalTransform:
        """Returns the function from an image to its tensor, (3, resolution, resolution)."""
        return EvalTransform(self.resolution, self.resize, self.interpolation, self.mean, self.std)


def preprocessing(name: str) -> Preprocessing:
    """Returns the preprocessing of a model.

    Args:
        name: ``NAME`` or ``NAME.TAG``. Weights define their preprocessing; a ``NAME`` without tag
            has that of the first weights that fit the architecture. For an architecture without
            weights, the preprocessing is the architecture's resolution, ``default_resize``,
            bilinear interpolation, and ImageNet's mean and standard deviation; for a network of
            another library, the same with a resolution of 224 pixels.

    Raises:
        ArchError: The architecture is unknown.
        RecordError: There are no such weights, or the name is that of a detector.
    """
    name = name.removeprefix(ZOO_SCHEME)
    if is_detector_name(name):
        raise RecordError(
            f"{name}: a detector resizes and normalises images itself; give it the images"
        )
    if is_library_name(name):
        return Preprocessing(DEFAULT_RESOLUTION, default_resize(DEFAULT_RESOLUTION))
    if not is_weights_name(name) and not any(
        r.name == name and r.fits_architecture for r in all_records()
    ):
        resolution = get_arch(name).resolution
        return Preprocessing(resolution, default_resize(resolution))
    record = find_record(name)
    return Preprocessing(
        record.resolution, record.resize, record.interpolation, record.mean, record.std
    )


def transform(name: str) -> EvalTransform:
    """Returns the evaluation preprocessing of a model as a transform; see :func:`preprocessing`."""
    return preprocessing(name).transform()
