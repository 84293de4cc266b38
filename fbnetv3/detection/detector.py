"""Detectors for inference: from images to boxes.

:func:`detector_from_file` builds the network that an exported file describes and loads its weights;
:meth:`Detector.forward` resizes images, runs the network, and returns its boxes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.data.captions import NAMED_BY_COLOUR, heading, stacked
from fbnetv3.data.decode import ImageLike, Images, as_images, read_image
from fbnetv3.detection.build import build_detector
from fbnetv3.detection.images import ShortestEdge
from fbnetv3.detection.visualization import (
    LabelledBox,
    detection_caption,
    draw_boxes,
    legend_of,
)
from fbnetv3.errors import data_errors
from fbnetv3.modeling.deploy import Deployable, DeployError, folded_copy
from fbnetv3.plain_yaml import parse_yaml
from fbnetv3.weights.errors import LoadError, WeightsFileError
from fbnetv3.weights.load import read_weights

# Groups of the config that describe a network and its input.
_CONFIG_GROUPS = ("MODEL", "INPUT", "TEST")
_TITLE_WIDTH = 640  # smallest width in pixels of a picture's title
# Groups that the yaml of a checkpoint leaves out if they have default values
_EMPTY_GROUPS: dict[str, Any] = {"INPUT": {}, "TEST": {}}


@dataclass(frozen=True)
class Detection:
    """A detected object.

    Attributes:
        name: Name of the class.
        score: Confidence in [0, 1].
        box: Left, top, right and bottom in pixels of the input image, turned by its EXIF
            orientation.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]


