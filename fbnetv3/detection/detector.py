"""A detector ready for use: images in, boxes out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.data.transforms import ResizeShortestEdge
from PIL import Image
from torch import Tensor, nn

from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.detection.pictures import Drawn, draw_boxes
from fbnetv3.weights.errors import LoadError, WeightsFileError
from fbnetv3.weights.files import read_tensors

_TOLD = ("MODEL", "INPUT", "TEST")


@dataclass(frozen=True)
class Detection:
    """A found object.

    Attributes:
        name: Of its class.
        score: In 0..1.
        box: Left, top, right, bottom in pixels of the given image.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]


class Detector(nn.Module):
    """A detector with its preprocessing and the names of its classes.

    In go images: Pillow images of any mode and size, or uint8 tensors 3 x H x W in RGB. Resizing
    and normalisation are done inside. Out comes, for each image, what torchvision's detectors
    give: a dict of ``boxes`` (N x 4, float, left, top, right, bottom in pixels of the given image),
    ``scores`` (N, in 0..1, falling) and ``labels`` (N, int, indices into ``classes``).
    :meth:`detect` gives the same as a list of :class:`Detection`.

    Args:
        model: Of detectron2.
        cfg: Its config: INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST and FORMAT are used.
        classes: Names.
        source: Where the weights are from.

    Example:
        >>> detector = detector_from_file("output/bccd/model_ema.safetensors")
        >>> for found in detector.detect(Image.open("blood.jpg"), threshold=0.5):
        ...     print(found.name, found.score, found.box)
    """

    def __init__(
        self, model: nn.Module, cfg: CfgNode, classes: Sequence[str], source: str = ""
    ) -> None:
        super().__init__()
        self.model, self.classes, self.source = model, tuple(classes), source
        self._resize = ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        self._is_bgr = cfg.INPUT.FORMAT == "BGR"

    @torch.inference_mode()
    def forward(self, images: Sequence[Image.Image | Tensor]) -> list[dict[str, Tensor]]:
        """Detects objects; see the class for what goes in and comes out.

        Called one by one, images give what evaluation gives; together they are padded.
        """
        was_training = self.model.training
        self.model.eval()
        try:
            outputs = self.model([self._input(image) for image in images])
        finally:
            self.model.train(was_training)
        found = [output["instances"] for output in outputs]
        return [
            {"boxes": i.pred_boxes.tensor, "scores": i.scores, "labels": i.pred_classes}
            for i in found
        ]

    def _input(self, image: Image.Image | Tensor) -> dict[str, Any]:
        if isinstance(image, Tensor):
            pixels = image.permute(1, 2, 0).cpu().numpy()
        else:
            pixels = np.asarray(image.convert("RGB"))
        height, width = pixels.shape[:2]
        pixels = pixels[:, :, ::-1] if self._is_bgr else pixels
        resized = self._resize.get_transform(pixels).apply_image(pixels)
        tensor = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}

    def detect(self, image: Image.Image, threshold: float = 0.3) -> list[Detection]:
        """Returns the objects of an image whose score is ``threshold`` or more, best first."""
        (found,) = self([image])
        columns = (found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist())
        return [
            Detection(self.classes[label], score, (box[0], box[1], box[2], box[3]))
            for box, score, label in zip(*columns, strict=True)
            if score >= threshold
        ]

    def draw(self, image: Image.Image, detections: Sequence[Detection]) -> Image.Image:
        """Returns a copy of an image with the boxes of objects found in it."""
        number = {name: i for i, name in enumerate(self.classes)}
        worst_first = sorted(detections, key=lambda found: found.score)
        return draw_boxes(
            image,
            [Drawn(d.box, number[d.name], f"{d.name} {100 * d.score:.0f}") for d in worst_first],
        )


def is_detector_file(metadata: Mapping[str, Any]) -> bool:
    """Whether the metadata of a weights file are a detector's."""
    return metadata.get("task") == "detection"


def told_config(metadata: Mapping[str, Any], path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns what a detector's file tells of its config: the network and its input, no more.

    Args:
        metadata: Of the file.
        path: Of the file, for errors.

    Raises:
        WeightsFileError: It tells no config or no classes.
    """
    config = metadata.get("config")
    # not all that it may hold: a path of the writer's machine, as OUTPUT_DIR, is none of ours
    told = {key: config.get(key) for key in _TOLD} if isinstance(config, Mapping) else {}
    is_whole = bool(told) and all(isinstance(group, Mapping) for group in told.values())
    if not is_whole or not isinstance(metadata.get("classes"), list):
        raise WeightsFileError(
            f"{path} does not tell {', '.join(_TOLD)} and classes; use one that training exported"
        )
    return told


def detector_from_file(path: str | os.PathLike[str], *, pretrained: bool = True) -> Detector:
    """Makes a detector of a file that training exported (``model_ema.safetensors``).

    Args:
        path: The file; it tells config and classes.
        pretrained: Load its weights; else their random start.

    Raises:
        WeightsFileError: It is broken, or no detector's.
        LoadError: It lacks tensors.
    """
    from fbnetv3.detection.build import build_detector

    tensors, metadata = read_tensors(path)
    if not is_detector_file(metadata):
        raise WeightsFileError(f"{path} is not of a detector; use a file that training exported")
    cfg = get_cfg()
    cfg.merge_from_other_cfg(told_config(metadata, path))
    classes = [str(name) for name in metadata["classes"]]
    model, full = build_detector(cfg, classes, torch.device("cpu"))
    if pretrained:
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            raise LoadError(f"{path}: {' '.join(str(error).split())[:200]}") from error
    return Detector(model, full, classes, os.fspath(path)).eval()
