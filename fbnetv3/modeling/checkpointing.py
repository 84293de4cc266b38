"""Gradient checkpointing: activations are computed again in the backward pass instead of kept.

Batch norms would count each batch twice. The second computation therefore leaves their running
statistics unchanged, so that trainings with and without checkpointing have the same results.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpointed(layer: nn.Module, x: Tensor) -> Tensor:
    """Returns ``layer(x)`` without keeping the activations inside the layer."""

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), _kept_statistics(layer)

    output: Tensor = checkpoint(layer, x, use_reentrant=False, context_fn=contexts)
    return output


@contextmanager
def _kept_statistics(layer: nn.Module) -> Iterator[None]:
    """Restores the running statistics of batch norms at the end of the ``with`` block."""
    norms = [m for m in layer.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    saved = [(m, [b.clone() for b in m.buffers(recurse=False)]) for m in norms]
    try:
        yield
    finally:
        with torch.no_grad():
            for norm, values in saved:
                for buffer, value in zip(norm.buffers(recurse=False), values, strict=True):
                    buffer.copy_(value)
