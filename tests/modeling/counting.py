"""What fvcore counts on a built module."""

from __future__ import annotations

import logging

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn


def counted(model: nn.Module, side: int) -> tuple[int, int]:
    """fvcore's count for one image: convs and linear layers, and global average pools."""
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    analysis = FlopCountAnalysis(model.eval(), torch.zeros(1, 3, side, side))
    by_operator = analysis.unsupported_ops_warnings(False).by_operator()
    conv = by_operator["conv"] + by_operator["linear"]
    return round(conv), round(by_operator["adaptive_avg_pool2d"])
