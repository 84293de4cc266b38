"""RetinaNets of a search space, built for the measurement of a latency table.

Backbone, feature pyramid and head are timed, in evaluation mode, for one image that already has the
size of the network's input. Boxes are not decoded, since the time of decoding depends on the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fbnetv3.arch import Arch
from fbnetv3.arch.latency_shapes import Shape
from fbnetv3.arch.retinanet_cost import RetinaNetParts
from fbnetv3.arch.retinanet_latency import detector_shapes
from fbnetv3.arch.scaling import aligned
from fbnetv3.benchmark.blocks import TimedNetwork
from fbnetv3.detection.backbone import FBNetBottomUp
from fbnetv3.detection.detectron2_parts import FPN, LastLevelP6P7, RetinaNetHead, ShapeSpec
from fbnetv3.search.fbnet.detector_costs import DetectorStatistics
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.search.fbnet.space_table import Ref

_LEVELS = ("p3", "p4", "p5", "p6", "p7")


@dataclass(frozen=True)
class DetectorDesign:
    """A RetinaNet without weights.

    Attributes:
        arch: Backbone, without the stage of the classifier.
        widths: Channels of the feature maps of strides 8, 16 and 32.
        parts: Width, depth, norms, anchors and classes of neck and head.
        size: Height and width of the input in pixels.
    """

    arch: Arch
    widths: tuple[int, ...]
    parts: RetinaNetParts
    size: tuple[int, int]

    @property
    def shapes(self) -> list[Shape]:
        """Shapes of the frame (the latency outside of the layers) and of each layer, in order."""
        return detector_shapes(self.arch, self.size[0], self.widths, self.parts)


def distinct_designs(
    statistics: DetectorStatistics, configs: Iterable[dict[str, Any]], count: int
) -> list[DetectorDesign]:
    """Returns the first distinct designs of candidates, up to ``count``.

    Args:
        statistics: Costs of the space, whose method ``design`` reads the design of a candidate.
        configs: Value by variable of each candidate.
        count: Largest number of designs.
    """
    distinct: dict[str, DetectorDesign] = {}
    for config in configs:
        arch, widths, parts, size = statistics.design(config)
        design = DetectorDesign(aligned(arch), widths, parts, size)
        distinct.setdefault(repr(design), design)
        if len(distinct) == count:
            break
    return list(distinct.values())


def with_all_depths(space: FBNetSpace, configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns each candidate once per depth of the head; if the depth is fixed, ``configs`` itself.

    A latency table predicts nothing for a depth of the head that was not measured.
    """
    depth = space.detector.get("head_convs")
    if not isinstance(depth, Ref):
        return configs
    parameter = space.space[depth.name]
    depths = [parameter.value(level) for level in range(parameter.size)]
    return [{**config, depth.name: value} for config in configs for value in depths]


class _Network(nn.Module):
    """Backbone, pyramid and head of a RetinaNet: from images to scores and box offsets."""

    def __init__(self, design: DetectorDesign) -> None:
        super().__init__()
        parts = design.parts
        f, bottom_up = int(parts.channels), FBNetBottomUp(design.arch)
        top = LastLevelP6P7(design.widths[-1], f, "c5")
        self.backbone = FPN(bottom_up, ["c3", "c4", "c5"], f, parts.fpn_norm, top)
        self.head = RetinaNetHead(
            input_shape=[ShapeSpec(channels=f)] * len(_LEVELS),
            num_classes=parts.classes,
            num_anchors=parts.anchors,
            conv_dims=[f] * int(parts.convs),
            norm=parts.head_norm,
        )

    def forward(self, images: Tensor) -> Any:
        features = self.backbone(images)
        return self.head([features[level] for level in _LEVELS])

    def timed_layers(self) -> list[nn.Module]:
        """Returns the modules whose shapes are :attr:`DetectorDesign.shapes`, without the frame."""
        fpn = self.backbone
        neck = [getattr(fpn, f"fpn_{kind}{i}") for i in (5, 4, 3) for kind in ("lateral", "output")]
        blocks = [block for stage in fpn.bottom_up.stages for block in stage]
        return [*blocks, *neck, fpn.top_block.p6, fpn.top_block.p7, self.head]


def build_timed_detector(design: DetectorDesign, *, by_layer: bool) -> TimedNetwork:
    """Builds a RetinaNet with random weights, in evaluation mode.

    Args:
        design: The RetinaNet.
        by_layer: Whether to time each layer separately, too.
    """
    torch.manual_seed(0)
    model = _Network(design).eval().to(memory_format=torch.channels_last)
    layers: Sequence[nn.Module] = model.timed_layers() if by_layer else []
    return TimedNetwork(design.arch, model, list(layers), design.size)
