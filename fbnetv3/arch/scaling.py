"""Variants of an architecture, made by functions: nothing is copied in yaml."""

from __future__ import annotations

import dataclasses

from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.spec import Arch, Block


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
    return arch.replace(name=_named(arch, "_aligned"), blocks=blocks)


def low_resolution(arch: Arch, resolution: int = 32) -> Arch:
    """Returns the paper's form for small images (CIFAR): the second stride-2 row gets stride 1.

    Args:
        arch: a table with two strided rows or more.
        resolution: side of the input in pixels.

    Raises:
        ArchError: there is no second strided row.
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


def with_num_classes(arch: Arch, num_classes: int) -> Arch:
    """Returns the architecture with another number of classes; its name stays."""
    return dataclasses.replace(arch, num_classes=num_classes)
