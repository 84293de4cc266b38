"""build_model: names, arguments, initial weights, heads, networks of torchvision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fbnetv3.arch import ArchError, get_arch, list_archs
from fbnetv3.modeling import FBNetClassifier, build_model, reset_classifier
from fbnetv3.modeling.blocks import MBConv


@pytest.mark.parametrize("name", ["fbnetv3_a0", "fbnetv2_f1", "fbnet_b"])
def test_a_model_trains(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, num_classes=5, drop_rate=0.2, drop_path_rate=0.2)
    assert model.training
    logits = model(torch.randn(4, 3, 64, 64))
    assert logits.shape == (4, 5)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_attributes() -> None:
    model = build_model("fbnetv3_a0", num_classes=10, drop_rate=0.3)
    assert isinstance(model, FBNetClassifier)
    assert model.arch == get_arch("fbnetv3_a0").replace(num_classes=10)
    assert (model.head.fc.in_features, model.head.fc.out_features) == (1984, 10)
    assert model.head.dropout.p == 0.3
    assert model.stage_channels == [12, 12, 24, 40, 104, 208, 1984]
    assert model.stage_strides == [2, 2, 4, 8, 16, 32, None]
    assert model.eval()(torch.zeros(2, 3, 50, 70)).shape == (2, 10)


def test_an_architecture_instead_of_a_name() -> None:
    arch = get_arch("fbnetv3_a0").replace(name="custom")
    assert build_model(arch).arch == arch
    assert build_model(arch, num_classes=3).head.fc.out_features == 3


def test_memory_format() -> None:
    model = build_model("fbnetv3_a0")
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


def test_residual_blocks_start_as_the_identity() -> None:
    model = build_model("fbnetv3_a0", num_classes=3).eval()
    first, second = model.backbone.stages[2][:2]
    x = torch.randn(2, 24, 8, 8)
    assert second.residual
    assert torch.equal(second(x), x)
    assert not first.residual
    assert first(torch.randn(2, 12, 8, 8)).abs().max() > 0


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = build_model("fbnetv3_a0")
    project = model.backbone.stages[5][1].pwl.conv.weight
    assert project.std().item() == pytest.approx((2 / project.shape[0]) ** 0.5, rel=0.02)
    assert model.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
    last = {id(m.pwl.bn) for m in model.modules() if isinstance(m, MBConv) and m.residual}
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((m.weight == (id(m) not in last)).all() and (m.bias == 0).all() for m in norms)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert all((m.bias == 0).all() for m in convs)
    with torch.inference_mode():
        features = model(torch.randn(8, 3, 64, 64))
    assert features.isfinite().all()


def test_the_same_seed_gives_the_same_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_model("fbnetv3_a0").state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name_or_arch": "fbnetv3_aa"}, "unknown architecture; did you mean fbnetv3_a"),
        ({"num_classes": -1}, "num_classes: -1"),
        ({"drop_rate": 1.0}, r"drop_rate: 1.0: not allowed; allowed: a number in \[0, 1\)"),
        ({"drop_path_rate": -0.1}, "drop_path_rate: -0.1"),
        ({"name_or_arch": "torchvision/resnet5"}, "did you mean resnet50"),
        ({"name_or_arch": "torchvision/resnet50", "drop_rate": 0.2}, "has no such rate"),
        ({"name_or_arch": "torchvision/resnet50", "drop_path_rate": 0.2}, "has no such rate"),
        ({"name_or_arch": "torchvision/swin_t", "drop_path_rate": 0.3}, "has no such rate"),
        ({"name_or_arch": "torchvision/alexnet", "drop_rate": 2.0}, "drop_rate: 2.0"),
        ({"name_or_arch": "torchvision/alexnet", "num_classes": 0}, "num_classes: 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ArchError, match=text):
        build_model(**{"name_or_arch": "fbnetv3_a0", **arguments})  # type: ignore[arg-type]


def test_reset_classifier() -> None:
    model = build_model("fbnetv3_a0").double()
    before = model.backbone.stages[0][0].conv.weight
    assert reset_classifier(model, 7) is model
    assert model.head.fc.weight.dtype == torch.float64
    assert model.arch.num_classes == 7
    assert model.backbone.stages[0][0].conv.weight is before
    assert model(torch.zeros(2, 3, 32, 32).double()).shape == (2, 7)


# Networks of the paper's Table 2 that are quick to build, and one with each kind of head.
@pytest.mark.parametrize("name", ["resnet34", "densenet121", "squeezenet1_1", "mobilenet_v3_small"])
def test_networks_of_torchvision(name: str) -> None:
    model = build_model(f"torchvision/{name}", num_classes=6).eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 6)
        assert reset_classifier(model, 4)(torch.zeros(2, 3, 64, 64)).shape == (2, 4)


def test_torchvision_rates() -> None:
    model = build_model(
        "torchvision/efficientnet_b0", num_classes=2, drop_rate=0.1, drop_path_rate=0.3
    )
    assert model.classifier[0].p == 0.1
    assert max(m.p for m in model.modules() if type(m).__name__ == "StochasticDepth") > 0.25
    small = build_model("torchvision/mobilenet_v2", num_classes=2)
    assert small.classifier[0].p == 0.0  # the default in torchvision is 0.2


@pytest.mark.parametrize("name", list_archs("fbnet*"))
def test_every_architecture_can_be_built(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name).eval()
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, get_arch(name).num_classes)
