"""Costs of networks that are counted by running them without values."""

from __future__ import annotations

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from fbnetv3.arch import ArchError, count_cost, get_arch
from fbnetv3.arch.scaling import low_resolution
from fbnetv3.modeling import build_model
from fbnetv3.modeling.counting import count_module, count_network
from fbnetv3.registries import COUNTED, NETWORKS

THIN = "timm/resnet18?channels=[8,16,24,32]&layers=[1,2,1,1]"
VIT = "timm/vit_tiny_patch16_224?img_size=32&patch_size=4&depth=2&embed_dim=48&num_heads=3"


@pytest.mark.parametrize(
    ("name", "side"),
    [("fbnetv3_a0", 64), ("fbnetv3_nano_b", 32), ("fbnetv2_l3", 96), ("fbnetv3_d", 256)],
)
def test_counts_of_fbnets_equal_the_arithmetic(name: str, side: int) -> None:
    arch = get_arch(name).replace(num_classes=10)
    arch = low_resolution(arch, side) if side == 32 else arch.replace(resolution=side)
    with torch.device("meta"):
        counted = count_module(build_model(arch), 10, side)
    cost = count_cost(arch, side)
    for statistic in COUNTED:
        assert getattr(counted, statistic) == getattr(cost, statistic)


@pytest.mark.parametrize("name", [THIN, f"{THIN}&low_resolution=true", VIT])
def test_counts_equal_those_of_fvcore(name: str) -> None:
    """fvcore leaves fused attention out: 2 products of (tokens, tokens, dim) per block."""
    model = build_model(name, 10).eval()
    analysis = FlopCountAnalysis(model, torch.zeros(1, 3, 32, 32)).unsupported_ops_warnings(False)
    by_operator = analysis.by_operator()
    attention = 2 * 2 * 65**2 * 48 if name == VIT else 0
    pools = by_operator["adaptive_avg_pool2d"]
    counted = count_network(name, 10, 32)
    assert counted.macs == by_operator["conv"] + by_operator["linear"] + attention + pools
    assert counted.params == sum(p.numel() for p in model.parameters())


def test_counting_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    count_network(THIN, 10, 32)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        (f"{VIT}&num_heads2=1", 32, "did you mean num_heads"),
        (VIT.replace("num_heads=3", "num_heads=5"), 32, "dim should be divisible by num_heads"),
        (VIT, 40, "cannot process images of 40 pixels"),
        ("timm/resnet18?in_chans=1", 32, "cannot process images of 32 pixels"),
        ("timm/resnet18?features_only=true", 32, "returns list for an image"),
    ],
)
def test_networks_that_cannot_be_counted(name: str, side: int, message: str) -> None:
    with pytest.raises(ArchError) as error:
        count_network(name, 10, side)
    assert message in str(error.value)


def test_a_network_that_needs_values_to_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(num_classes: int, width: int = 4) -> nn.Module:
        width = width * int(torch.ones(1).item())  # fails on the meta device
        pool = nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(
            nn.Conv2d(3, width, 3), pool, nn.Flatten(), nn.Linear(width, num_classes)
        )

    monkeypatch.setitem(NETWORKS._entries, "my/net", make)
    cost = count_network("my/net?width=8", 10, 6)
    assert cost.macs == 3 * 8 * 9 * 16 + 8 * 16 + 8 * 10
    assert cost.params == 3 * 8 * 9 + 8 + 8 * 10 + 10
    assert cost.activations == 8 * 16 + 10
