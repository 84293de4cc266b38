"""An op from outside of the package: one decorator registers its module and its cost formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fbnetv3.arch import Arch, ArchError, Cost, Layer, conv_cost, count_cost, register_cost
from fbnetv3.arch.cost import count_cost_arrays
from fbnetv3.modeling import build_model, register_op
from tests.modeling.counting import counted


def cost_of_dilated(layer: Layer, size: Any) -> tuple[Cost, Any]:
    """Returns the cost of a dilated conv with batch norm, whose padding keeps the size at s = 1."""
    out = (size - 1) // layer.s + 1
    return conv_cost(layer.c_in, layer.c_out, out, k=layer.k, bn=True), out


@register_op("test_dilated", cost=cost_of_dilated, keys={"k": None, "dilation": 1})
class Dilated(nn.Sequential):
    def __init__(self, layer: Layer, drop_path: float = 0.0) -> None:
        dilation = layer.options["dilation"]
        super().__init__(
            nn.Conv2d(
                layer.c_in,
                layer.c_out,
                layer.k,
                layer.s,
                padding=dilation * (layer.k // 2),
                dilation=dilation,
                bias=False,
            ),
            nn.BatchNorm2d(layer.c_out),
        )


TABLE = {
    "name": "outside",
    "resolution": 33,
    "num_classes": 4,
    "rows": [
        {"stage": 0, "op": "conv", "k": 3, "c": 8, "s": 2},
        {"stage": 1, "op": "test_dilated", "k": 3, "c": 16, "n": 3, "s": 2, "dilation": 2},
        {"stage": 2, "op": "mbpool", "e": 2, "c": 24},
    ],
}


def test_a_custom_op_is_built_and_counted() -> None:
    arch = Arch.from_dict(TABLE)
    model = build_model(arch, num_classes=4)
    cost = count_cost(arch)
    assert counted(model, 33) == (cost.macs_conv, cost.macs_avgpool)
    assert sum(p.numel() for p in model.parameters()) == cost.params
    assert isinstance(model.backbone.stages[1][2], Dilated)
    assert model.backbone.stages[1][2][0].dilation == (2, 2)
    assert model(torch.zeros(2, 3, 33, 33)).shape == (2, 4)


def test_a_custom_op_is_counted_in_arrays_too() -> None:
    rows = [dict(row) for row in Arch.from_dict(TABLE).to_dict()["rows"]]
    rows[1] |= {"k": np.array([3, 5]), "n": np.array([3, 1])}
    costs = count_cost_arrays(rows, 33, num_classes=4)
    assert costs.params[0] == count_cost(Arch.from_dict(TABLE)).params
    rows[1] |= {"k": 5, "n": 1}
    single = count_cost(Arch.from_dict({**TABLE, "rows": rows}))
    assert costs.macs[1] == single.macs


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ArchError, match="op: 'mbconv': this op is registered already"):

        @register_op("mbconv", cost=cost_of_dilated)
        class Custom(nn.Identity):
            def forward(self, x: Tensor) -> Tensor:
                return x


def test_an_op_with_a_cost_formula_but_no_module() -> None:
    register_cost("test_cost_only")(lambda layer, size: (Cost(), size))
    rows = [{"stage": 0, "op": "test_cost_only", "c": 3}]
    arch = Arch.from_dict({"name": "net", "resolution": 8, "rows": rows})
    assert count_cost(arch).macs_conv == 3 * 1000
    with pytest.raises(ArchError, match=r"op: 'test_cost_only': no module .*register_op"):
        build_model(arch)
