"""Kind, shape and work of blocks, from which ``latency.py`` predicts latencies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3.arch.layer import Ints, Layer
from fbnetv3.arch.ops import get_op
from fbnetv3.arch.spec import Arch

Floats = npt.NDArray[np.float64]
HEAD, FRAME = "head", "frame"
NUMBERS = ("c_in", "mid", "c_out", "squeezed", "size")
_LANES = 8  # channels that a CPU computes at once, so that 20 channels cost as much as 24


@dataclass(frozen=True, order=True)
class Kind:
    """The properties of a block that are not numbers of channels or pixels.

    Attributes:
        op: Op of the table row. ``head`` stands for pooling and classifier, and ``frame`` for the
            rest of a network's latency: the time of the whole network less the times of its blocks
            and its head. A frame has ``c_in`` 3 and the network's resolution as its size.
            ``neck_conv`` and ``retinanet_head`` are parts of detectors (``retinanet_latency.py``).
        k: Kernel size; 0 if the op has none.
        s: Stride.
        act: Activation; empty if there is none.
        se: Gate of the squeeze-and-excitation; empty if there is none.
        options: Other keys of the op that differ from their default, as ``key=value,...``.
    """

    op: str
    k: int = 0
    s: int = 1
    act: str = ""
    se: str = ""
    options: str = ""

    def __str__(self) -> str:
        words = [self.op, f"k {self.k}", f"s {self.s}", self.act, self.se, self.options]
        return " ".join(word for word in words if word and word != "k 0")


@dataclass(frozen=True)
class Shape:
    """Kind and numbers of a block; a number is an int, or an int64 array with one per candidate.

    Attributes:
        kind: Kind of the block.
        c_in: Input channels.
        mid: Channels after expansion.
        c_out: Output channels.
        squeezed: Channels inside the squeeze-and-excitation; 0 without one.
        size: Side of the input in pixels.
        out: Side in pixels after the block's stride, and before its global pool if it has one.
    """

    kind: Kind
    c_in: Ints
    mid: Ints
    c_out: Ints
    squeezed: Ints
    size: Ints
    out: Ints

    @property
    def numbers(self) -> tuple[Ints, ...]:
        """The numbers that identify a shape, in the order of ``NUMBERS``."""
        return (self.c_in, self.mid, self.c_out, self.squeezed, self.size)


def layer_shape(
    layer: Layer,
    size: Ints,
    kernel: int | None,
    stride: int,
    options: Mapping[str, Any] | None = None,
) -> tuple[Shape, Ints]:
    """Returns the shape of a layer and the side of its output.

    Args:
        layer: A layer, whose numbers may be arrays.
        size: Side of the layer's input in pixels.
        kernel: Kernel size, or None for an op without kernel. If the candidates have several, the
            shape is that of the candidates with this one.
        stride: Stride. If the candidates have several, the shape is that of the candidates with
            this one.
        options: Values of the options that differ between candidates; None: no option differs.
    """
    op = get_op(layer.op)
    _, out = op.cost(layer, size)
    single = {**layer.options, **(options or {})}
    others = {k: v for k, v in single.items() if v != op.keys[k].default}
    kind = Kind(
        layer.op,
        kernel or 0,
        stride,
        layer.act or "",
        layer.se or "",
        ",".join(f"{k}={v}" for k, v in sorted(others.items())),
    )
    inner = size if op.pools else out
    shape = Shape(kind, layer.c_in, layer.mid, layer.c_out, layer.se_channels, size, inner)
    return shape, out


def arch_shapes(arch: Arch) -> list[Shape]:
    """Returns the shapes of a network in order: the frame, each layer, the head."""
    size: Ints = arch.resolution
    shapes = [frame_shape(size)]
    for layer in arch.layers():
        shape, size = layer_shape(layer, size, layer.k, layer.s)
        shapes.append(shape)
    return [*shapes, head_shape(arch.blocks[-1].c, size, arch.num_classes)]


def frame_shape(resolution: Ints) -> Shape:
    """Returns the shape of the frame (see :class:`Kind`) for an input of this side in pixels."""
    return Shape(Kind(FRAME), 3, 3, 3, 0, resolution, resolution)


def head_shape(c_in: Ints, size: Ints, num_classes: Ints) -> Shape:
    """Returns the shape of pooling and classifier, for an input map of side ``size`` in pixels."""
    return Shape(Kind(HEAD), c_in, c_in, num_classes, 0, size, size)


def work(shape: Shape) -> Floats:
    """Returns features of a block, in millions, from which its latency is fitted for each kind.

    They are the multiply-adds, moved elements and weights of an inverted bottleneck. For other ops
    they are proxies: factors that are constant in a kind, such as k * k, go into the fitted
    coefficients, and what follows a global pool (in ``head`` and in pooling ops) is counted at the
    size before the pool.

    Returns:
        An array of shape (features,) or (candidates, features), all >= 0. The first two features
        are constants for the overhead of calls: 1 for the block, and 1 for its expansion, or 0 if
        it has none.
    """
    numbers = (*shape.numbers, shape.out)
    c_in, mid, c_out, squeezed, size, out = (np.asarray(n, dtype=np.float64) for n in numbers)
    wide_in, wide_mid, wide_out = (np.ceil(c / _LANES) * _LANES for c in (c_in, mid, c_out))
    expands = np.logical_or(mid != c_in, shape.kind.op == "uib")
    residual = (c_in == c_out) & (shape.kind.s == 1)
    pixels_in, pixels_out = size * size, out * out
    columns: tuple[Any, ...] = (
        np.full(c_in.shape, 1e6),  # call of the block
        expands * 1e6,  # call of the expansion, if there is one
        residual * pixels_out * c_out,  # addition of the shortcut
        pixels_in * c_in,  # elements read
        expands * pixels_in * wide_in * wide_mid,  # multiply-adds of the expansion
        expands * pixels_in * mid,  # elements that the expansion writes
        pixels_out * wide_mid,  # multiply-adds of the depthwise conv, except the factor k * k
        pixels_out * wide_mid * wide_out,  # multiply-adds of the projection
        pixels_out * c_out,  # elements written
        expands * c_in * mid + mid * c_out,  # weights of the 1x1 convs
        mid * squeezed,  # weights of the squeeze-and-excitation
    )
    if shape.kind.op == "fused":  # the last conv is k x k without an expansion, and else 1 x 1
        columns += (~expands * pixels_out * wide_mid * wide_out, ~expands * mid * c_out)
    return np.stack(np.broadcast_arrays(*columns), -1) / 1e6
