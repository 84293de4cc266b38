"""Folding of batch norms: only where the outputs stay the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18
from torchvision.ops import Conv2dNormActivation, FrozenBatchNorm2d

from fbnetv3.modeling import deploy
from fbnetv3.modeling.folding import fold_batch_norm
from tests.modeling.networks import (
    TOLERANCE,
    count_batch_norms,
    distance,
    images,
    published,
    with_random_statistics,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Branching(nn.Module):
    """An op that cannot be traced, since its branch depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) if x.sum() > 0 else self.bn(x)


class TwoUses(nn.Module):
    """A convolution whose output is not used by the batch norm alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + y


class TwoCalls(nn.Module):
    """A convolution that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(self.conv(x)))


class NormFirst(nn.Module):
    """A batch norm that runs before the convolution, but is registered after it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.bn(x))


class Shared(nn.Module):
    """Two units that share a convolution."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(3, 3, 1)
        self.a = nn.Sequential(conv, nn.BatchNorm2d(3))
        self.b = nn.Sequential(conv, nn.BatchNorm2d(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


class NormAct(nn.BatchNorm2d):
    """A batch norm with an activation inside, like timm's."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(super().forward(input))


class Subclass(nn.BatchNorm2d):
    """A subclass that computes the same, like detectron2's NaiveSyncBatchNorm in eval mode."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)


class InList(nn.Module):
    """Layers in a list, which has no forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def hooked() -> nn.Module:
    unit = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    unit[0].register_forward_hook(lambda module, args, output: output * 2)
    return unit


def normed_weight() -> nn.Module:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1))
    return nn.Sequential(conv, nn.BatchNorm2d(3))


@pytest.mark.parametrize(
    ("make", "folded"),
    [
        (Branching, 0),
        (TwoUses, 0),
        (TwoCalls, 0),
        (NormFirst, 0),
        (Shared, 0),
        (hooked, 0),
        (normed_weight, 0),
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 1), NormAct(3)), 0),
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 1), Subclass(3)), 1),
        (InList, 1),
        (lambda: Conv2dNormActivation(3, 6, groups=3, activation_layer=nn.Hardswish), 1),
    ],
)
def test_only_batch_norms_that_keep_the_outputs_are_folded(make: Any, folded: int) -> None:
    model = with_random_statistics(nn.Sequential(make(), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    if folded and isinstance(model[0], Conv2dNormActivation):
        model[1] = nn.Conv2d(6, 4, 1)
    model.eval()
    with torch.no_grad():
        expected = model(images())
        assert fold_batch_norm(copy.deepcopy(model)) == folded + 1  # the last pair always folds
        assert distance(deploy(model)(images()), expected) <= TOLERANCE


def test_an_op_that_cannot_be_traced_does_not_affect_the_others() -> None:
    model = published("FBNetV3_A0")
    model.backbone.stages[0].append(BranchingNorm(model.stage_channels[0]))
    deployed = deploy(model)
    assert count_batch_norms(deployed) == 1
    assert distance(deployed(images()), model.eval()(images())) <= TOLERANCE


class BranchingNorm(nn.Module):
    """An op with batch norm that cannot be traced."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x) if x.sum() > 0 else -self.bn(x)


class Shifted(FrozenBatchNorm2d):
    """A frozen batch norm that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


@pytest.mark.parametrize(("norm", "folded"), [(FrozenBatchNorm2d, 20), (Shifted, 0)])
def test_frozen_batch_norms_are_folded_if_they_only_normalise(
    norm: type[FrozenBatchNorm2d], folded: int
) -> None:
    model = resnet18(norm_layer=norm).eval()
    for module in model.modules():
        if isinstance(module, norm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    expected = model(images())
    assert fold_batch_norm(model) == folded
    assert distance(model(images()), expected) < TOLERANCE
