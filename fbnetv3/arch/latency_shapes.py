"""Blocks as a latency table sees them: kinds, numbers, and the work that each does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fbnetv3.arch.layer import Ints, Layer
from fbnetv3.arch.ops import get_op
from fbnetv3.arch.spec import Arch

Floats = npt.NDArray[np.float64]
HEAD, FRAME = "head", "frame"
NUMBERS = ("c_in", "mid", "c_out", "squeezed", "size")
_LANES = 8  # channels that a CPU computes at a time: 20 cost as much as 24


@dataclass(frozen=True, order=True)
class Kind:
    """What tells blocks apart beside numbers.

    Attributes:
        op: Of the table row; ``head`` is pooling and classifier, ``frame`` all that is between
            blocks (``c_in`` 3, the network's resolution its size).
        k, s: Kernel size (0: none) and stride.
        act, se: Activation and gate; empty: none.
        options: The op's other keys that have no default value, as ``key=value``.
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
    """A block: its kind and numbers, each an int, or an int64 array of candidates.

    Attributes:
        kind: See :class:`Kind`.
        c_in, mid, c_out, squeezed: Channels; see :class:`Layer`.
        size, out: Sides of the input and of the depthwise conv's output, in pixels.
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
        """The values of NUMBERS."""
        return (self.c_in, self.mid, self.c_out, self.squeezed, self.size)


def layer_shape(layer: Layer, size: Ints, kernel: int | None, stride: int) -> tuple[Shape, Ints]:
    """Returns the shape of a layer and the side of its output.

    Args:
        layer: Numbers may be arrays.
        size: Side of its input.
        kernel, stride: Those of ``layer``, or one of several where they are arrays.
    """
    op = get_op(layer.op)
    _, out = op.cost(layer, size)
    others = {k: v for k, v in layer.options.items() if v != op.keys[k].default}
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
    """Returns the shapes of a network: the frame, each layer, the head."""
    size: Ints = arch.resolution
    found = [frame_shape(size)]
    for layer in arch.layers():
        shape, size = layer_shape(layer, size, layer.k, layer.s)
        found.append(shape)
    return [*found, head_shape(arch.blocks[-1].c, size, arch.num_classes)]


def frame_shape(resolution: Ints) -> Shape:
    return Shape(Kind(FRAME), 3, 3, 3, 0, resolution, resolution)


def head_shape(c_in: Ints, size: Ints, num_classes: Ints) -> Shape:
    return Shape(Kind(HEAD), c_in, c_in, num_classes, 0, size, size)


def work(shape: Shape) -> Floats:
    """Returns what a block does, in millions: (features,) or (candidates, features), all >= 0."""
    numbers = (*shape.numbers, shape.out)
    c_in, mid, c_out, squeezed, size, out = (np.asarray(n, dtype=np.float64) for n in numbers)
    wide_in, wide_mid, wide_out = (np.ceil(c / _LANES) * _LANES for c in (c_in, mid, c_out))
    expands = mid != c_in
    residual = (c_in == c_out) & (shape.kind.s == 1)
    into, over = size * size, out * out
    columns = (
        np.full(c_in.shape, 1e6),
        expands * 1e6,
        residual * over * c_out,
        into * c_in,
        expands * into * wide_in * wide_mid,
        expands * into * mid,
        over * wide_mid,
        over * wide_mid * wide_out,
        over * c_out,
        expands * c_in * mid + mid * c_out,
        mid * squeezed,
    )
    return np.stack(np.broadcast_arrays(*columns), -1) / 1e6
