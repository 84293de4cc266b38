"""Variants of an architecture, computed from its table: aligned, low-resolution and scaled."""

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

# EfficientNet's coefficients of compound scaling: depth, width and resolution are multiplied by
# ALPHA, BETA and GAMMA to the power of phi. An increase of phi by 1 about doubles the MACs.
ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15

_MAX_PHI = 16.0  # phi is searched between -_MAX_PHI and _MAX_PHI, to within _PHI_STEP
_PHI_STEP = 1e-3
# Limit of the ratio of the target MACs to a network's, and of its inverse, in the estimate of the
# resolution at which the network has the target MACs.
_MAX_REFINEMENT = 1.5
# Largest differences between the phi of width or depth and that of the network. For small images,
# the MACs jump by a factor of about 2 where the side of the last maps grows from 1 to 2 pixels.
_SHIFTS = (1.0, 3.0)
_SIDE_WINDOW = 16  # resolutions up to this many pixels from the estimate are tried
_MIN_SIDE = 32
_MAX_FACTOR = 1e6  # largest allowed factor of width or depth
_WIDTH_STEP = 8  # divisor of scaled channels if the architecture has no width_divisor
_BASE_SIDE = 224  # resolution of the smallest networks of the family, FBNetV3-A0 and A

LOW_RESOLUTION_SCALED = "low_resolution_scaled"
"""Name in configs of the variant :func:`low_resolution` with :func:`low_resolution_side` pixels."""
ALIGNED = "_aligned"
"""Suffix that :func:`aligned` adds to the name of an architecture."""


def _without(block: Block, *options: str) -> Block:
    kept = {key: value for key, value in dict(block.options).items() if key not in options}
    return block.replace(options=kept)


def _named(arch: Arch, suffix: str) -> str:
    return arch.name if arch.name.endswith(suffix) else arch.name + suffix


def aligned(arch: Arch) -> Arch:
    """Returns the variant for detection, in which every padding is ``k // 2``.

    Feature pyramids add maps whose sizes differ by a factor of exactly 2. The special paddings of
    some tables (``dw_padding``) give other sizes. The same weights fit both variants.
    """
    blocks = tuple(_without(block, "dw_padding") for block in arch.blocks)
    return arch.replace(name=_named(arch, ALIGNED), blocks=blocks)


def low_resolution(arch: Arch, resolution: int = 32) -> Arch:
    """Returns the paper's variant for small images (CIFAR).

    The second row with stride > 1 gets stride 1.

    Args:
        arch: An architecture with at least two rows with stride > 1.
        resolution: Side of the input in pixels. In the paper it grows with the network; see
            :func:`low_resolution_side`.

    Raises:
        ArchError: The architecture has fewer than two rows with stride > 1.
    """
    strided = [row for row, block in enumerate(arch.blocks) if block.s > 1]
    if len(strided) < 2:
        problem = "the architecture has fewer than two rows with stride > 1"
        allowed = "at least two rows with stride > 1"
        raise ArchError(problem, arch=arch.name, key="s", value=1, allowed=allowed)
    blocks = list(arch.blocks)
    second = _without(blocks[strided[1]], "dw_padding")
    blocks[strided[1]] = second.replace(s=1)
    name = _named(arch, f"_low{resolution}")
    return arch.replace(name=name, blocks=tuple(blocks), resolution=resolution)


def low_resolution_side(arch: Arch, base: int = 32) -> int:
    """Returns the side of a network's input for small images, in pixels (paper, section 4.3).

    It is ``base`` times the network's resolution for ImageNet, divided by the resolution of the
    smallest network, 224 pixels. The side is at least ``base``, and rounded to an even number; for
    ``base`` 32, FBNetV3-A has 32 pixels, E 38, F 38 and G 46.

    Args:
        arch: Architecture at its resolution for ImageNet.
        base: Side for a network of 224 pixels.
    """
    return max(base, 2 * round(base * arch.resolution / _BASE_SIDE / 2))


VARIANTS: dict[str, Callable[[Arch, int], Arch]] = {
    "aligned": lambda arch, resolution: aligned(arch),
    "low_resolution": low_resolution,
}
"""Variants by their name in configs and weight records, as functions of (arch, side in pixels)."""


def with_num_classes(arch: Arch, num_classes: int) -> Arch:
    """Returns the architecture with another number of classes, under the same name."""
    return arch.replace(num_classes=num_classes)


