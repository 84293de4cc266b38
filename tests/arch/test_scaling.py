"""Variants of architectures: paddings, low resolution, classes, compound scaling."""

from __future__ import annotations

import numpy as np
import pytest

from fbnetv3.arch import (
    Arch,
    ArchError,
    aligned,
    count_cost,
    get_arch,
    list_archs,
    low_resolution,
    scale,
    scale_to_macs,
    with_num_classes,
)
from fbnetv3.arch.scaling import _macs_at


def test_aligned() -> None:
    plain = get_arch("fbnetv3_a")
    variant = aligned(plain)
    assert variant.name == "fbnetv3_a_aligned"
    assert any(layer.k and layer.padding != layer.k // 2 for layer in plain.layers())
    assert all(layer.padding == layer.k // 2 for layer in variant.layers() if layer.k)
    assert count_cost(variant).params == count_cost(plain).params
    assert count_cost(variant).macs > count_cost(plain).macs
    assert aligned(variant) == variant


def test_low_resolution() -> None:
    plain = get_arch("fbnetv3_a0")
    low = low_resolution(plain)
    assert (low.name, low.resolution) == ("fbnetv3_a0_low32", 32)
    assert plain.stage_strides == [2, 2, 4, 8, 16, 32, None]
    assert low.stage_strides == [2, 2, 2, 4, 8, 16, None]
    assert count_cost(low).params == count_cost(plain).params
    assert low_resolution(plain, 64).resolution == 64
    # A row that loses its stride also loses its special padding.
    only = [b for b in get_arch("fbnetv3_a").blocks if b.s == 1 or b.stage in (0, 4)]
    blocks = tuple(b.replace(stage=i) for i, b in enumerate(only))
    assert low_resolution(Arch("net", 64, blocks)).stage_strides[:-1] == [2] * (len(blocks) - 1)


def test_low_resolution_needs_a_second_stride() -> None:
    arch = get_arch("fbnetv3_a0")
    with pytest.raises(
        ArchError, match=r"fbnetv3_a0: s: 1: .* fewer than two rows with stride > 1"
    ):
        low_resolution(arch.replace(blocks=arch.blocks[:2]))


@pytest.mark.parametrize("name", list_archs("fbnet*"))
def test_low_resolution_of_every_table(name: str) -> None:
    low = low_resolution(get_arch(name))
    assert count_cost(low).params == count_cost(name).params


def test_num_classes() -> None:
    ten = with_num_classes(get_arch("fbnetv3_g"), 10)
    difference = count_cost("fbnetv3_g").params - count_cost(ten).params
    assert difference == 990 * 1985
    with pytest.raises(ArchError, match="num_classes: -1"):
        with_num_classes(ten, -1)


def test_scaling_by_one_changes_nothing() -> None:
    for name in list_archs("fbnet*"):
        assert scale(get_arch(name)) == get_arch(name)


def test_scaling_e_gives_f_as_in_the_paper() -> None:
    e, f = get_arch("fbnetv3_e"), get_arch("fbnetv3_f")
    scaled = scale(e, width=1.1, depth=1.1, resolution=272)
    assert scaled.name == "fbnetv3_e_w1.1_d1.1_r272"
    assert [b.n for b in scaled.blocks] == [b.n for b in f.blocks]
    pairs = zip(scaled.blocks, f.blocks, strict=True)
    assert all(abs(block.c - published.c) <= 16 for block, published in pairs)
    assert scaled.blocks[-1].c == f.blocks[-1].c == 1984


def test_scale_refuses_factors_that_are_not_positive_and_finite() -> None:
    for bad in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ArchError, match=r"width: .*numbers > 0"):
            scale(get_arch("fbnetv3_a"), width=bad)


@pytest.mark.parametrize("name", ["fbnetv3_a0", "fbnetv3_b", "fbnetv2_f1", "fbnetv2_l3", "fbnet_c"])
@pytest.mark.parametrize("target", [50e6, 157e6, 400e6, 752e6, 2.1e9])
def test_scale_to_macs(name: str, target: float) -> None:
    arch = scale_to_macs(get_arch(name), target)
    assert count_cost(arch).macs == pytest.approx(target, rel=0.03)
    assert arch.name == f"{name}_{target / 1e6:.4g}m"


def test_scaling_up_grows_depth_width_and_resolution() -> None:
    plain = get_arch("fbnetv3_b")
    large = scale_to_macs(plain, 8 * count_cost(plain).macs)
    assert large.resolution == pytest.approx(plain.resolution * 1.15**3, rel=0.1)
    assert sum(b.n for b in large.blocks) > 1.3 * sum(b.n for b in plain.blocks)
    assert large.blocks[4].c > 1.1 * plain.blocks[4].c
    wider = scale_to_macs(plain, 1e9, alpha=1, gamma=1)
    assert wider.resolution == plain.resolution
    assert [b.n for b in wider.blocks] == [b.n for b in plain.blocks]


def test_the_macs_at_many_sides_are_those_of_single_networks() -> None:
    arch = get_arch("fbnetv3_a0").replace(in_channels=4)
    macs = _macs_at(arch, np.array([64, 96]))
    assert macs.tolist() == [count_cost(arch, side).macs for side in (64, 96)]


def test_a_target_out_of_reach() -> None:
    message = r"macs: 1000: out of reach.*nearest reachable target is \d{6,} "
    with pytest.raises(ArchError, match=message):
        scale_to_macs(get_arch("fbnetv3_a0"), 1000)
    with pytest.raises(ArchError, match="macs: 0"):
        scale_to_macs(get_arch("fbnetv3_b"), 0)
    with pytest.raises(ArchError, match="alpha, beta, gamma"):
        scale_to_macs(get_arch("fbnetv3_b"), 1e9, alpha=0.9)


@pytest.mark.parametrize("name", ["fbnetv3_a", "fbnetv3_c", "fbnetv3_e", "fbnetv3_a0"])
@pytest.mark.parametrize("factor", [1.5, 1.7, 1.9, 2.1])
def test_targets_between_two_sides_of_the_last_maps_are_reached(name: str, factor: float) -> None:
    """At 34 pixels, the last maps have 2 x 2 pixels instead of one, and twice the MACs."""
    arch = aligned(get_arch(name)).replace(resolution=32)
    target = factor * count_cost(arch).macs
    assert count_cost(scale_to_macs(arch, target)).macs == pytest.approx(target, rel=0.03)
