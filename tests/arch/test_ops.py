"""Custom ops: their keys and cost formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fbnetv3.arch import (
    OP_COSTS,
    Arch,
    ArchError,
    Cost,
    Key,
    Layer,
    conv_cost,
    conv_size,
    count_cost,
    register_cost,
)
from fbnetv3.arch.cost import count_cost_arrays


@register_cost(
    "test_ops_dilated", keys={"k": None, "act": "relu", "dilation": Key("int", 1, minimum=1)}
)
def dilated(layer: Layer, size: Any) -> tuple[Cost, Any]:
    out = (size - 1) // layer.s + 1
    return conv_cost(layer.c_in, layer.c_out, out, k=layer.k), out


@register_cost("test_ops_shrinks", keys={"k": 3, "first": Key("int", 7, first_only=True)})
def shrinks(layer: Layer, size: Any) -> tuple[Cost, Any]:
    out = conv_size(size, layer.k, layer.s, 0)
    return conv_cost(layer.c_in, layer.c_out, out, k=layer.k), out


def arch(**row: Any) -> Arch:
    return Arch.from_dict({"name": "net", "resolution": 16, "rows": [{"stage": 0, "c": 8, **row}]})


def test_a_custom_op_with_custom_keys() -> None:
    net = arch(op="test_ops_dilated", k=3, dilation=2, n=2)
    assert [layer.options["dilation"] for layer in net.layers()] == [2, 2]
    assert net.blocks[0].act == "relu"
    assert count_cost(net).macs_conv == 16 * 16 * 9 * (3 * 8 + 8 * 8) + 8 * 1000
    assert Arch.from_yaml(net.to_yaml()) == net
    assert "dilation: 2" in net.to_yaml()
    ks = np.array([3, 5])
    assert count_cost_arrays([{**net.blocks[0].row(), "k": ks}], 16).macs_conv.tolist() == [
        16 * 16 * k * k * (3 * 8 + 8 * 8) + 8 * 1000 for k in (3, 5)
    ]


def test_custom_keys_are_checked() -> None:
    with pytest.raises(ArchError, match="dilation: 0: not allowed; allowed: integers >= 1"):
        arch(op="test_ops_dilated", k=3, dilation=0)
    with pytest.raises(
        ArchError, match=r"dilatoin: 2: op test_ops_dilated .*did you mean dilation"
    ):
        arch(op="test_ops_dilated", k=3, dilatoin=2)
    with pytest.raises(ArchError, match="dilation: 1: op conv does not take this key"):
        arch(op="conv", k=3, dilation=1)
    with pytest.raises(ArchError, match=r"k: 2: .*odd integers"):
        arch(op="test_ops_shrinks", k=2)


def test_defaults_and_keys_for_the_first_layer_only() -> None:
    layers = arch(op="test_ops_shrinks", first=3, n=2).layers()
    assert [layer.options["first"] for layer in layers] == [3, 7]
    assert layers[0].k == 3


@register_cost("test_ops_plain", keys={"shift": 0.0, "level": -2, "label": "x", "on": False})
def plain(layer: Layer, size: Any) -> tuple[Cost, Any]:
    return Cost(), size


def test_plain_defaults() -> None:
    net = arch(op="test_ops_plain")
    assert net.layers()[0].options == {"shift": 0.0, "level": -2, "label": "x", "on": False}
    changed = {"shift": -1.5, "level": -1, "label": "y", "on": True}
    assert arch(op="test_ops_plain", **changed).layers()[0].options == changed
    for key, bad in {"shift": "1", "level": -3, "label": 1, "on": 1}.items():
        with pytest.raises(ArchError, match=f"{key}: {bad!r}: not allowed"):
            arch(op="test_ops_plain", **{key: bad})


def test_an_op_that_changes_the_size_cannot_repeat() -> None:
    assert count_cost(arch(op="test_ops_shrinks")).macs_conv == 14 * 14 * 27 * 8 + 8000
    with pytest.raises(ArchError, match="row 0: n: 2: op test_ops_shrinks changes the size"):
        count_cost(arch(op="test_ops_shrinks", n=2))


def test_names_and_keys_that_cannot_be_registered() -> None:
    known = set(OP_COSTS)
    with pytest.raises(ArchError, match="op: 'mbconv': this op is registered already"):
        register_cost("mbconv")
    with pytest.raises(ArchError, match="keys: 'kk': unknown key; allowed: k, e, act"):
        register_cost("test_ops_x", keys=("kk",))
    with pytest.raises(ArchError, match="keys: 'c': every op has this key"):
        register_cost("test_ops_x", keys=("c",))
    with pytest.raises(ArchError, match="the default is a list"):
        register_cost("test_ops_x", keys={"custom": [1]})
    with pytest.raises(ArchError, match="act: 'gelu': not allowed"):
        register_cost("test_ops_x", keys={"act": "gelu"})
    assert set(OP_COSTS) == known
