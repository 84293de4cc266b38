"""Variants of an architecture, made by functions: nothing is copied in yaml."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from fbnetv3.arch.cost import count_cost, count_cost_arrays
from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.layer import round_channels
from fbnetv3.arch.ops import get_op
from fbnetv3.arch.spec import Arch, Block

# Compound scaling multiplies depth, width and resolution by these to the power of one number;
# each unit of it doubles the MACs (EfficientNet's coefficients).
ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15

_MOST_DOUBLINGS = 16.0
# the resolution alone may make up for a step of channels and repeats of this size in MACs
_MOST_REFINED = 1.5
_WINDOW = 16
_PHI_STEP = 1e-3
_SMALLEST_SIDE = 32
_WIDTH_STEP = 8


ALIGNED = "_aligned"
"""What ``aligned`` adds to a name."""


def _without(block: Block, *options: str) -> Block:
    kept = {key: value for key, value in dict(block.options).items() if key not in options}
    return block.replace(options=kept)


def _named(arch: Arch, suffix: str) -> str:
    return arch.name if arch.name.endswith(suffix) else arch.name + suffix


def aligned(arch: Arch) -> Arch:
    """Returns the architecture with k // 2 paddings, for detection.

    Feature pyramids add maps whose sizes differ by exactly 2; the special paddings of some
    tables (``dw_padding``) spoil that. Weights fit both forms.
    """
    blocks = tuple(_without(block, "dw_padding") for block in arch.blocks)
    return arch.replace(name=_named(arch, ALIGNED), blocks=blocks)


def low_resolution(arch: Arch, resolution: int = 32) -> Arch:
    """Returns the paper's form for small images (CIFAR): the second stride-2 row gets stride 1.

    Args:
        arch: A table with two strided rows or more.
        resolution: Side of the input in pixels.

    Raises:
        ArchError: There is no second strided row.
    """
    strided = [row for row, block in enumerate(arch.blocks) if block.s > 1]
    if len(strided) < 2:
        problem = "no second row with a stride"
        raise ArchError(problem, arch=arch.name, key="s", value=1, allowed="two strided rows")
    blocks = list(arch.blocks)
    second = _without(blocks[strided[1]], "dw_padding")
    blocks[strided[1]] = second.replace(s=1)
    name = _named(arch, f"_low{resolution}")
    return arch.replace(name=name, blocks=tuple(blocks), resolution=resolution)


VARIANTS: dict[str, Callable[[Arch, int], Arch]] = {
    "aligned": lambda arch, resolution: aligned(arch),
    "low_resolution": low_resolution,
}
"""Forms of an architecture that configs and weight records name: (arch, side in pixels) -> arch."""


def with_num_classes(arch: Arch, num_classes: int) -> Arch:
    """Returns the architecture with another number of classes; the network keeps its name."""
    return arch.replace(num_classes=num_classes)


def scale(
    arch: Arch, width: float = 1.0, depth: float = 1.0, resolution: int | None = None
) -> Arch:
    """Returns the architecture made wider, deeper or for other images.

    As from the paper's E to its F: a row's repeats are rounded (halves up), its channels are
    rounded to the divisor, and expansions, kernels and the width of a pooling row stay. The
    first and the last row are not repeated.

    Args:
        arch: The table to scale.
        width: Factor of the output channels of every row but pooling ones; > 0.
        depth: Factor of the repeats of every row but the first and the last; > 0.
        resolution: Side of the input in pixels; None keeps it.

    Raises:
        ArchError: A factor is not positive.
    """
    for key, value in (("width", width), ("depth", depth)):
        if not 0 < value < math.inf:
            raise ArchError("not allowed", key=key, value=value, allowed="numbers > 0")
    last = len(arch.blocks) - 1
    blocks = tuple(
        _scaled(block, width, 1.0 if row in (0, last) else depth, arch.width_divisor)
        for row, block in enumerate(arch.blocks)
    )
    side = arch.resolution if resolution is None else resolution
    parts = (("_w", width, 1), ("_d", depth, 1), ("_r", side, arch.resolution))
    suffix = "".join(f"{letter}{value:.4g}" for letter, value, same in parts if value != same)
    return arch.replace(name=arch.name + suffix, blocks=blocks, resolution=side)


def _scaled(block: Block, width: float, depth: float, divisor: int | None) -> Block:
    wide = block.c if width == 1 or get_op(block.op).pools else block.c * width
    c = wide if wide == block.c else round_channels(wide, divisor or _WIDTH_STEP)
    return block.replace(c=c, n=max(1, math.floor(block.n * depth + 0.5)))


def scale_to_macs(
    arch: Arch,
    macs: float,
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    tolerance: float = 0.03,
) -> Arch:
    """Returns the architecture scaled in depth, width and resolution together to a MACs target.

    One number phi sets all three: depth ``alpha ** phi``, width ``beta ** phi``, resolution
    ``gamma ** phi``. Channels and repeats move in steps; what these leave open the resolution
    closes, in multiples of 8 pixels if that is near enough, else of 2; and where it moves in
    steps too (small images), width and depth are shifted by up to one unit of phi.

    Args:
        arch: The table to scale.
        macs: The target, in multiply-adds as :class:`Cost` counts them (400e6, not 400).
        alpha, beta, gamma: Growth of depth, width and resolution; >= 1, not all 1.
        tolerance: How far off the result may be, as a share of the target.

    Raises:
        ArchError: The target is out of reach; the message names the nearest one that is not.
    """
    if not 0 < macs < math.inf:
        raise ArchError("not allowed", key="macs", value=macs, allowed="numbers > 0")
    if min(alpha, beta, gamma) < 1 or alpha == beta == gamma == 1:
        growth = (alpha, beta, gamma)
        raise ArchError("not allowed", key="growth", value=growth, allowed=">= 1, not all 1")
    growth = Growth(alpha, beta, gamma)
    phi = _bracket(arch, macs, growth)
    nearest = arch
    for found in _ever_looser(arch, macs, phi, growth):
        nearest = min((nearest, *found), key=lambda candidate: _distance(candidate, macs))
        if _distance(nearest, macs) <= tolerance:
            return nearest.replace(name=f"{arch.name}_{macs / 1e6:.4g}m")
    raise _out_of_reach(arch, macs, nearest)


def _macs(arch: Arch) -> int:
    """Returns the MACs, 0 where the network is too deep for so small an image."""
    try:
        return count_cost(arch).macs
    except ArchError:
        return 0


def _distance(arch: Arch, macs: float) -> float:
    """Returns how far off the target a network is, as a share of the target."""
    found = _macs(arch)
    return abs(found / macs - 1) if found else math.inf


def _out_of_reach(arch: Arch, macs: float, nearest: Arch) -> ArchError:
    reachable = _macs(nearest)
    allowed = f"the nearest reachable is {reachable} ({reachable / 1e6:.4g}M)"
    problem = "out of reach of compound scaling"
    return ArchError(problem, arch=arch.name, key="macs", value=macs, allowed=allowed)


class Growth(NamedTuple):
    """What depth, width and resolution are multiplied by per unit of phi."""

    depth: float
    width: float
    resolution: float


def _compound(
    arch: Arch, phi: float, growth: Growth, wider: float = 0.0, deeper: float = 0.0
) -> Arch:
    """Returns the network at phi, its width and depth shifted by so many units."""
    smallest = min(_SMALLEST_SIDE, arch.resolution)
    side = max(smallest, round(arch.resolution * growth.resolution**phi / 8) * 8)
    width, depth = growth.width ** (phi + wider), growth.depth ** (phi + deeper)
    return scale(arch, width, depth, side if growth.resolution > 1 else None)


def _bracket(arch: Arch, macs: float, growth: Growth) -> float:
    """Returns the phi at which the MACs step over the target, or the limit."""
    low, high = -_MOST_DOUBLINGS, _MOST_DOUBLINGS
    while high - low > _PHI_STEP:
        middle = (low + high) / 2
        if _macs(_compound(arch, middle, growth)) < macs:
            low = middle
        else:
            high = middle
    return low


def _ever_looser(arch: Arch, macs: float, phi: float, growth: Growth) -> Iterator[list[Arch]]:
    """Yields lists of candidates: first other resolutions, then other widths and depths."""
    ends = [_compound(arch, value, growth) for value in (phi, phi + _PHI_STEP)]
    yield ends
    if growth.resolution > 1:
        for step in (8, 2):
            yield [_refined(end, macs, step) for end in ends]
    shifts = [fifth / 5 for fifth in range(-5, 6)]
    shifted = [_compound(arch, phi, growth, wider, deeper) for wider in shifts for deeper in shifts]
    yield shifted
    if growth.resolution > 1:
        yield [_refined(candidate, macs, 2) for candidate in shifted]


def _refined(arch: Arch, macs: float, step: int) -> Arch:
    """Returns the network at the resolution, not far off, that brings it closest to the target."""
    ratio = min(_MOST_REFINED, max(1 / _MOST_REFINED, macs / max(1, _macs(arch))))
    smallest = min(_SMALLEST_SIDE, arch.resolution)
    middle = round(arch.resolution * math.sqrt(ratio) / step) * step
    sides = np.arange(middle - _WINDOW, middle + _WINDOW + 1, step)
    sides = sides[sides >= smallest]
    if not sides.size:
        return arch
    closest = np.argmin(np.abs(_macs_at(arch, sides) - macs))
    return arch.replace(resolution=int(sides[closest]))


def _macs_at(arch: Arch, sides: np.ndarray) -> np.ndarray:
    """Returns the MACs at each resolution, 0 where it is too small."""
    divisor, classes = arch.width_divisor, arch.num_classes
    try:
        cost = count_cost_arrays(arch.blocks, sides, width_divisor=divisor, num_classes=classes)
    except ArchError:
        return np.array([_macs(arch.replace(resolution=int(side))) for side in sides])
    return cost.macs
