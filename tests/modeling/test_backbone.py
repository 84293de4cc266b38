"""Stages of the backbone: outputs, channels, strides, stochastic depth."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import StochasticDepth

from fbnetv3.arch import aligned, get_arch, low_resolution
from fbnetv3.modeling import FBNetBackbone, build_model


@pytest.mark.parametrize("name", ["fbnetv3_a", "fbnetv2_l3", "fbnet_a"])
def test_outputs_have_the_stated_channels_and_strides(name: str) -> None:
    arch = aligned(get_arch(name))
    backbone = FBNetBackbone(arch).eval()
    with torch.inference_mode():
        outputs = backbone.forward_stages(torch.zeros(1, 3, 64, 128))
        assert torch.equal(outputs[-1], backbone(torch.zeros(1, 3, 64, 128)))
    assert len(outputs) == len(backbone.stages) == len(backbone.stage_channels)
    for out, c, s in zip(outputs, backbone.stage_channels, backbone.stage_strides, strict=True):
        size = (1, 1) if s is None else (64 // s, 128 // s)
        assert out.shape == (1, c, *size)


def test_modules_have_the_names_of_their_layers() -> None:
    arch = get_arch("fbnetv3_a0")
    modules = dict(FBNetBackbone(arch).named_modules())
    assert all(layer.name in modules for layer in arch.layers())
    assert "stages.1.1" not in modules


def test_low_resolution_doubles_the_side_of_maps() -> None:
    arch = low_resolution(get_arch("fbnetv3_a0"))
    with torch.inference_mode():
        outputs = FBNetBackbone(arch).eval().forward_stages(torch.zeros(1, 3, 32, 32))
    assert [out.shape[-1] for out in outputs] == [16, 16, 16, 8, 4, 2, 1]


def test_drop_path_grows_linearly_over_depth_on_shortcuts_only() -> None:
    arch = get_arch("fbnetv3_a0")
    backbone = FBNetBackbone(arch, drop_path_rate=0.2)
    last = len(arch.layers()) - 1
    for depth, layer in enumerate(arch.layers()):
        modules = backbone.get_submodule(layer.name).modules()
        rates = [m.p for m in modules if isinstance(m, StochasticDepth)]
        expected = [0.2 * depth / last] if layer.op == "mbconv" and layer.residual else []
        assert rates == pytest.approx(expected)
    assert not any(isinstance(m, StochasticDepth) for m in FBNetBackbone(arch).modules())


def test_channels_last_is_kept_through_the_network() -> None:
    model = build_model("fbnetv3_a0", num_classes=10).eval()
    x = torch.zeros(2, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        outputs = model.forward_stages(x)
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in outputs)
