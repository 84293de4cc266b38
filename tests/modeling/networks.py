"""Networks, images and distances for tests of deployment."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fbnetv3.modeling import build_model
from tests.modeling.test_golden import golden_state_dict

TOLERANCE = 1e-4  # relative to the mean |output|


def with_random_statistics(model: nn.Module) -> nn.Module:
    """Returns the model with random statistics and weights in its batch norms."""
    generator = torch.Generator().manual_seed(1)
    for bn in model.modules():
        if isinstance(bn, nn.BatchNorm2d):
            bn.running_mean.normal_(0, 0.1, generator=generator)
            bn.running_var.uniform_(0.5, 1.5, generator=generator)
            if bn.affine:
                bn.weight.data.uniform_(0.5, 1.5, generator=generator)
                bn.bias.data.normal_(0, 0.1, generator=generator)
    return model


def images(n: int = 2, size: int = 64) -> Tensor:
    """Returns n random images (n, 3, size, size), the same at every call."""
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def count_batch_norms(model: nn.Module) -> int:
    """Returns the number of batch norms in a model."""
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


def distance(output: Tensor, expected: Tensor) -> float:
    """Returns the largest |difference|, relative to the mean |expected|."""
    assert output.shape == expected.shape
    return float((output - expected).detach().abs().max() / expected.detach().abs().mean())


def published(name: str) -> nn.Module:
    """Returns a network with the weights of the golden rules, which bound its activations."""
    model = build_model(name.lower())
    model.load_state_dict(golden_state_dict(name, model))
    return model
