"""How weights begin, as MobileNets and EfficientNets do."""

from __future__ import annotations

from torch import nn


def init_weights(module: nn.Module) -> None:
    """Initialises every conv, norm and linear layer inside ``module``."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.01)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)
