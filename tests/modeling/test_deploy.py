"""The deployed form: outputs, state, slices, and models that cannot be deployed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fbnetv3
from fbnetv3.modeling import build_model, deploy
from fbnetv3.modeling.deploy import SLICE_PIXELS, DeployedModel, DeployError
from tests.modeling.networks import (
    TOLERANCE,
    count_batch_norms,
    distance,
    images,
    published,
    with_random_statistics,
)
from tests.modeling.test_golden import PUBLISHED, logits


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# fbnet_a has convs with bias before batch norms, groups with shuffle, and skips; V3 has
# squeeze-and-excitation; V2 ends with a pooling stage.
@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", ["FBNetV3_B", "fbnet_a", "FBNetV2_L2"])
def test_same_outputs(name: str, compile: bool) -> None:
    model = published(name)
    deployed = deploy(model, compile=compile)
    assert count_batch_norms(model) > 0
    assert count_batch_norms(deployed) == 0
    expected = model.eval()(images())
    for _ in range(2):  # the first call of a compiled model returns the eager output
        assert distance(deployed(images()), expected) <= TOLERANCE
    assert deployed.runtime == ("onnxruntime" if compile else "eager")


@pytest.mark.parametrize("name", ["FBNetV3_A", "fbnet_a"])
def test_golden_logits(name: str) -> None:
    golden = PUBLISHED[name]
    outputs = logits(name, deploy(published(name)))
    difference = abs(outputs[:, :8] - torch.tensor(golden["logits_first8"]).numpy()).max()
    assert difference <= TOLERANCE * golden["logits_abs_mean"]


@pytest.mark.parametrize(
    ("name", "remaining"),
    # Most batch norms of DenseNet do not follow a convolution.
    [("resnet18", 0), ("mobilenet_v3_small", 0), ("densenet121", 62), ("alexnet", 0)],
)
def test_networks_of_torchvision(name: str, remaining: int) -> None:
    model = with_random_statistics(build_model(f"torchvision/{name}", num_classes=10))
    deployed = deploy(model)
    assert count_batch_norms(deployed) == remaining
    assert distance(deployed(images()), model.eval()(images())) <= TOLERANCE


def test_the_model_itself_is_not_changed() -> None:
    model = build_model("fbnetv3_a0", num_classes=10)
    before = copy.deepcopy(model.state_dict())
    deployed = fbnetv3.deploy(model)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    deployed.model.head.fc.weight.zero_()
    assert torch.equal(model.head.fc.weight, before["head.fc.weight"])


def test_eval_mode_without_gradients_in_channels_last() -> None:
    deployed = deploy(build_model("fbnetv3_a0", drop_rate=0.5, drop_path_rate=0.5))
    assert not any(m.training for m in deployed.modules())
    assert not any(p.requires_grad for p in deployed.parameters())
    weight = deployed.model.backbone.stages[1][0].dw.conv.weight
    stem = deployed.model.backbone.stages[0][0].conv.weight
    assert stem.is_contiguous(memory_format=torch.channels_last)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(deployed(images()), deployed(images()))
    with pytest.raises(DeployError, match="cannot be trained"):
        deployed.train()


class Sizes(nn.Module):
    """Records the batch sizes of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return x.mean((2, 3))


def test_large_batches_are_processed_in_equal_slices() -> None:
    deployed = deploy(Sizes())
    assert isinstance(deployed, DeployedModel)
    size = int((SLICE_PIXELS / 4) ** 0.5)  # four images a slice
    x = images(9, size)
    assert distance(deployed(x), x.mean((2, 3))) < TOLERANCE
    assert deployed.model.seen == [3, 3, 3]
    deployed(images(4, size))
    deployed(images(1, 4 * size))
    assert deployed.model.seen[3:] == [4, 1]


def meta_model() -> nn.Module:
    with torch.device("meta"):
        return build_model("fbnetv3_a0")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "fbnetv3_a0", "takes an nn.Module, not str"),
        (lambda: deploy(nn.Conv2d(3, 3, 1)), "already deployed"),
        (lambda: nn.DataParallel(nn.Conv2d(3, 3, 1)), r"pass model\.module"),
        (lambda: torch.compile(nn.Conv2d(3, 3, 1)), "compiled"),
        (lambda: nn.LazyConv2d(3, 1), "no values yet"),
        (meta_model, "no values yet"),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
            "batch norm 1 keeps no running statistics",
        ),
    ],
)
def test_models_that_cannot_be_deployed(make: Any, message: str) -> None:
    with pytest.raises(DeployError, match=message) as caught:
        deploy(make())
    assert "\n" not in str(caught.value)
