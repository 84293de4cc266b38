"""Multiply-adds of a module as counted by fvcore."""

from __future__ import annotations

import logging

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn


def counted(model: nn.Module, side: int) -> tuple[int, int]:
    """Returns fvcore's counts for one image: of convs and linear layers, and of global pools."""
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    analysis = FlopCountAnalysis(model.eval(), torch.zeros(1, 3, side, side))
    by_operator = analysis.unsupported_ops_warnings(False).by_operator()
    conv = by_operator["conv"] + by_operator["linear"]
    return round(conv), round(by_operator["adaptive_avg_pool2d"])
