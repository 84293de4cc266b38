"""Networks for images with another number of channels, from the weights for RGB images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fbnetv3.arch import ArchError


def adapted_weight(weight: Tensor, in_channels: int) -> Tensor:
    """Returns the weight of the first convolution for images with other channels, as timm does.

    For one channel, the weights of all C channels are added up: an input then has the outputs that
    it would have if it were repeated in C channels. For several channels, the channels of the
    weight are repeated or cut to this number and multiplied by C / in_channels, so that outputs
    keep their magnitude.

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
    """Adapts the first convolution of a network, in place, to another number of input channels.

    Args:
        model: Network with a convolution.
        in_channels: Number of channels of the images, at least 1.

    Raises:
        ArchError: The first convolution has another number of input channels than
            ``in_channels``, and cannot be adapted because it has several groups.
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
