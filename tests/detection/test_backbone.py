"""FBNets as backbones of detectron2: feature maps, errors, frozen parts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from detectron2.modeling import build_backbone
from torch import nn

from fbnetv3.arch import aligned, get_arch, list_archs, low_resolution
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.detection.backbone import FBNetBottomUp, TraceableFrozenBatchNorm2d, trunk

FOR_SMALL_IMAGES = list_archs("fbnetv3_nano_*")


@pytest.mark.parametrize("name", sorted(set(list_archs()) - set(FOR_SMALL_IMAGES)))
def test_maps_of_every_network_differ_by_a_factor_of_exactly_two(name: str) -> None:
    bottom_up = FBNetBottomUp(aligned(get_arch(name))).eval()
    with torch.inference_mode():
        maps = bottom_up(torch.rand(1, 3, 96, 64))
    assert list(maps) == ["c2", "c3", "c4", "c5"]
    for feature, shape in bottom_up.output_shape().items():
        assert shape.stride == 2 ** int(feature[1])
        expected = (1, shape.channels, 96 // shape.stride, 64 // shape.stride)
        assert tuple(maps[feature].shape) == expected


def test_the_stage_of_the_classifier_is_left_out() -> None:
    assert trunk(get_arch("fbnetv3_a0")).blocks[-1].c == 208
    assert trunk(get_arch("fbnet_c")).blocks[-1].c == 352  # a 1 x 1 convolution, not a pool


def test_other_variants_are_refused(tiny: Callable[..., CfgNode]) -> None:
    with pytest.raises(ConfigError, match="differ by a factor of exactly 2"):
        FBNetBottomUp(get_arch("fbnetv3_a"))  # has dw_padding
    with pytest.raises(ConfigError, match="stride 32"):
        FBNetBottomUp(low_resolution(aligned(get_arch("fbnetv3_a"))))
    for name in FOR_SMALL_IMAGES:
        message = rf"{name} has no feature map .* architecture for larger images"
        with pytest.raises(ConfigError, match=message):
            FBNetBottomUp(get_arch(name))
    for variant in ("", "low_resolution"):
        with pytest.raises(ConfigError, match=r"ARCH_VARIANT is .*'aligned'"):
            build_backbone(tiny(MODEL__ARCH_VARIANT=variant))
    with pytest.raises(ConfigError, match="ARCH_NORM"):
        build_backbone(tiny(MODEL__ARCH_NORM="GN"))
    with pytest.raises(ConfigError, match="IN_FEATURES"):
        build_backbone(tiny(MODEL__FPN__IN_FEATURES=["res3"]))


@pytest.mark.parametrize(
    ("name", "inputs", "levels"),
    [
        ("build_retinanet_fbnet_fpn_backbone", ["c3", "c4", "c5"], range(3, 8)),
        ("build_fbnet_fpn_backbone", ["c2", "c3", "c4", "c5"], range(2, 7)),
    ],
)
def test_pyramids(
    tiny: Callable[..., CfgNode], name: str, inputs: list[str], levels: range
) -> None:
    backbone = build_backbone(tiny(MODEL__BACKBONE__NAME=name, MODEL__FPN__IN_FEATURES=inputs))
    maps = backbone(torch.rand(1, 3, 128, 128))
    assert {k: v.shape[-1] for k, v in maps.items()} == {f"p{i}": 128 >> i for i in levels}


def _norms(module: nn.Module) -> set[type]:
    return {type(m) for m in module.modules() if "BatchNorm" in type(m).__name__}


def test_frozen_stages_and_norms(tiny: Callable[..., CfgNode]) -> None:
    def build(freeze_at: int, norm: str = "BN") -> FBNetBottomUp:
        cfg = tiny(MODEL__BACKBONE__FREEZE_AT=freeze_at, MODEL__ARCH_NORM=norm)
        return build_backbone(cfg).bottom_up

    free, frozen = build(0), build(2)
    assert all(p.requires_grad for p in free.parameters())
    assert [any(p.requires_grad for p in s.parameters()) for s in frozen.stages] == [
        False, False, True, True, True,
    ]  # fmt: skip
    assert _norms(frozen.stages[1]) == {TraceableFrozenBatchNorm2d}
    assert _norms(frozen.stages[2]) == {nn.BatchNorm2d}
    assert _norms(build(0, "FrozenBN")) == {TraceableFrozenBatchNorm2d}
    x = torch.rand(1, 3, 64, 64)
    same = build(5)
    same.load_state_dict(free.state_dict(), strict=False)
    free.eval()
    for name, value in free(x).items():  # a frozen norm equals one in eval mode
        torch.testing.assert_close(same(x)[name], value, rtol=1e-4, atol=1e-5)