class Detector(Deployable):
    """A detector with its preprocessing and the names of its classes.

    Inputs are images of any kind, mode and size that ``fbnetv3.data.read_image`` accepts: paths,
    Pillow images, arrays or tensors; the detector resizes and normalises them. The output for an
    image with N objects is a mapping like that of torchvision's detectors: ``boxes`` (N, 4) with
    left, top, right and bottom in pixels of the input image, ``scores`` (N,) in [0, 1] in
    descending order, and ``labels`` (N,), indices into ``classes``. :meth:`detect` returns the
    same as a list of :class:`Detection`.

    Args:
        model: A detector of detectron2.
        cfg: Config of the detector, of which INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST and FORMAT are
            used; they become ``short_edge``, ``max_size`` and ``is_bgr``.
        classes: Names of the classes.
        source: Origin of the weights.

    Example:
        >>> detector = detector_from_file("output/bccd/model_ema.safetensors")
        >>> for detection in detector.detect(Image.open("blood.jpg"), threshold=0.5):
        ...     print(detection.name, detection.score, detection.box)
    """

    def __init__(
        self, model: nn.Module, cfg: CfgNode, classes: Sequence[str], source: str = ""
    ) -> None:
        super().__init__()
        self.model, self.classes, self.source = model, tuple(classes), source
        self._cfg = cfg
        self.short_edge: int = cfg.INPUT.MIN_SIZE_TEST
        self.max_size: int = cfg.INPUT.MAX_SIZE_TEST
        self._resize = ShortestEdge(self.short_edge, self.max_size)
        self.is_bgr = cfg.INPUT.FORMAT == "BGR"

    @torch.inference_mode()
    def forward(self, images: Images) -> list[dict[str, Tensor]]:
        """Returns boxes, scores and labels of each image, as the docstring of the class describes.

        Several images are padded to a common size, which may change the boxes slightly. A single
        image gives the same boxes as an evaluation with TEST.BATCH_SIZE 1.

        Raises:
            DataError: An image cannot be read, or a single image is given without a list.
        """
        inputs = [self._input(image) for image in as_images(images)]
        if not inputs:
            return []
        was_training = self.model.training
        self.model.eval()
        try:
            outputs = self.model(inputs)
        finally:
            self.model.train(was_training)
        instances = [output["instances"] for output in outputs]
        return [
            {"boxes": i.pred_boxes.tensor, "scores": i.scores, "labels": i.pred_classes}
            for i in instances
        ]

    def _input(self, image: ImageLike) -> dict[str, Any]:
        """Returns the input of a detectron2 model for an image."""
        opened = read_image(image)
        width, height = opened.size
        resized = self.resized(opened)
        resized = resized[:, :, ::-1] if self.is_bgr else resized
        tensor = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}

    def resized(self, image: ImageLike) -> np.ndarray:
        """Returns an image as RGB pixels (H, W, 3) of 8 bits, in the size that the network takes.

        Raises:
            DataError: The image cannot be read.
        """
        pixels = np.asarray(read_image(image))
        resized: np.ndarray = self._resize.get_transform(pixels).apply_image(pixels)
        return resized

    def detect(self, image: ImageLike, threshold: float = 0.3) -> list[Detection]:
        """Returns the objects in an image, by descending score.

        Args:
            image: Image of any kind that ``fbnetv3.data.read_image`` accepts.
            threshold: Minimum score of the returned objects, in [0, 1].

        Raises:
            DataError: The image cannot be read.
        """
        (output,) = self([image])
        return self._detections(output, threshold)

    def detect_all(self, images: Images, threshold: float = 0.3) -> list[list[Detection]]:
        """Returns the objects in each of several images, by descending score.

        Images of the same size are run as one batch. No image is padded to the size of another,
        so that the boxes are those of :meth:`detect`, up to the rounding of sums.

        Args:
            images: Images of any kind that ``fbnetv3.data.read_image`` accepts.
            threshold: Minimum score of the returned objects, in [0, 1].

        Raises:
            DataError: An image cannot be read.
        """
        return [self._detections(output, threshold) for output in self.outputs_of_all(images)]

    def outputs_of_all(self, images: Images) -> list[dict[str, Tensor]]:
        """Returns the outputs of :meth:`forward`; images of the same size are run as one batch.

        Raises:
            DataError: An image cannot be read.
        """
        loaded = [read_image(image) for image in as_images(images)]
        groups: dict[tuple[int, int], list[int]] = {}
        for number, image in enumerate(loaded):
            groups.setdefault(image.size, []).append(number)
        outputs: dict[int, dict[str, Tensor]] = {}
        for numbers in groups.values():
            outputs |= zip(numbers, self([loaded[i] for i in numbers]), strict=True)
        return [outputs[number] for number in range(len(loaded))]

    def _detections(self, output: Mapping[str, Tensor], threshold: float) -> list[Detection]:
        columns = (output["boxes"].tolist(), output["scores"].tolist(), output["labels"].tolist())
        return [
            Detection(self.classes[label], score, (box[0], box[1], box[2], box[3]))
            for box, score, label in zip(*columns, strict=True)
            if score >= threshold
        ]

    def inference_form(self, *, compile: bool) -> DeployedDetector:
        """Returns a detector with the same boxes, up to rounding, and with folded batch norms.

        Raises:
            DeployError: ``compile`` is True, or the network cannot be converted.
        """
        if compile:
            raise DeployError(
                "a detector cannot be compiled; leave out compile=True, or write a file for ONNX "
                "Runtime with fbnetv3-export --format onnx"
            )
        return DeployedDetector(folded_copy(self.model), self._cfg, self.classes, self.source)

    def draw(self, image: ImageLike, detections: Sequence[Detection]) -> Image.Image:
        """Returns a copy of an image with the boxes of detected objects drawn into it.

        Args:
            image: Image of any kind that ``fbnetv3.data.read_image`` accepts.
            detections: Objects in this image, from :meth:`detect`.

        Raises:
            DataError: The image cannot be read.
        """
        # above NAMED_BY_COLOUR classes, captions have names, so that no legend is needed
        return self._drawn(image, detections, NAMED_BY_COLOUR + 1)

    def picture(self, image: ImageLike, detections: Sequence[Detection], title: str) -> Image.Image:
        """Returns the drawing of objects below a title and a legend of their classes.

        Args:
            image: Image of any kind that ``fbnetv3.data.read_image`` accepts.
            detections: Objects in this image, from :meth:`detect`.
            title: Text above the legend.

        Raises:
            DataError: The image cannot be read.
        """
        shown = {self.classes.index(detection.name) for detection in detections}
        legend = legend_of(self.classes, shown)
        drawn = self._drawn(image, detections, len(shown))
        return stacked([heading(max(drawn.width, _TITLE_WIDTH), title, legend), drawn])

    def _drawn(
        self, image: ImageLike, detections: Sequence[Detection], num_classes: int
    ) -> Image.Image:
        index = {name: i for i, name in enumerate(self.classes)}
        # The boxes with the highest scores are drawn last, on top of the others.
        boxes = [
            LabelledBox(d.box, index[d.name], detection_caption(d.name, d.score, num_classes))
            for d in sorted(detections, key=lambda detection: detection.score)
        ]
        return draw_boxes(image, boxes)


