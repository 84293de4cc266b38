"""The network of an exported detector: from RGB pixels of one image to its boxes.

The graph normalises and pads the image, runs backbone and heads, decodes the boxes of the best
anchors of each level of the feature pyramid, and suppresses overlapping boxes of the same class, as
detectron2's RetinaNet does. Height and width of the image are not fixed in the graph.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from fbnetv3.detection.detector import Detector
from fbnetv3.export.errors import ExportError
from fbnetv3.export.network import INPUTS
from fbnetv3.modeling.folding import fold_batch_norm


class DetectorNetwork(nn.Module):
    """Boxes, scores and classes of one image (1, 3, H, W) of RGB pixels.

    The network that is passed in stays as it is; its batch norms are folded in a copy.

    Args:
        detector: Detector whose network is detectron2's RetinaNet, on any backbone.
        input_type: ``float`` for float32 pixels in [0, 1], ``uint8`` for pixels in [0, 255].

    Raises:
        ExportError: The detector is not detectron2's RetinaNet, its anchor generator is not
            ``DefaultAnchorGenerator``, or ``input_type`` is unknown.
    """

    def __init__(self, detector: Detector, input_type: str = "float") -> None:
        super().__init__()
        if input_type not in INPUTS:
            raise ExportError(f"input {input_type!r} is unknown; allowed: {', '.join(INPUTS)}")
        _check_kind(detector.model)
        self.input_type, self.is_bgr = input_type, detector.is_bgr
        model: Any = copy.deepcopy(detector.model).cpu().eval().requires_grad_(False)
        fold_batch_norm(model)
        model = model.requires_grad_(False).to(memory_format=torch.contiguous_format)
        self.backbone, self.head = model.backbone, model.head
        self.features: tuple[str, ...] = tuple(model.head_in_features)
        self.num_classes: int = model.num_classes
        self._set_normalisation(model)
        self._set_anchors(model.anchor_generator)
        self.box_weights = tuple(model.box2box_transform.weights)
        self.scale_clamp: float = model.box2box_transform.scale_clamp
        self.score_threshold: float = model.test_score_thresh
        self.topk_candidates: int = model.test_topk_candidates
        self.nms_threshold: float = model.test_nms_thresh
        self.max_detections: int = model.max_detections_per_image
        self.eval()

    def _set_normalisation(self, model: Any) -> None:
        # detectron2 states mean and standard deviation of pixels in [0, 255]
        unit = 1.0 if self.input_type == "uint8" else 255.0
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", model.pixel_mean.reshape(1, 3, 1, 1) / unit)
        self.register_buffer("std", model.pixel_std.reshape(1, 3, 1, 1) / unit)
        self.divisor = max(1, int(model.backbone.size_divisibility))

    def _set_anchors(self, generator: Any) -> None:
        self.strides: tuple[int, ...] = tuple(generator.strides)
        self.offset: float = generator.offset
        for level, cells in enumerate(generator.cell_anchors):
            self.register_buffer(f"cells{level}", cells.clone())  # (anchors of a cell, 4)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the detected objects of an image, by descending score.

        Args:
            pixels: RGB pixels (1, 3, H, W), already resized.

        Returns:
            Boxes (N, 4) with left, top, right and bottom in pixels of the input; scores (N,) in
            [0, 1]; and classes (N,), integers of 64 bits. N is at most ``max_detections``.
        """
        height, width = pixels.shape[2], pixels.shape[3]
        images = pixels.flip(1) if self.is_bgr else pixels
        images = (images.to(torch.float32) - self.mean) / self.std
        bottom, right = self._padding(height), self._padding(width)
        features = self.backbone(F.pad(images, (0, right, 0, bottom)))
        logits, deltas = self.head([features[name] for name in self.features])
        levels = [
            self._decode(level, *outputs)
            for level, outputs in enumerate(zip(logits, deltas, strict=True))
        ]
        boxes, scores, classes = (torch.cat(parts) for parts in zip(*levels, strict=True))
        kept = nms(self._shifted_by_class(boxes, classes), scores, self.nms_threshold)
        kept = kept[: self.max_detections]
        return _clipped(boxes[kept], scores[kept], classes[kept], height, width)

    def _padding(self, side: int) -> int:
        """Returns the pixels to add to a side so that it is a multiple of the divisor."""
        # From this form torch.export sees that side + padding is a multiple of the divisor; from
        # -side % divisor it does not.
        return (side + self.divisor - 1) // self.divisor * self.divisor - side

    def _decode(self, level: int, logits: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the boxes, scores and classes of the best (anchor, class) pairs of a level."""
        height, width = logits.shape[2], logits.shape[3]
        scores = _per_anchor(logits, self.num_classes).sigmoid()  # (anchors, classes)
        pairs = torch.nonzero(scores > self.score_threshold)
        anchors, classes = pairs[:, 0], pairs[:, 1]
        values, order = scores[anchors, classes].sort(descending=True)
        values, order = values[: self.topk_candidates], order[: self.topk_candidates]
        anchors, classes = anchors[order], classes[order]
        grid = self._anchors(level, height, width)
        boxes = self._boxes(grid[anchors], _per_anchor(deltas, 4)[anchors])
        return boxes, values, classes

    def _anchors(self, level: int, height: int, width: int) -> Tensor:
        """Returns the anchors (height * width * anchors of a cell, 4) of a level, in pixels."""
        cells, stride = self.get_buffer(f"cells{level}"), float(self.strides[level])
        x = (torch.arange(width) + self.offset) * stride
        y = (torch.arange(height) + self.offset) * stride
        x, y = x.reshape(1, -1, 1), y.reshape(-1, 1, 1)
        sides = [x + cells[:, 0], y + cells[:, 1], x + cells[:, 2], y + cells[:, 3]]
        zeros = torch.zeros_like(x + y + cells[:, 0])
        return torch.stack([side + zeros for side in sides], dim=3).reshape(-1, 4)

    def _boxes(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """Returns boxes (N, 4) for anchors (N, 4) and their deltas (N, 4).

        Equation of R-CNN: with weights w, the centre moves by dx / w_x of the anchor's width, and
        the width is multiplied by exp(dw / w_w); likewise for y and the height.
        """
        wx, wy, ww, wh = self.box_weights
        widths, heights = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
        x = deltas[:, 0] / wx * widths + (anchors[:, 0] + 0.5 * widths)
        y = deltas[:, 1] / wy * heights + (anchors[:, 1] + 0.5 * heights)
        w = torch.exp(torch.clamp(deltas[:, 2] / ww, max=self.scale_clamp)) * widths
        h = torch.exp(torch.clamp(deltas[:, 3] / wh, max=self.scale_clamp)) * heights
        return torch.stack([x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h], dim=1)

    def _shifted_by_class(self, boxes: Tensor, classes: Tensor) -> Tensor:
        """Returns boxes shifted by class, so that boxes of different classes do not overlap.

        The shifts form a square grid. Along a single row of many classes, coordinates would be so
        large that float32 rounds them by parts of a pixel.
        """
        columns = math.ceil(math.sqrt(self.num_classes))
        # the zero keeps the maximum defined for images without a box
        span = 2 * torch.cat([boxes.flatten().abs(), boxes.new_zeros(1)]).max() + 1
        column = classes % columns
        row = (classes - column) // columns
        return boxes + torch.stack([column, row, column, row], dim=1) * span

    def example(self, height: int, width: int, seed: int = 0) -> Tensor:
        """Returns random pixels (1, 3, height, width) of the type that the network takes."""
        generator = torch.Generator().manual_seed(seed)
        shape = (1, 3, height, width)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return self.as_input(pixels)

    def as_input(self, pixels: Tensor) -> Tensor:
        """Returns uint8 pixels as the type that the network takes."""
        return pixels if self.input_type == "uint8" else pixels.to(torch.float32) / 255


def _check_kind(model: nn.Module) -> None:
    kind = type(model).__name__
    # The exact class, not isinstance: a subclass may decode boxes in another way.
    if f"{type(model).__module__}.{kind}" != "detectron2.modeling.meta_arch.retinanet.RetinaNet":
        raise ExportError(f"{kind} cannot be exported; detectors that can: RetinaNet")
    anchors = type(model.anchor_generator).__name__
    if anchors != "DefaultAnchorGenerator":
        raise ExportError(
            f"MODEL.ANCHOR_GENERATOR.NAME {anchors} cannot be exported; allowed: "
            "DefaultAnchorGenerator"
        )


def _per_anchor(outputs: Tensor, size: int) -> Tensor:
    """Returns (H * W * A, size) for outputs (1, A * size, H, W) of A anchors per cell."""
    height, width = outputs.shape[2], outputs.shape[3]
    anchors: int = outputs.shape[1] // size
    grid = outputs.reshape(anchors, size, height, width).permute(2, 3, 0, 1)
    return grid.reshape(-1, size)


def _clipped(
    boxes: Tensor, scores: Tensor, classes: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Clips boxes to the image and leaves out boxes that are outside of it."""
    x, y = boxes[:, 0::2].clamp(min=0), boxes[:, 1::2].clamp(min=0)
    limit_x, limit_y = (torch.scalar_tensor(side, dtype=x.dtype) for side in (width, height))
    x, y = torch.minimum(x, limit_x), torch.minimum(y, limit_y)
    inside = torch.nonzero((x[:, 1] > x[:, 0]) & (y[:, 1] > y[:, 0])).squeeze(1)
    clipped = torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)
    return clipped[inside], scores[inside], classes[inside]
