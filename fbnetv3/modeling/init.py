"""Weight initialisation, as for MobileNets and EfficientNets."""

from __future__ import annotations

from torch import nn


def init_weights(module: nn.Module) -> None:
    """Initialises every ``Conv2d``, ``BatchNorm2d`` and ``Linear`` inside ``module``.

    A block may have a method ``zero_init_last``. In most blocks with a shortcut, it sets the weight
    of the last batch norm of the residual branch to 0, so that the block starts as the identity
    (Goyal et al., 2017, section 5.1). Short trainings then learn faster.
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
        zero_init_last = getattr(part, "zero_init_last", None)
        if callable(zero_init_last):
            zero_init_last()
