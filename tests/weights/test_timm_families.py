"""Networks of timm's other families: strict loading, equal logits, published params and MACs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fbnetv3.arch import Arch, count_cost, get_arch
from fbnetv3.modeling import build_model
from fbnetv3.weights.converters import load_state_dict
from fbnetv3.weights.errors import LoadError
from tests.weights.test_converters import _fill_timm

PUBLISHED = json.loads((Path(__file__).parent.parent / "golden/timm_benchmark.json").read_text())
NAMES = sorted({row["model"] for row in PUBLISHED})
OTHER = "blocks_of_other_networks"
BLOCKS = [  # of timm: a fused block without expansion, with squeeze-and-excitation, layer scale
    ["cn_r2_k3_s1_e1_c24_skip"],
    ["er_r2_k3_s2_e4_c32", "er_r1_k3_s1_e2_c32_se0.25"],
    ["uir_r2_a3_k5_s2_e3_c48", "uir_r1_a5_k0_s1_e2_c48", "uir_r1_a0_k0_s1_e1_c48"],
    ["cn_r1_k1_s1_c96"],
]
ROWS = [
    {"stage": 0, "op": "conv", "k": 3, "c": 24, "s": 2},
    {"stage": 1, "op": "fused", "k": 3, "e": 1, "c": 24, "n": 2},
    {"stage": 2, "op": "fused", "k": 3, "e": 4, "c": 32, "n": 2, "s": 2},
    {"stage": 2, "op": "fused", "k": 3, "e": 2, "c": 32, "se": "sigmoid"},
    {"stage": 3, "op": "uib", "k_start": 3, "k_mid": 5, "e": 3, "c": 48, "n": 2, "s": 2},
    {"stage": 3, "op": "uib", "k_start": 5, "k_mid": 0, "e": 2, "c": 48},
    {"stage": 3, "op": "uib", "k_start": 0, "k_mid": 0, "e": 1, "c": 48},
    {"stage": 4, "op": "conv", "k": 1, "c": 96},
    {"stage": 4, "op": "mbpool", "e": 1, "c": 64, "pwl_bn": True},
]


def _networks(name: str) -> tuple[nn.Module, Arch]:
    """Returns timm's network and the table of ours."""
    timm = pytest.importorskip("timm")
    if name != OTHER:
        return timm.create_model(name, pretrained=False), get_arch(name)
    from timm.models._efficientnet_builder import decode_arch_def
    from timm.models.mobilenetv3 import MobileNetV3

    settings = {"head_bias": False, "head_norm": True, "layer_scale_init_value": 0.5}
    settings |= {"stem_size": 24, "num_features": 64, "act_layer": nn.SiLU, "num_classes": 10}
    defaults = {"act": "swish", "conv_bias": False, "layer_scale": 0.5}
    table: dict[str, Any] = {"name": name, "resolution": 64, "width_divisor": None}
    arch = Arch.from_dict({**table, "num_classes": 10, "defaults": defaults, "rows": ROWS})
    return MobileNetV3(decode_arch_def(BLOCKS), **settings), arch


@pytest.mark.parametrize("name", [*NAMES, OTHER])
def test_timm_weights_load_strictly_and_give_timm_logits(name: str) -> None:
    theirs, arch = _networks(name)
    tensors = _fill_timm(theirs.eval())
    theirs.load_state_dict(tensors)
    ours = build_model(arch).eval()
    summary = load_state_dict(ours, tensors)
    assert (summary.layout, summary.loaded, summary.zero_filled) == ("timm", len(tensors), ())
    assert count_cost(arch).params == sum(p.numel() for p in theirs.parameters())
    theirs, ours = theirs.double(), ours.double()  # random networks amplify rounding errors
    for side in (48, 64):
        images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side))
        with torch.inference_mode():
            expected, logits = theirs(images.double()), ours(images.double())
        assert (logits - expected).abs().max() <= 1e-9 * expected.abs().mean()
        assert expected.std(0).mean() > 1e-3 * expected.abs().mean()  # they depend on the images


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row['model']}-{row['side']}")
def test_parameters_and_macs_are_those_that_timm_publishes(row: dict[str, Any]) -> None:
    cost = count_cost(row["model"], row["side"])
    assert round(cost.params / 1e6, 2) == row["params_m"]
    # timm counts 2 operations of batch norm for each output of a convolution, too.
    assert round((cost.macs + 2 * cost.activations) / 1e9, 2) == row["gmacs"]


def test_weights_of_another_network_of_the_family_are_refused() -> None:
    timm = pytest.importorskip("timm")
    tensors = timm.create_model("mobilenetv4_conv_small", pretrained=False).state_dict()
    with pytest.raises(LoadError, match="do not fit mobilenetv4_conv_medium, which has 23"):
        load_state_dict(build_model("mobilenetv4_conv_medium"), tensors)
    del tensors["norm_head.weight"]
    with pytest.raises(LoadError, match=r"1 missing: backbone\.stages.5\.1\.pwl\.bn\.weight"):
        load_state_dict(build_model("mobilenetv4_conv_small"), tensors)