class DeployedDetector(Detector):
    """The inference form of a detector, from ``deploy(detector)``; it cannot be trained."""

    def train(self, mode: bool = True) -> DeployedDetector:
        """Keeps evaluation mode.

        Raises:
            DeployError: ``mode`` is True.
        """
        if mode:
            raise DeployError("a deployed detector cannot be trained; train the original one")
        super().train(False)
        return self

    def inference_form(self, *, compile: bool) -> DeployedDetector:
        """Refuses to deploy twice.

        Raises:
            DeployError: Always.
        """
        raise DeployError("the detector is already deployed; use it as it is")


def config_from_metadata(
    metadata: Mapping[str, Any], path: str | os.PathLike[str]
) -> dict[str, Any]:
    """Returns the groups MODEL, INPUT and TEST of the config in a detector's weights file.

    Other groups are ignored: they may hold paths of the machine that wrote the file.

    Args:
        metadata: Metadata of the weights file.
        path: Path of the file in error messages.

    Raises:
        WeightsFileError: The metadata lack one of these groups, or the classes. The yaml of a
            checkpoint may lack INPUT and TEST, whose values are then the defaults.
        YamlError: The config is not valid yaml.
    """
    config = metadata.get("config")
    if isinstance(config, str):  # a checkpoint's yaml, which may lack groups with default values
        parsed = parse_yaml(config)
        config = {**_EMPTY_GROUPS, **parsed} if isinstance(parsed, Mapping) else None
    groups = {key: config.get(key) for key in _CONFIG_GROUPS} if isinstance(config, Mapping) else {}
    is_complete = bool(groups) and all(isinstance(group, Mapping) for group in groups.values())
    if not is_complete or not isinstance(metadata.get("classes"), list):
        raise WeightsFileError(
            f"the metadata of {path} lack {', '.join(_CONFIG_GROUPS)} or classes; use a file that "
            "training exported"
        )
    return groups


def detector_from_file(path: str | os.PathLike[str], *, pretrained: bool = True) -> Detector:
    """Returns the detector in the files of a training, such as ``model_ema.safetensors``.

    Args:
        path: Exported weights, checkpoint or folder of a run: files that hold the config and
            the names of the classes in addition to the weights.
        pretrained: Whether to load the weights. Otherwise they are freshly initialised.

    Raises:
        WeightsFileError: The file is damaged, or does not hold a detector.
        FBNetError: The config in the file is not valid.
        LoadError: The weights do not fit the network that the file describes.
    """
    weights = read_weights(path)
    tensors, metadata = weights.tensors, weights.metadata
    if not weights.is_detector:
        raise WeightsFileError(
            f"{path} does not hold a detector; use a checkpoint, or a file that training exported"
        )
    with data_errors(WeightsFileError, f"the config in the metadata of {path}"):
        cfg = get_cfg()
        cfg.merge_from_other_cfg(config_from_metadata(metadata, path))
        classes = [str(name) for name in metadata["classes"]]
        model, full = build_detector(cfg, classes, torch.device("cpu"))
    if pretrained:
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            raise LoadError(f"{path}: {' '.join(str(error).split())[:200]}") from error
    return Detector(model, full, classes, os.fspath(path)).eval()
