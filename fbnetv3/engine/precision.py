"""Mixed precision: the 16-bit type of a training's forward pass."""

from __future__ import annotations

import torch

from fbnetv3.recipe import Recipe


def amp_dtype(recipe: Recipe, device: torch.device) -> torch.dtype | None:
    """Returns the type of the forward pass; None for float32.

    float16 needs CUDA, where the loss is scaled: on other devices the pass is in float32. bfloat16
    has the range of float32 and needs no scaling.

    Args:
        recipe: Recipe with ``amp`` and ``amp_dtype``.
        device: Device of the network.
    """
    if not recipe.amp:
        return None
    if recipe.amp_dtype == "float16":
        return torch.float16 if device.type == "cuda" else None
    return torch.bfloat16


def precision_text(recipe: Recipe, device: torch.device) -> str:
    """Describes the precision of a training in one line."""
    dtype = amp_dtype(recipe, device)
    if dtype is not None:
        scaled = ", scaled losses" if dtype is torch.float16 else ""
        return f"{recipe.amp_dtype} and float32 (SOLVER.AMP{scaled})"
    if not recipe.amp:
        return "float32"
    return (
        f"float32: SOLVER.AMP.DTYPE float16 works on GPUs only, not on {device.type}; bfloat16 "
        "works on both"
    )
