"""Modules compared with their cost formulas (counted by fvcore) and with plain arithmetic."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F

from fbnetv3.arch import Arch, Layer, count_cost
from fbnetv3.modeling import build_model
from fbnetv3.modeling.blocks import ACTIVATIONS, GATES, MBConv, Skip, SqueezeExcite, VectorConv2d
from tests.arch.strategies import archs
from tests.modeling.counting import counted


@settings(max_examples=60, deadline=None, derandomize=True)
@given(archs())
def test_cost_equals_fvcore_counts(arch: Arch) -> None:
    model = build_model(arch, num_classes=arch.num_classes)
    cost = count_cost(arch)
    assert counted(model, arch.resolution) == (cost.macs_conv, cost.macs_avgpool)
    assert sum(p.numel() for p in model.parameters()) == cost.params
    weights = [p for name, p in model.named_parameters() if p.ndim == 4 or name == "head.fc.weight"]
    assert sum(w.numel() for w in weights) == cost.conv_weights


@settings(max_examples=15, deadline=None, derandomize=True)
@given(archs())
def test_counted_activations_are_outputs_of_convs_and_linear_layers(arch: Arch) -> None:
    outputs: list[int] = []
    model = build_model(arch, num_classes=arch.num_classes).eval()
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda _, __, out: outputs.append(out.numel()))
    model(torch.zeros(1, 3, arch.resolution, arch.resolution))
    assert sum(outputs) == count_cost(arch).activations


def test_formulas_of_activations_and_gates() -> None:
    x = torch.linspace(-8, 8, 1001)
    expected = {
        "hswish": x * F.relu6(x + 3) / 6,
        "relu": x.clamp(min=0),
        "relu6": x.clamp(0, 6),
        "swish": x / (1 + torch.exp(-x)),
    }
    assert set(ACTIVATIONS) == set(expected)
    for name, y in expected.items():
        torch.testing.assert_close(ACTIVATIONS[name]()(x.clone()), y)
    torch.testing.assert_close(GATES["hsigmoid"]()(x), F.relu6(x + 3) / 6)
    torch.testing.assert_close(GATES["sigmoid"]()(x), 1 / (1 + torch.exp(-x)))


def test_squeeze_excite_equals_convs_on_the_mean() -> None:
    torch.manual_seed(0)
    se, x = SqueezeExcite(16, 8, "relu", "hsigmoid"), torch.randn(3, 16, 5, 7)
    mean = x.mean((2, 3), keepdim=True)
    reduced = F.relu(F.conv2d(mean, se.reduce.weight, se.reduce.bias))
    expected = x * F.hardsigmoid(F.conv2d(reduced, se.expand.weight, se.expand.bias))
    torch.testing.assert_close(se(x), expected)
    last = x.to(memory_format=torch.channels_last)
    assert se(last).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(se(last), expected)


@pytest.mark.parametrize("bias", [False, True])
def test_a_conv_of_vectors_equals_a_conv(bias: bool) -> None:
    torch.manual_seed(0)
    conv, x = VectorConv2d(6, 10, bias), torch.randn(3, 6, 1, 1)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias))
    assert conv.state_dict().keys() == nn.Conv2d(6, 10, 1, bias=bias).state_dict().keys()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("gradients", [True, False])
def test_activations_keep_their_inputs(name: str, gradients: bool) -> None:
    x = torch.randn(100, requires_grad=gradients)
    before = x.detach().clone()
    y = ACTIVATIONS[name]()(x)
    assert torch.equal(x, before)
    if gradients:
        functions = {"hswish": F.hardswish, "swish": F.silu, "relu": F.relu, "relu6": F.relu6}
        (expected,) = torch.autograd.grad(functions[name](x).sum(), x)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(gradient, expected)


def mbconv(**options: object) -> Layer:
    known = {"dw_padding": None, "conv_bias": False, "pw_groups": 1, "pwl_groups": 1}
    layer = {"c_in": 8, "c_out": 8, "k": 3, "e": 2, "act": "relu"}
    layer |= {key: value for key, value in options.items() if key not in known}
    chosen = known | {key: value for key, value in options.items() if key in known}
    return Layer("mbconv", 0, 0, options=chosen, **layer)  # type: ignore[arg-type]


def test_parts_of_an_inverted_residual() -> None:
    block = MBConv(mbconv(se="sigmoid", se_ratio=0.5), drop_path=0.5)
    assert set(dict(block.named_children())) >= {"pw", "dw", "se", "pwl", "drop_path"}
    names = {name.rsplit(".", 1)[0] for name in block.state_dict()}
    assert names == {
        *(f"{part}.{kind}" for part in ("pw", "dw", "pwl") for kind in ("conv", "bn")),
        "se.reduce",
        "se.expand",
    }
    assert isinstance(MBConv(mbconv(e=1)).pw, nn.Identity)
    assert block.dw.bn.eps == 1e-5
    assert block.dw.bn.momentum == 0.1


def test_a_shortcut_needs_stride_1_and_equal_channels() -> None:
    assert MBConv(mbconv()).residual
    assert not MBConv(mbconv(s=2)).residual
    assert not MBConv(mbconv(c_out=16)).residual


def test_drop_path_drops_the_branch_of_whole_images_and_only_in_training() -> None:
    torch.manual_seed(0)
    block, x = MBConv(mbconv(), drop_path=0.5), torch.randn(64, 8, 4, 4)
    dropped = (block(x) == x).flatten(1).all(1)
    assert 10 < dropped.sum() < 54
    assert not (block.eval()(x) == x).flatten(1).all(1).any()
    # A block without a shortcut cannot drop its branch.
    assert isinstance(MBConv(mbconv(s=2), drop_path=0.5).drop_path, nn.Identity)


def test_inputs_are_not_modified() -> None:
    for layer in (mbconv(), mbconv(e=1), mbconv(pw_groups=2), mbconv(se="sigmoid", se_ratio=0.5)):
        block, x = MBConv(layer), torch.randn(2, 8, 4, 4)
        before = x.clone()
        block(x).sum().backward()
        assert torch.equal(x, before)


@pytest.mark.parametrize(("s", "c_out", "is_conv"), [(1, 8, False), (2, 8, True), (1, 16, True)])
def test_skip(s: int, c_out: int, is_conv: bool) -> None:
    layer = Layer("skip", 0, 0, 8, c_out, s=s, act="relu", options={"conv_bias": False})
    block, x = Skip(layer), torch.randn(2, 8, 4, 4)
    assert bool(list(block.parameters())) == is_conv
    assert block(x).shape == (2, c_out, 4 // s, 4 // s)
    assert is_conv or torch.equal(block(x), x)


def test_groups_are_shuffled_after_the_expand_conv() -> None:
    block = MBConv(mbconv(pw_groups=2)).eval()
    y = torch.arange(16.0).reshape(1, 16, 1, 1)
    expected = [c for pair in zip(range(8), range(8, 16), strict=True) for c in pair]
    assert block.shuffle(y).flatten().tolist() == expected
