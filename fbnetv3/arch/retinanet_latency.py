"""The parts of a RetinaNet that a latency table measures: blocks, convolutions of the neck, head.

The symbols are those of ``retinanet_cost.py``. All inputs of a table have the same aspect ratio, so
that the height alone stands for the size of a feature map: the fitted coefficients of the blocks
include the constant factor between height and width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fbnetv3.arch.latency_shapes import Kind, Shape, frame_shape, layer_shape
from fbnetv3.arch.layer import Ints
from fbnetv3.arch.retinanet_cost import RetinaNetParts
from fbnetv3.arch.spec import Arch

CONV, HEAD = "neck_conv", "retinanet_head"
"""Values of ``Kind.op`` for a convolution of the neck, and for the whole head."""


def detector_shapes(
    arch: Arch, height: int, widths: Sequence[int], parts: RetinaNetParts
) -> list[Shape]:
    """Returns the shapes of a detector in the order in which its parts run.

    Args:
        arch: Backbone, without the stage of the classifier.
        height: Height of the input in pixels.
        widths: Channels (c3, c4, c5) of the backbone's feature maps.
        parts: Width, depth, norms, anchors and classes of neck and head, in ints.

    Returns:
        The frame (the latency of the whole detector less that of its parts), then the parts: each
        layer of the backbone, each convolution of the neck, and the head.
    """
    size: Ints = height
    shapes = [frame_shape(size)]
    for layer in arch.layers():
        shape, size = layer_shape(layer, size, layer.k, layer.s)
        shapes.append(shape)
    heads = [shape for shape, _ in head_shapes(height, parts)]
    return [*shapes, *neck_shapes(height, widths, parts), *heads]


def neck_shapes(height: Ints, widths: Sequence[Ints], parts: RetinaNetParts) -> list[Shape]:
    """Returns the shapes of the neck's convolutions, in the order in which they are listed here.

    These are the lateral and the output convolution of P5, P4 and P3, then the convolutions of P6
    and P7.

    Args:
        height: Height of the input in pixels.
        widths: Channels (c3, c4, c5) of the backbone's feature maps.
        parts: Width and norm of the neck.
    """
    f, norm = parts.channels, parts.fpn_norm
    shapes = []
    for level, width in ((5, widths[2]), (4, widths[1]), (3, widths[0])):
        side = height // 2**level
        shapes += [_conv(width, f, side, side, 1, norm), _conv(f, f, side, side, 3, norm)]
    c5, c6 = height // 32, (height // 32 + 1) // 2
    top = [(widths[2], c5, c6), (f, c6, (c6 + 1) // 2)]
    return [*shapes, *(_conv(c, f, before, after, 3, "", 2) for c, before, after in top)]


def head_shapes(height: Ints, parts: RetinaNetParts) -> Iterator[tuple[Shape, Any]]:
    """Yields, for each depth of the head, its shape and the mask of the candidates of this depth.

    Args:
        height: Height of the input in pixels.
        parts: Width, depth (``convs``), norm, anchors and classes of the head.
    """
    f, side = parts.channels, height // 8
    outputs = parts.anchors * (parts.classes + 4)
    for convs in np.unique(parts.convs).tolist():
        options = f"convs={convs},norm={parts.head_norm},outputs={outputs}"
        shape = Shape(Kind(HEAD, options=options), f, f, f, 0, side, side)
        yield shape, np.equal(parts.convs, convs)


def _conv(c_in: Ints, c_out: Ints, size: Ints, out: Ints, k: int, norm: str, s: int = 1) -> Shape:
    options = f"norm={norm}" if norm else ""
    return Shape(Kind(CONV, k=k, s=s, options=options), c_in, c_in, c_out, 0, size, out)
