"""Exact cost of a RetinaNet on an FBNet: backbone, feature pyramid and head, by arithmetic.

Symbols: the input has h x w pixels, multiples of 32; c3, c4 and c5 are the channels of the feature
maps of strides 8, 16 and 32; F is the width of the pyramid P3 to P7, and of the head, whose two
branches have D convolutions each, besides the last one; A is the number of anchors per location,
and K is the number of classes. h, w, c3, c4, c5, F and D may be ints or int64 arrays of shape
(candidates,).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from fbnetv3.arch.cost import count_rows
from fbnetv3.arch.layer import Ints
from fbnetv3.arch.ops import Cost, conv_cost, get_op
from fbnetv3.arch.spec import Arch, Block

STRIDE = 32
"""Largest stride of the backbone: images are padded to multiples of it."""
_LEVELS = (3, 4, 5)  # levels of the backbone's feature maps: level l has stride 2**l


def trunk(arch: Arch) -> Arch:
    """Returns the architecture without the stage that belongs to the classifier.

    The last stage belongs to the classifier if it consists only of pooling ops and 1 x 1
    convolutions, and is not stage 0.
    """
    last = [block for block in arch.blocks if block.stage == arch.blocks[-1].stage]
    if all(map(_belongs_to_classifier, last)) and last[0].stage > 0:
        return arch.replace(blocks=arch.blocks[: -len(last)])
    return arch


def _belongs_to_classifier(block: Block) -> bool:
    op = get_op(block.op)
    return op.pools or (op.is_conv and block.k == 1)


def input_size(short_side: Ints, aspect_ratio: float, max_size: Ints) -> tuple[Ints, Ints]:
    """Returns the height and the width, in pixels, of a network's input for a landscape image.

    The image is resized as detectron2's ResizeShortestEdge does, and padded to multiples of 32.

    Args:
        short_side: Length of the shorter side after resizing.
        aspect_ratio: Longer side of the image divided by its shorter side; >= 1.
        max_size: Largest length of the longer side after resizing.
    """
    longer = np.asarray(short_side, dtype=np.float64) * aspect_ratio
    scale = np.minimum(1.0, np.asarray(max_size) / longer)
    sides = (np.asarray(short_side) * scale, longer * scale)
    height, width = ((np.floor(s + 0.5).astype(np.int64) + 31) // STRIDE * STRIDE for s in sides)
    return (int(height), int(width)) if np.ndim(height) == 0 else (height, width)


@dataclass(frozen=True)
class RetinaNetParts:
    """The parameters of pyramid and head on which their cost depends.

    Attributes:
        channels: Width F of the pyramid and of the head.
        convs: Convolutions D of each of the head's branches, besides the last one.
        anchors: Anchors A per location.
        classes: Classes K.
        fpn_norm: Norm of the pyramid's lateral and output convolutions (MODEL.FPN.NORM). If "",
            these convolutions have biases and no norm.
        head_norm: Norm in the head's branches (MODEL.RETINANET.NORM). If "", there is no norm; the
            convolutions have biases in any case.
    """

    channels: Ints
    convs: Ints
    anchors: int
    classes: int
    fpn_norm: str = ""
    head_norm: str = ""


def count_trunk(
    rows: Sequence[Block | Mapping[str, Any]],
    size: tuple[Ints, Ints],
    width_divisor: int | None = 8,
) -> Cost:
    """Returns the cost of the backbone.

    Args:
        rows: Rows of the table without those of the classifier (see :func:`trunk`), as for
            :func:`~fbnetv3.arch.cost.count_cost_arrays`; their paddings are k // 2.
        size: Height h and width w of the input. With paddings of k // 2, cost is an affine function
            of the number of pixels, so that cost(h x w) follows exactly from the costs of square
            inputs: cost(h x h) + h / (h + w) * (cost(w x w) - cost(h x h)).
        width_divisor: Divisor of channel counts, as in :class:`Arch`.

    Raises:
        ArchError: A row is not valid.
    """
    height, width = size
    square, _, _ = count_rows(rows, height, width_divisor)
    if np.array_equal(height, width):
        return square
    other, _, _ = count_rows(rows, width, width_divisor)
    return Cost(
        **{
            f.name: a + (b - a) * height // (height + width)
            for f in fields(Cost)
            for a, b in [(getattr(square, f.name), getattr(other, f.name))]
        }
    )


def neck_cost(widths: Sequence[Ints], size: tuple[Ints, Ints], parts: RetinaNetParts) -> Cost:
    """Returns the cost of the pyramid: lateral and output convolutions, P6 and P7.

    Args:
        widths: Channels (c3, c4, c5) of the backbone's feature maps.
        size: Height and width of the input in pixels.
        parts: Width and norm of the pyramid.
    """
    pixels, f = _pixels(size), parts.channels
    options: dict[str, Any] = {"bias": not parts.fpn_norm, "bn": _has_affine(parts.fpn_norm)}
    lateral = [_conv(c, f, n, 1, **options) for c, n in zip(widths, pixels[:3], strict=True)]
    output = [_conv(f, f, n, 3, **options) for n in pixels[:3]]
    top = [_conv(c, f, n, 3, bias=True) for c, n in zip((widths[-1], f), pixels[3:], strict=True)]
    return _total([*lateral, *output, *top])


def head_cost(size: tuple[Ints, Ints], parts: RetinaNetParts) -> Cost:
    """Returns the cost of the head, which is applied to each level with the same weights.

    Args:
        size: Height and width of the input in pixels.
        parts: Width and depth of the head, its norm, anchors and classes.
    """
    pixels, f = sum(_pixels(size)), parts.channels
    hidden = _conv(f, f, pixels, 3, bias=True, bn=_has_affine(parts.head_norm)) * 2 * parts.convs
    scores = _conv(f, parts.anchors * parts.classes, pixels, 3, bias=True)
    return hidden + scores + _conv(f, parts.anchors * 4, pixels, 3, bias=True)


def _pixels(size: tuple[Ints, Ints]) -> list[Ints]:
    """Returns the number of pixels of each of the levels P3 to P7."""
    height, width = size
    sides = [(height // 2**level, width // 2**level) for level in _LEVELS]
    for _ in range(2):  # P6 and P7: 3 x 3 convolutions of stride 2 and padding 1
        sides.append(((sides[-1][0] + 1) // 2, (sides[-1][1] + 1) // 2))
    return [h * w for h, w in sides]


def _has_affine(norm: str) -> bool:
    return norm not in ("", "FrozenBN")


def _conv(c_in: Ints, c_out: Ints, pixels: Ints, k: int, *, bias: bool, bn: bool = False) -> Cost:
    """Returns the cost of a k x k convolution whose output has ``pixels`` pixels."""
    one = conv_cost(c_in, c_out, 1, k=k, bias=bias, bn=bn)
    return Cost(
        macs_conv=one.macs_conv * pixels,
        params=one.params,
        conv_weights=one.conv_weights,
        activations=one.activations * pixels,
    )


def _total(costs: Iterable[Cost]) -> Cost:
    total = Cost()
    for cost in costs:
        total += cost
    return total
