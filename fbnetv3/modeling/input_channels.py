"""Networks for images with another number of channels, from the weights for RGB images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fbnetv3.arch import ArchError


def adapted_weight(weight: Tensor, in_channels: int) -> Tensor:
    """Returns the weight of the first convolution for images with other channels, as timm does.

    For one channel, the channels are added up, which equals grey images given as RGB. For others,
    they are repeated and divided, so that outputs keep their magnitude.

    Args:
        weight: (C_out, C, k, k) weight for C channels.
        in_channels: Number of channels of the images.

    Returns:
        Weight (C_out, in_channels, k, k).
    """
    before = weight.shape[1]
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    repeats = -(-in_channels // before)
    return weight.repeat(1, repeats, 1, 1)[:, :in_channels] * (before / in_channels)


def change_input_channels(model: nn.Module, in_channels: int) -> None:
    """Replaces the first convolution of a network, in place, by one for other images.

    Args:
        model: Network whose first convolution has one group.
        in_channels: Number of channels of the images, at least 1.

    Raises:
        ArchError: The first convolution has several groups.
    """
    conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    if conv.in_channels == in_channels:
        return
    if conv.groups != 1:
        raise ArchError(
            "the first convolution has several groups",
            key="in_channels",
            value=in_channels,
            allowed=str(conv.in_channels),
        )
    with torch.no_grad():
        conv.weight = nn.Parameter(adapted_weight(conv.weight, in_channels))
    conv.in_channels = in_channels
