"""A forward pass without data, which shows whether a network fits the images of a config.

It runs before the training or evaluation, on torch's meta device, where tensors have no values. If
that fails, one or two black images on the network's device decide.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fbnetv3.arch import Arch, Block, count_cost
from fbnetv3.config import ConfigError
from fbnetv3.config.archs import key_in_errors
from fbnetv3.errors import first_line
from fbnetv3.modeling import MODULES
from fbnetv3.modeling.blocks import MBConv

_BUILT_IN = MBConv.__module__  # the module of the built-in ops
_ONE_VALUE = "more than 1 value per channel"  # part of torch's message about batch norms


def check_network(
    model: nn.Module, arch: Arch | str, num_classes: int, side: int, batch: int, *, training: bool
) -> None:
    """Checks that a network processes the batches of a config.

    Args:
        model: The network; it is not changed.
        arch: Architecture of the network, or its name if it has no ``Arch``: a network of
            torchvision, timm or ``register_network``, or one that a caller gave.
        num_classes: Expected number of logits.
        side: Side of the images in pixels.
        batch: Number of images over which batch norms compute their statistics.
        training: Whether to check the training mode; otherwise the evaluation mode.

    Raises:
        ConfigError: The network fails on such a batch, or does not return one tensor
            (batch, num_classes); the message contains the keys to change.
    """
    name = arch
    if isinstance(arch, Arch):
        name = arch.name
        with key_in_errors("INPUT.RESOLUTION"):
            count_cost(arch, side)
        if batch > 1 and all(map(_is_built_in, arch.blocks)):
            return  # count_cost refuses images that are too small; batch norms get 2+ values
    mode = model.training
    model.train(training)
    try:
        output = _output(model, (batch, 3, side, side))
    except Exception as error:  # networks of libraries raise errors of any kind
        raise ConfigError(_advice(model, str(name), side, batch, error)) from error
    finally:
        model.train(mode)
    if not isinstance(output, Tensor) or output.shape[1:] != (num_classes,):
        kind = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(
            f"{_key_of(str(name))} {name} returns {kind} for a batch of images; a classifier must "
            f"return one tensor (batch, {num_classes}): choose another network"
            f"{', or change what follows ? in its name' if '?' in str(name) else ''}"
        )


def _key_of(name: str) -> str:
    """Returns what an error names: the argument ``model`` of ``fbnetv3.train``, or MODEL.ARCH."""
    return "model" if name.startswith("module:") else "MODEL.ARCH"


def _is_built_in(block: Block) -> bool:
    return MODULES[block.op].__module__ == _BUILT_IN


@torch.no_grad()
def _output(model: nn.Module, shape: tuple[int, int, int, int]) -> Any:
    named = chain(model.named_parameters(), model.named_buffers())
    empty = {name: torch.empty_like(tensor, device="meta") for name, tensor in named}
    with torch.random.fork_rng():
        try:
            return functional_call(model, empty, (torch.empty(shape, device="meta"),))
        except Exception:  # perhaps an op that needs values: a batch of black images decides
            device = next((tensor.device for tensor in model.parameters()), None)
            images = torch.zeros(min(shape[0], 2), *shape[1:], device=device)
            return copy.deepcopy(model)(images)


def _advice(model: nn.Module, name: str, side: int, batch: int, error: Exception) -> str:
    if _ONE_VALUE in str(error):
        return (
            f"SOLVER.IMS_PER_BATCH gives batches of {batch}, and {name} reduces {side} px to one "
            "pixel, but batch norm needs more than one value per channel in training: use "
            "2 or more images per process, or a larger INPUT.RESOLUTION"
        )
    native = _native_side(model)
    remedies = [f"set INPUT.RESOLUTION to {native}" if native else "use a larger INPUT.RESOLUTION"]
    if native == side or "channels" in str(error):
        remedies = ["leave out what follows ? in its name"] if "?" in name else []
    return (
        f"{_key_of(name)} {name} cannot process RGB images of {side} px (INPUT.RESOLUTION): "
        f"{first_line(error).rstrip('.')}; {', or '.join([*remedies, 'choose another network'])}"
    )


def _native_side(model: nn.Module) -> int | None:
    """Returns the side of the images that a library's network was made for; None if unknown."""
    config = getattr(model, "pretrained_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else None
    side = size[-1] if size else getattr(model, "image_size", None)
    return side if isinstance(side, int) else None
