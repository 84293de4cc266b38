"""Architectures as tables: their rows, their cost, and variants of them; without torch."""

from __future__ import annotations

from fbnetv3.arch.cost import count_cost, count_cost_arrays
from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.keys import Key
from fbnetv3.arch.layer import Layer, round_channels
from fbnetv3.arch.ops import (
    OP_COSTS,
    Cost,
    conv_cost,
    conv_size,
    pool_cost,
    register_cost,
    se_cost,
)
from fbnetv3.arch.registry import get_arch, list_archs, register_arch
from fbnetv3.arch.scaling import aligned, low_resolution, scale, scale_to_macs, with_num_classes
from fbnetv3.arch.spec import Arch, Block

__all__ = [
    "OP_COSTS",
    "Arch",
    "ArchError",
    "Block",
    "Cost",
    "Key",
    "Layer",
    "aligned",
    "conv_cost",
    "conv_size",
    "count_cost",
    "count_cost_arrays",
    "get_arch",
    "list_archs",
    "low_resolution",
    "pool_cost",
    "register_arch",
    "register_cost",
    "round_channels",
    "scale",
    "scale_to_macs",
    "se_cost",
    "with_num_classes",
]
