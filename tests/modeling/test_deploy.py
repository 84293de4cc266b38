"""The deployed form gives the model's outputs, and says in one line what it cannot do."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Conv2dNormActivation

import fbnetv3
from fbnetv3.modeling import build_model, deploy, runtimes
from fbnetv3.modeling.deploy import SLICE_PIXELS, DeployedModel, DeployError
from fbnetv3.modeling.folding import fold_batch_norm
from fbnetv3.modeling.runtimes import RUNTIMES, Runner, Runtime
from tests.modeling.test_golden import PUBLISHED, golden_state_dict, logits

TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def trained_looking(model: nn.Module) -> nn.Module:
    """Gives batch norms statistics and weights that are not those of a new network."""
    generator = torch.Generator().manual_seed(1)
    for bn in model.modules():
        if isinstance(bn, nn.BatchNorm2d):
            bn.running_mean.normal_(0, 0.1, generator=generator)
            bn.running_var.uniform_(0.5, 1.5, generator=generator)
            bn.weight.data.uniform_(0.5, 1.5, generator=generator)
            bn.bias.data.normal_(0, 0.1, generator=generator)
    return model


def images(n: int = 2, size: int = 64) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def batch_norms(model: nn.Module) -> int:
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


def error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).detach().abs().max() / expected.detach().abs().mean())


def published(name: str) -> nn.Module:
    """A network with the reference's weights, which keep activations in bounds."""
    model = build_model(name.lower())
    model.load_state_dict(golden_state_dict(name, model))
    return model


# fbnet_a: convs with bias beside BN, groups with shuffle, skip; V3: SE; V2: the pooling last stage
@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", ["FBNetV3_A0", "FBNetV3_B", "fbnet_a", "fbnet_c", "FBNetV2_L2"])
def test_same_outputs(name: str, compile: bool) -> None:
    model = published(name)
    deployed = deploy(model, compile=compile)
    assert batch_norms(model) > 0
    assert batch_norms(deployed) == 0
    expected = model.eval()(images())
    for _ in range(2):  # the first call of a compiled one also runs eager
        assert error(deployed(images()), expected) <= TOLERANCE
    assert deployed.runtime == ("onnxruntime" if compile else "eager")


@pytest.mark.parametrize("name", ["FBNetV3_A", "fbnet_a"])
def test_golden_logits(name: str) -> None:
    golden = PUBLISHED[name]
    found = logits(name, deploy(published(name)))
    difference = abs(found[:, :8] - torch.tensor(golden["logits_first8"]).numpy()).max()
    assert difference <= TOLERANCE * golden["logits_abs_mean"]


@pytest.mark.parametrize(
    ("name", "left"),
    # DenseNet's norms before an activation have no convolution of their own
    [("resnet18", 0), ("mobilenet_v3_small", 0), ("densenet121", 62), ("alexnet", 0)],
)
def test_torchvision(name: str, left: int) -> None:
    model = trained_looking(build_model(f"torchvision/{name}", num_classes=10))
    deployed = deploy(model)
    assert batch_norms(deployed) == left
    assert error(deployed(images()), model.eval()(images())) <= TOLERANCE


def test_the_model_stays_as_it_was() -> None:
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
    """Notes the batch sizes it meets."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return x.mean((2, 3))


def test_large_batches_go_in_even_slices() -> None:
    deployed = deploy(Sizes())
    assert isinstance(deployed, DeployedModel)
    size = int((SLICE_PIXELS / 4) ** 0.5)  # four images a slice
    x = images(9, size)
    assert error(deployed(x), x.mean((2, 3))) < TOLERANCE
    assert deployed.model.seen == [3, 3, 3]
    deployed(images(4, size))
    deployed(images(1, 4 * size))
    assert deployed.model.seen[3:] == [4, 1]


class Branching(nn.Module):
    """An op that cannot be traced: its way depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) if x.sum() > 0 else self.bn(x)


class TwoUses(nn.Module):
    """A convolution whose output goes elsewhere too."""

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


