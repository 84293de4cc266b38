"""Universal inverted bottlenecks and fused inverted residuals: inference form, start, training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fbnetv3.arch import Arch, ArchError, Block
from fbnetv3.modeling import build_model, deploy
from fbnetv3.modeling.blocks import FusedMBConv, LayerScale, UniversalInvertedBottleneck
from fbnetv3.modeling.registry import build_layer
from tests.modeling.networks import count_batch_norms, distance, images, with_random_statistics

ROWS: list[dict[str, Any]] = [
    {"stage": 0, "op": "conv", "k": 3, "c": 8, "s": 2, "conv_bias": False},
    {"stage": 1, "op": "fused", "k": 3, "e": 1, "c": 8, "n": 2},
    {"stage": 2, "op": "fused", "k": 3, "e": 2, "c": 16, "n": 2, "s": 2, "se": "sigmoid"},
    {"stage": 3, "op": "uib", "k_start": 5, "k_mid": 0, "e": 2, "c": 16, "s": 2},
    {"stage": 3, "op": "uib", "k_start": 3, "k_mid": 5, "e": 2, "c": 16},
    {"stage": 3, "op": "uib", "k_start": 0, "k_mid": 3, "e": 1, "c": 16, "layer_scale": 0.5},
    {"stage": 4, "op": "mbpool", "e": 1, "c": 32, "pwl_bn": True},
]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    rows = [{**row, "act": "relu"} for row in ROWS]
    table = {"name": "net", "resolution": 32, "num_classes": 5, "rows": rows}
    return build_model(Arch.from_dict(table))


def test_the_inference_form_has_no_batch_norm_and_equal_outputs(model: nn.Module) -> None:
    trained = with_random_statistics(model).eval()
    deployed = deploy(trained)
    assert count_batch_norms(trained) == 18
    assert count_batch_norms(deployed) == 0  # that after the pool is folded, too
    with torch.inference_mode():
        assert distance(deployed(images()), trained(images())) < 1e-4


def test_the_blocks_can_be_traced(model: nn.Module) -> None:
    traced = torch.fx.symbolic_trace(model.eval())
    torch.testing.assert_close(traced(images(3)), model(images(3)))


def test_every_parameter_is_trained_from_the_start(model: nn.Module) -> None:
    torch.manual_seed(0)
    fresh = build_model(model.arch).train()  # type: ignore[arg-type]
    fresh(images(8)).square().sum().backward()
    blocks = [
        b for b in fresh.modules() if isinstance(b, UniversalInvertedBottleneck | FusedMBConv)
    ]
    for block in blocks:
        assert block.pwl.bn.weight.grad is not None
        assert block.pwl.bn.weight.grad.abs().max() > 0


def test_blocks_with_a_shortcut_start_as_the_identity_or_near_it(model: nn.Module) -> None:
    layers = model.arch.layers()  # type: ignore[union-attr, operator]
    x = torch.randn(2, 16, 8, 8)
    for layer in [layer for layer in layers if layer.residual and layer.c_in == 16]:
        block: Any = build_layer(layer)
        block.zero_init_last()
        is_identity = not isinstance(getattr(block, "scale", None), LayerScale)
        assert torch.equal(block.eval()(x), x) == is_identity


def test_a_fused_block_without_projection_is_not_started_at_zero(model: nn.Module) -> None:
    # its activation would pass no gradient
    layer = model.arch.layers()[1]  # type: ignore[union-attr, operator]
    block: Any = build_layer(layer)
    block.zero_init_last()
    assert layer.residual
    assert block.pwl.bn.weight.abs().min() > 0


@pytest.mark.parametrize("k", [(0, 3), (3, 0), (5, 3)])
def test_the_last_depthwise_convolution_has_the_stride(k: tuple[int, int]) -> None:
    rows = [
        ROWS[0],
        {"stage": 1, "op": "uib", "k_start": k[0], "k_mid": k[1], "e": 2, "c": 8, "s": 2},
    ]
    arch = Arch.from_dict({"name": "net", "resolution": 32, "rows": rows})
    block: Any = build_layer(arch.layers()[1])
    strides = [m.stride for m in block.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert strides[-1] == (2, 2)
    assert set(strides[:-1]) <= {(1, 1)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k_start": 0, "k_mid": 0}, "s: 2: a stride needs a depthwise convolution"),
        ({"k_start": 0}, "k_mid: missing; allowed: 0, or odd integers >= 1"),
        ({"k_start": 2, "k_mid": 3}, "k_start: 2: not allowed; allowed: 0, or odd"),
        ({"k_start": 3, "k_mid": 3, "layer_scale": 0.0}, "layer_scale: 0.0: not allowed"),
    ],
)
def test_bottlenecks_that_cannot_be_built_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArchError, match=message):
        Block("uib", c=8, stage=0, e=2, s=2, options=options)
