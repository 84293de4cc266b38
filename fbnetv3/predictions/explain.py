"""Class-activation pictures: where in an image a classifier sees a class.

pytorch-grad-cam computes the maps by LayerCAM (Jiang et al., 2021): the sum over the channels of a
feature map, in which each value is weighted by the positive part of the derivative of the class's
logit with respect to this value.
Unlike Grad-CAM, it does not need the very last feature map, which only has 2 x 2 values in the
networks for images of 32 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from fbnetv3.data.captions import fitted, load_font
from fbnetv3.predictions.errors import PredictError
from fbnetv3.requires import require
from fbnetv3.zoo.classifier import Classifier

Pixels = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]
MODULE, EXTRA = "pytorch_grad_cam", "explain"
# Pixels: smallest long side of a shown image, height of a caption and of its text, and gaps.
_PANEL, _TEXT, _FONT, _GAP = 256, 24, 17, 6
_MIN_SIDE = 7
"""Smallest side of a usable feature map: networks for 224 pixels end with maps of 7 x 7."""


class Explainer:
    """Class-activation maps of a classifier.

    Args:
        classifier: Classifier on its device.

    Attributes:
        layer: Name of the layer whose feature map is weighted, see :func:`last_feature_map`.

    Raises:
        MissingPackageError: pytorch-grad-cam is not installed.
        BrokenPackageError: Importing pytorch-grad-cam fails.
        PredictError: The network, such as a transformer, has no feature map (channels, H, W) of
            sufficient size before its classifier.
    """

    def __init__(self, classifier: Classifier) -> None:
        library = require(MODULE, EXTRA)
        self._target: Any = require(f"{MODULE}.utils.model_targets", EXTRA).ClassifierOutputTarget
        self._overlay: Any = require(f"{MODULE}.utils.image", EXTRA).show_cam_on_image
        self._classifier = classifier
        self.layer = last_feature_map(classifier)
        module = classifier.model.get_submodule(self.layer)
        self._cam: Any = library.LayerCAM(model=classifier.model, target_layers=[module])

    def maps(self, pixels: Pixels, classes: Sequence[str]) -> Map:
        """Returns the map of each class, (classes, H, W), scaled to the range from 0 to 1.

        Args:
            pixels: Crop (H, W, 3) that the network sees.
            classes: Names of classes.
        """
        batch = _network_input(self._classifier, pixels)
        indices = [self._classifier.classes.index(name) for name in classes]
        targets = [self._target(index) for index in indices]
        repeated = batch.repeat(len(indices), 1, 1, 1)
        with torch.enable_grad():
            values: Map = self._cam(input_tensor=repeated, targets=targets)
        return values

    def picture(self, pixels: Pixels, classes: Sequence[tuple[str, float]]) -> Image.Image:
        """Returns the crop and, to its right, a copy per class with its map drawn over it.

        Colours go from blue (0) to red (1).

        Args:
            pixels: Crop (H, W, 3) that the network sees.
            classes: Names of classes with their probabilities, for the captions.
        """
        maps = self.maps(pixels, [name for name, _ in classes])
        panels = [("input", pixels)]
        for (name, probability), values in zip(classes, maps, strict=True):
            overlay = self._overlay(pixels / np.float32(255), values, use_rgb=True)
            panels.append((f"{name} {100 * probability:.1f}%", overlay))
        return _row(panels)


def _network_input(classifier: Classifier, pixels: Pixels) -> Tensor:
    device = next(classifier.model.parameters()).device
    return classifier.transform.normalize(pixels[None].copy()).to(device)


def last_feature_map(classifier: Classifier) -> str:
    """Returns the name of the last layer with a feature map (N, C, H, W) of 7 x 7 or more.

    For images with a side below 28 pixels, the side of the map must be at least a quarter of that
    side, and at least 2.

    Raises:
        PredictError: There is no such layer, or tokens or features in another layout follow it.
    """
    smallest = min(_MIN_SIDE, max(2, int(classifier.transform.rule["resolution"]) // 4))
    for name, shape in reversed(_outputs(classifier)):
        if len(shape) > 2 and (len(shape) != 4 or shape[2] != shape[3]):
            break  # tokens, or channels last
        if len(shape) == 4 and shape[2] >= smallest:
            return name
    raise PredictError(
        f"{classifier.source}: the network has no feature map of a convolution before its "
        "classifier, which --explain needs; use a convolutional network"
    )


def _outputs(classifier: Classifier) -> list[tuple[str, tuple[int, ...]]]:
    """Returns the layers of a network with the shapes of their outputs, in order of execution."""
    shapes: list[tuple[str, tuple[int, ...]]] = []

    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes.append((name, tuple(output.shape)))

        return hook

    model = classifier.model
    hooks = [m.register_forward_hook(record(name)) for name, m in model.named_modules() if name]
    side = int(classifier.transform.rule["resolution"])
    try:
        with torch.no_grad():
            model(_network_input(classifier, np.zeros((side, side, 3), np.uint8)))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _row(panels: Sequence[tuple[str, Pixels]]) -> Image.Image:
    """Returns images of the same size next to each other, each below its caption."""
    height, width = panels[0][1].shape[:2]
    scale = max(1.0, _PANEL / max(height, width))
    size = (round(width * scale), round(height * scale))
    row = Image.new("RGB", (len(panels) * (size[0] + _GAP) + _GAP, size[1] + _TEXT + _GAP), "white")
    pen, font = ImageDraw.Draw(row), load_font(_FONT)
    for number, (caption, pixels) in enumerate(panels):
        left = _GAP + number * (size[0] + _GAP)
        row.paste(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), (left, _TEXT))
        pen.text((left, 1), fitted(caption, font, size[0]), fill="black", font=font)
    return row
