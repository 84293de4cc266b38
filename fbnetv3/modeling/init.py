"""Weight initialisation, as for MobileNets and EfficientNets."""

from __future__ import annotations

from torch import nn

from fbnetv3.modeling.blocks import MBConv


def init_weights(module: nn.Module) -> None:
    """Initialises every conv, norm and linear layer inside ``module``.

    Inverted residuals with a shortcut start as the identity: the last batch norm of their residual
    branch has weight 0 (Goyal et al., 2017, section 5.1). Short trainings then learn faster.
    """
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
    for part in module.modules():
        if isinstance(part, MBConv) and part.residual:
            nn.init.zeros_(part.pwl.bn.weight)
