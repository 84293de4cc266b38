"""The layers of a winner's network, as the report draws them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fbnetv3.arch import Arch, Block
from fbnetv3.arch.cost import count_rows
from fbnetv3.config import get_cfg
from fbnetv3.config.archs import arch_from_config, is_detector
from fbnetv3.errors import FBNetError
from fbnetv3.search.report.network_figure import LayerBar


def layer_bars(path: Path) -> tuple[LayerBar, ...]:
    """Returns the layers of a config's network; () for detectors and networks without a table.

    Args:
        path: Config of a training. If it is missing or damaged, () is returned, since a report can
            do without the drawing.
    """
    try:
        cfg = get_cfg()
        cfg.merge_from_file(str(path))
        arch = None if is_detector(cfg) else arch_from_config(cfg)
        return () if not isinstance(arch, Arch) else tuple(_bars(arch))
    except (FBNetError, OSError):
        return ()


def _bars(arch: Arch) -> Iterator[LayerBar]:
    for number, block in enumerate(arch.blocks):
        rows = arch.blocks[: number + 1]
        _, _, side = count_rows(rows, arch.resolution, arch.width_divisor, arch.in_channels)
        kernel = _kernel(block)
        for layer in range(block.n):
            stride = block.s if layer == 0 else 1
            text = (
                f"stage {block.stage}: {block.op}, {kernel} x {kernel} kernel"
                f"{'' if block.e is None else f', expansion {block.e:g}'}, {block.c} channels, "
                f"stride {stride}, {side} x {side} pixels"
            )
            yield LayerBar(block.stage, block.c, int(side), kernel, text)


def _kernel(block: Block) -> int:
    """Returns the side of a block's largest kernel; 1 if the block has no kernel."""
    options = [value for key, value in block.options if key.startswith("k_")]
    return max([block.k or 1, *(value for value in options if isinstance(value, int)), 1])