def scale(
    arch: Arch, width: float = 1.0, depth: float = 1.0, resolution: int | None = None
) -> Arch:
    """Returns the architecture with scaled width, depth and resolution.

    The rules are those by which the paper scales FBNetV3-E to F: the number of layers ``n`` of a
    row is rounded (halves up), its channels are rounded to the divisor, and expansions, kernel
    sizes and the width of a pooling row stay the same.

    Args:
        arch: The architecture to scale.
        width: Factor > 0 for the output channels of every row, except pooling rows.
        depth: Factor > 0 for ``n`` of every row, except the first and the last row.
        resolution: Side of the input in pixels; None keeps that of ``arch``.

    Raises:
        ArchError: A factor is not in (0, 1e6], or a scaled number is not allowed in a table.
    """
    for key, value in (("width", width), ("depth", depth)):
        if not 0 < value <= _MAX_FACTOR:
            allowed = f"numbers > 0, at most {_MAX_FACTOR:g}"
            raise ArchError("not allowed", key=key, value=value, allowed=allowed)
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
    """Returns the architecture with depth, width and resolution scaled to a MACs target.

    Compound scaling (EfficientNet): one number phi sets the factors of depth (``alpha ** phi``),
    width (``beta ** phi``) and resolution (``gamma ** phi``). Channels and layers change in steps.
    To get within the tolerance, the resolution is refined in multiples of 8 pixels, then of 2,
    unless ``gamma`` is 1; then phi is varied separately for width and depth, by up to 1, then 3.

    Args:
        arch: The architecture to scale.
        macs: Target in multiply-adds, as ``Cost.macs`` counts them (400e6, not 400).
        alpha: Growth of the depth per unit of phi; >= 1.
        beta: Growth of the width per unit of phi; >= 1.
        gamma: Growth of the resolution per unit of phi; >= 1.
        tolerance: Largest allowed distance to the target, as a fraction of the target.

    Raises:
        ArchError: The target is not positive and finite, a growth is below 1, all three are 1, or
            the target is out of reach; the message gives the nearest reachable target.
    """
    if not 0 < macs < math.inf:
        raise ArchError("not allowed", key="macs", value=macs, allowed="numbers > 0")
    if min(alpha, beta, gamma) < 1 or alpha == beta == gamma == 1:
        growth = (alpha, beta, gamma)
        raise _bad_growth(growth)
    growth, nearest = Growth(alpha, beta, gamma), arch
    phi = _largest_phi_below(arch, macs, growth)
    for candidates in _candidate_lists(arch, macs, phi, growth):
        nearest = min((nearest, *candidates), key=lambda candidate: _distance(candidate, macs))
        if _distance(nearest, macs) <= tolerance:
            return nearest.replace(name=f"{arch.name}_{macs / 1e6:.4g}m")
    raise _out_of_reach(arch, macs, nearest)


def _bad_growth(growth: tuple[float, float, float]) -> ArchError:
    allowed = "numbers >= 1, not all 1"
    return ArchError("not allowed", key="alpha, beta, gamma", value=growth, allowed=allowed)


def _macs(arch: Arch) -> int:
    """Returns the MACs of a network, or 0 if the resolution is too small."""
    try:
        return count_cost(arch).macs
    except ArchError:
        return 0


def _distance(arch: Arch, macs: float) -> float:
    """Returns the distance of a network's MACs to the target, as a fraction of the target."""
    actual = _macs(arch)
    return abs(actual / macs - 1) if actual else math.inf


def _out_of_reach(arch: Arch, macs: float, nearest: Arch) -> ArchError:
    reachable = _macs(nearest)
    allowed = f"the nearest reachable target is {reachable} ({reachable / 1e6:.4g}M)"
    problem = "out of reach of compound scaling"
    return ArchError(problem, arch=arch.name, key="macs", value=macs, allowed=allowed)


class Growth(NamedTuple):
    """Factors of depth, width and resolution per unit of phi."""

    depth: float
    width: float
    resolution: float


def _compound(
    arch: Arch, phi: float, growth: Growth, width_shift: float = 0.0, depth_shift: float = 0.0
) -> Arch:
    """Returns the network scaled by phi; each shift is added to phi for its dimension."""
    smallest = min(_MIN_SIDE, arch.resolution)
    side = max(smallest, round(arch.resolution * growth.resolution**phi / 8) * 8)
    width, depth = growth.width ** (phi + width_shift), growth.depth ** (phi + depth_shift)
    return scale(arch, width, depth, side if growth.resolution > 1 else None)


def _largest_phi_below(arch: Arch, macs: float, growth: Growth) -> float:
    """Returns the largest phi, to within a step, whose MACs are below the target (bisection)."""
    low, high = -_MAX_PHI, _MAX_PHI
    while high - low > _PHI_STEP:
        middle = (low + high) / 2
        if _macs(_compound(arch, middle, growth)) < macs:
            low = middle
        else:
            high = middle
    return low


def _candidate_lists(arch: Arch, macs: float, phi: float, growth: Growth) -> Iterator[list[Arch]]:
    """Yields lists of candidates.

    The first list is scaled by phi alone. Each later one departs from this rule as far as the list
    before it, or further.
    """
    ends = [_compound(arch, value, growth) for value in (phi, phi + _PHI_STEP)]
    yield ends
    if growth.resolution > 1:
        for step in (8, 2):
            yield [_refined(end, macs, step) for end in ends]
    for largest in _SHIFTS:
        shifts = [largest * shift / 5 for shift in range(-5, 6)]
        shifted = [
            _compound(arch, phi, growth, width_shift, depth_shift)
            for width_shift in shifts
            for depth_shift in shifts
        ]
        yield shifted
        if growth.resolution > 1:
            yield [_refined(candidate, macs, 2) for candidate in shifted]


def _refined(arch: Arch, macs: float, step: int) -> Arch:
    """Returns the network with the resolution whose MACs are nearest to the target.

    Args:
        arch: Network whose resolution is changed.
        macs: Target in multiply-adds.
        step: Divisor of the resolution, in pixels.
    """
    ratio = min(_MAX_REFINEMENT, max(1 / _MAX_REFINEMENT, macs / max(1, _macs(arch))))
    smallest = min(_MIN_SIDE, arch.resolution)
    middle = round(arch.resolution * math.sqrt(ratio) / step) * step
    sides = np.arange(middle - _SIDE_WINDOW, middle + _SIDE_WINDOW + 1, step)
    sides = sides[sides >= smallest]
    if not sides.size:
        return arch
    closest = np.argmin(np.abs(_macs_at(arch, sides) - macs))
    return arch.replace(resolution=int(sides[closest]))


def _macs_at(arch: Arch, sides: np.ndarray) -> np.ndarray:
    """Returns the MACs at each resolution; 0 if the resolution is too small."""
    try:
        cost = count_cost_arrays(
            arch.blocks,
            sides,
            width_divisor=arch.width_divisor,
            num_classes=arch.num_classes,
            in_channels=arch.in_channels,
        )
    except ArchError:
        return np.array([_macs(arch.replace(resolution=int(side))) for side in sides])
    return cost.macs