class OtherOrder(nn.Module):
    """Batch norm before the convolution that is named before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.bn(x))


class Shared(nn.Module):
    """Two units with one convolution."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(3, 3, 1)
        self.a = nn.Sequential(conv, nn.BatchNorm2d(3))
        self.b = nn.Sequential(conv, nn.BatchNorm2d(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


class NormAct(nn.BatchNorm2d):
    """A batch norm that does more, like timm's."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(super().forward(input))


class SameButNamed(nn.BatchNorm2d):
    """A batch norm that does the same, like detectron2's NaiveSyncBatchNorm in eval mode."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)


class InList(nn.Module):
    """Layers in a list, which has no forward of its own."""

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
        (OtherOrder, 0),
        (Shared, 0),
        (hooked, 0),
        (normed_weight, 0),
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 1), NormAct(3)), 0),
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 1), SameButNamed(3)), 1),
        (InList, 1),
        (lambda: Conv2dNormActivation(3, 6, groups=3, activation_layer=nn.Hardswish), 1),
    ],
)
def test_folds_only_what_gives_the_same(make: Any, folded: int) -> None:
    model = trained_looking(nn.Sequential(make(), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    if folded and isinstance(model[0], Conv2dNormActivation):
        model[1] = nn.Conv2d(6, 4, 1)
    model.eval()
    with torch.no_grad():
        expected = model(images())
        assert fold_batch_norm(copy.deepcopy(model)) == folded + 1  # the last pair always folds
        assert error(deploy(model)(images()), expected) <= TOLERANCE


def test_an_untraceable_op_hinders_no_other() -> None:
    model = published("FBNetV3_A0")
    model.backbone.stages[0].append(BranchingNorm(model.stage_channels[0]))
    deployed = deploy(model)
    assert batch_norms(deployed) == 1
    assert error(deployed(images()), model.eval()(images())) <= TOLERANCE


class BranchingNorm(nn.Module):
    """An op with batch norm that cannot be traced."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x) if x.sum() > 0 else -self.bn(x)


def meta_model() -> nn.Module:
    with torch.device("meta"):
        return build_model("fbnetv3_a0")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: "fbnetv3_a0", "takes an nn.Module, not str"),
        (lambda: deploy(nn.Conv2d(3, 3, 1)), "deployed already"),
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
def test_wrong_states(make: Any, words: str) -> None:
    with pytest.raises(DeployError, match=words) as caught:
        deploy(make())
    assert "\n" not in str(caught.value)


def fails(model: nn.Module, example: Tensor) -> Runner:
    raise RuntimeError("first line\nsecond line")


def wrong(model: nn.Module, example: Tensor) -> Runner:
    return lambda x: model(x) * 1.001


def right(model: nn.Module, example: Tensor) -> Runner:
    return lambda x: model(x)


def wrong_later(model: nn.Module, example: Tensor) -> Runner:
    """Right for the shape it was traced with only."""
    return lambda x: model(x) * (1.0 if x.shape == example.shape else 2.0)


def runtime(name: str, build: Any) -> Runtime:
    return Runtime(name, lambda model: "", build)


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1)).eval()


@pytest.mark.parametrize("build", [fails, wrong])
def test_a_failing_runtime_gives_way(
    build: Any, net: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    deployed = DeployedModel(net, [runtime("bad", build), runtime("good", right)])
    assert error(deployed(images()), net(images())) < 1e-5
    assert deployed.runtime == "good"
    assert error(deployed(images()), net(images())) < 1e-5
    (record,) = caplog.records
    assert "bad does not run this model" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_the_last_resort_is_eager(net: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    deployed = DeployedModel(net, [runtime("bad", fails)])
    assert error(deployed(images()), net(images())) < 1e-5
    assert deployed.runtime == "eager"
    assert "now eager" in caplog.text
    assert error(deployed(images()), net(images())) < 1e-5


def test_each_new_shape_is_checked(net: nn.Module) -> None:
    deployed = DeployedModel(net, [runtime("bad", wrong_later)])
    deployed(images())
    assert deployed.runtime == "bad"
    other = images(3, 32)
    assert error(deployed(other), net(other)) < 1e-5
    assert deployed.runtime == "eager"


def test_an_error_of_the_model_is_the_models(net: nn.Module) -> None:
    deployed = deploy(net, compile=True)
    with pytest.raises(RuntimeError, match="channels"):
        deployed(torch.zeros(1, 4, 8, 8))
    deployed(images())
    assert deployed.runtime == "onnxruntime"


def test_batch_and_resolution_may_change_when_compiled() -> None:
    model = published("FBNetV3_A0").eval()
    deployed = deploy(model, compile=True)
    for n, size in ((2, 64), (3, 64), (1, 96), (2, 64)):
        x = images(n, size)
        for _ in range(2):
            assert error(deployed(x), model(x)) <= TOLERANCE
    assert deployed.runtime == "onnxruntime"


def test_nothing_to_compile_with(
    net: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    deployed = deploy(net, compile=True)
    assert deployed.runtime == "eager"
    assert error(deployed(images()), net(images())) <= TOLERANCE
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "onnx and onnxruntime not installed" in record.getMessage()
    assert "no C++ compiler (no-such-compiler)" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_onnxruntime_is_for_float32(net: nn.Module) -> None:
    assert RUNTIMES[0].lacks(net) == ""
    assert "float32" in RUNTIMES[0].lacks(net.double())


@pytest.mark.slow
@pytest.mark.skipif(bool(RUNTIMES[1].lacks(nn.Identity())), reason="there is no C++ compiler")
def test_inductor() -> None:
    model = published("fbnet_a").eval()
    folded = deploy(model).model
    deployed = DeployedModel(folded, RUNTIMES[1:])
    for n in (2, 1):
        for _ in range(2):
            assert error(deployed(images(n)), model(images(n))) <= TOLERANCE
    assert deployed.runtime == "inductor"
