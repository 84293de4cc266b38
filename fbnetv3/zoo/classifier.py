"""A classifier ready for images: a network, its preprocessing, and the names of its classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fbnetv3 import imagenet, modeling
from fbnetv3.arch import Arch
from fbnetv3.arch.library_names import DEFAULT_RESOLUTION, is_library_name
from fbnetv3.data.decode import ImageLike, Images, as_images
from fbnetv3.data.transforms import EvalTransform, default_resize
from fbnetv3.weights.converters import load_state_dict
from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.load import read_weights
from fbnetv3.weights.metadata import check_metadata
from fbnetv3.weights.networks import (
    arch_of,
    has_several_labels,
    num_classes_of,
    preprocessing_of,
)
from fbnetv3.weights.records import find_record
from fbnetv3.zoo import api
from fbnetv3.zoo.preprocess import preprocessing


@dataclass(frozen=True)
class Classifier:
    """A network with its preprocessing and the names of its classes.

    Attributes:
        model: Network in evaluation mode.
        transform: Preprocessing from an image to a tensor (3, H, W).
        classes: Names of the classes, in the order of the logits.
        source: File, run folder or zoo name of the weights.
        several_labels: Whether an image may have several classes. The probability of each class is
            then a sigmoid of its logit instead of a softmax of all logits.
    """

    model: nn.Module
    transform: EvalTransform
    classes: tuple[str, ...]
    source: str
    several_labels: bool = False

    def scores(self, images: Images) -> torch.Tensor:
        """Returns the probabilities of the classes, (images, classes), on the CPU.

        Args:
            images: Images of any kind that ``fbnetv3.data.read_image`` accepts, or a batch of them
                in one array (N, H, W, C) or tensor (N, C, H, W).

        Raises:
            DataError: An image cannot be read.
        """
        pixels = [self.transform.pixels(image) for image in as_images(images)]
        return self.scores_of_pixels(pixels)

    def scores_of_pixels(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
        """Returns the probabilities of the classes, (images, classes), on the CPU.

        Args:
            pixels: Pixels (H, W, 3) of each image, as ``transform.pixels`` returns them; all of the
                same size.
        """
        logits = self.logits_of_pixels(pixels)
        return logits.sigmoid() if self.several_labels else logits.softmax(1)

    @torch.inference_mode()
    def logits_of_pixels(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
        """Returns the logits of the classes, float32 (images, classes), on the CPU.

        Args:
            pixels: Pixels (H, W, 3) of each image, as for :meth:`scores_of_pixels`.
        """
        if not pixels:
            return torch.zeros(0, len(self.classes))
        device = next(self.model.parameters()).device
        batch = self.transform.normalize(np.stack(pixels))
        logits: torch.Tensor = self.model(batch.to(device, memory_format=torch.channels_last))
        return logits.float().cpu()

    def top(self, image: ImageLike, k: int = 5) -> list[tuple[str, float]]:
        """Returns the most probable classes of an image.

        Args:
            image: Path, content of a file, Pillow image, array or tensor; any size and mode.
            k: Number of classes; at most all of them are returned.

        Returns:
            Names of classes with their probabilities, the most probable first.

        Raises:
            DataError: The image cannot be read.
        """
        values, indices = self.scores([image])[0].topk(min(k, len(self.classes)))
        names = [self.classes[i] for i in indices.tolist()]
        return list(zip(names, values.tolist(), strict=True))


def from_zoo(name: str) -> Classifier:
    """Builds the classifier of zoo weights, which are downloaded on first use.

    Args:
        name: ``NAME`` or ``NAME.TAG``.

    Raises:
        RecordError: The zoo has no such weights.
        DownloadError: The weights cannot be downloaded, or their file is damaged.
    """
    record = find_record(name)
    source = record.full_name
    model = api.build_model(source, pretrained=True).eval()
    classes = _class_names(record.class_names(), record.num_classes, source)
    transform = preprocessing(source).transform()
    return Classifier(model, transform, classes, source, record.several_labels)


def from_file(path: str | os.PathLike[str], model: str | None = None) -> Classifier:
    """Builds a classifier from a weights file or a checkpoint.

    Args:
        path: The folder of a run; a file that training wrote, whose metadata contain the
            architecture, the classes and the preprocessing; or any file in a known layout.
        model: Name of the architecture (``NAME`` or ``NAME.TAG``), for a file that does not contain
            the architecture. If the file contains no preprocessing, that of ``model`` is used.

    Raises:
        WeightsFileError: The file is damaged, holds a detector, does not contain its architecture
            and ``model`` is None, or names more or fewer classes than its classifier has outputs.
        ArchError: ``model`` is unknown, or the architecture in the file is not valid.
        RecordError: The zoo has no weights of the name ``model``.
        LoadError: The weights do not fit the architecture.
    """
    weights = read_weights(path)
    tensors, metadata = weights.tensors, weights.metadata
    if weights.is_detector:
        raise WeightsFileError(
            f"{path} holds a detector, not a classifier; in Python, use "
            "fbnetv3.detection.detector.detector_from_file"
        )
    check_metadata(metadata, path)
    arch = arch_of(metadata, model, path)
    num_classes = num_classes_of(tensors, metadata)
    network = modeling.build_model(arch, num_classes=num_classes).eval()
    load_state_dict(network, tensors, source=os.fspath(path))
    saved = metadata.get("classes")
    names = tuple(map(str, saved)) if saved else None
    classes = _class_names(names, num_classes, os.fspath(path))
    transform = _transform(metadata, arch, model)
    return Classifier(network, transform, classes, os.fspath(path), has_several_labels(metadata))


def _class_names(names: tuple[str, ...] | None, count: int, source: str) -> tuple[str, ...]:
    if names is None:
        return tuple(f"class {i}" for i in range(count))
    if len(names) != count:
        raise WeightsFileError(
            f"{source} names {len(names)} classes, but its classifier has {count} outputs; use a "
            "file that training exported"
        )
    return names


def _transform(metadata: Mapping[str, Any], arch: Arch | str, model: str | None) -> EvalTransform:
    saved = preprocessing_of(metadata)
    if not saved and model is not None and not is_library_name(model):
        return preprocessing(model).transform()
    default = arch.resolution if isinstance(arch, Arch) else DEFAULT_RESOLUTION
    resolution = int(saved.get("resolution", default))
    return EvalTransform(
        resolution,
        int(saved.get("resize", default_resize(resolution))),
        saved.get("interpolation", "bilinear"),
        saved.get("mean", imagenet.MEAN),
        saved.get("std", imagenet.STD),
    )
