"""Tables: allowed and refused values, error messages, round trips."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbnetv3.arch import Arch, ArchError, Block, get_arch, list_archs
from tests.arch.strategies import archs

ROWS: list[dict[str, Any]] = [
    {"stage": 0, "op": "conv", "k": 3, "c": 16, "s": 2},
    {"stage": 1, "op": "mbconv", "k": 5, "e": 4, "c": 24, "n": 3, "s": 2, "dw_padding": 1},
    {"stage": 2, "op": "mbpool", "e": 6, "c": 40},
]


def table(*rows: Any, **head: Any) -> dict[str, Any]:
    return {"name": "net", "resolution": 64, "rows": list(rows), **head}


def with_row(row: int, **changes: Any) -> dict[str, Any]:
    changed = [dict(r) for r in ROWS]
    changed[row].update(changes)
    return table(*changed)


@settings(max_examples=100, deadline=None)
@given(archs())
def test_round_trip(arch: Arch) -> None:
    assert Arch.from_dict(arch.to_dict()) == arch
    assert Arch.from_yaml(arch.to_yaml()) == arch
    assert pickle.loads(pickle.dumps(arch)) == arch
    assert hash(Arch.from_dict(arch.to_dict())) == hash(arch)


@pytest.mark.parametrize("name", list_archs("fbnet*"))
def test_tables_round_trip(name: str) -> None:
    arch = get_arch(name)
    assert Arch.from_yaml(arch.to_yaml()) == arch
    assert len(arch.to_yaml().splitlines()) == len(arch.blocks) + 5  # one row a line


def test_architectures_are_immutable() -> None:
    arch = Arch.from_dict(table(*ROWS))
    with pytest.raises(dataclasses.FrozenInstanceError):
        arch.resolution = 3  # type: ignore[misc]
    assert arch.replace(resolution=96).resolution == 96
    assert arch.resolution == 64


def test_layers_of_a_row() -> None:
    layers = Arch.from_dict(table(*ROWS)).layers()
    assert [layer.name for layer in layers] == [
        "stages.0.0",
        "stages.1.0",
        "stages.1.1",
        "stages.1.2",
        "stages.2.0",
    ]
    first, rest = layers[1], layers[2]
    assert (first.c_in, first.c_out, first.s, first.mid, first.padding) == (16, 24, 2, 64, 1)
    assert (rest.c_in, rest.c_out, rest.s, rest.mid, rest.padding) == (24, 24, 1, 96, 2)
    assert not first.residual
    assert rest.residual
    assert layers[3] == dataclasses.replace(rest, index=2)


def test_indices_count_the_layers_of_a_stage_over_its_rows() -> None:
    rows = [ROWS[0], {**ROWS[1]}, {**ROWS[1], "s": 1, "dw_padding": None, "n": 2}]
    layers = Arch.from_dict(table(*rows)).layers()
    assert [(layer.stage, layer.index) for layer in layers[1:]] == [(1, i) for i in range(5)]


def test_squeeze_ratios_of_fbnetv3_a_and_fbnetv2_l2() -> None:
    divided = next(layer for layer in get_arch("fbnetv3_a").layers() if layer.se)
    # mid is 24 * 5 = 120, and 120 * 0.25 / 5 = 6 is rounded to 8.
    assert (divided.mid, divided.se_channels) == (120, 8)
    plain = next(layer for layer in get_arch("fbnetv2_l2").layers() if layer.se)
    assert (plain.mid, plain.se_channels) == (128, 32)


def test_stage_channels_and_strides() -> None:
    arch = get_arch("fbnetv3_g")
    assert arch.stage_channels == [32, 24, 40, 56, 160, 288, 1984]
    assert arch.stage_strides == [2, 2, 4, 8, 16, 32, None]
    assert get_arch("fbnet_c").stage_strides == [2, 2, 4, 8, 16, 32, 32]


def test_defaults_of_a_table() -> None:
    arch = Arch.from_dict(table(*ROWS, defaults={"act": "relu", "se_ratio": 0.5}))
    assert {block.act for block in arch.blocks} == {"relu"}
    assert all(block.se_ratio is None for block in arch.blocks)  # no row has an SE


BAD_ROWS = [
    (1, {"op": "mbcon"}, "op", ["unknown op", "did you mean mbconv", "conv, mbconv, skip, mbpool"]),
    (1, {"dw_paddin": 1}, "dw_paddin", ["does not take", "did you mean dw_padding", "pw_groups"]),
    (0, {"dw_padding": 1}, "dw_padding", ["op conv does not take", "k, act, conv_bias"]),
    (2, {"k": 3}, "k", ["op mbpool does not take"]),
    (1, {"c": 0}, "c", ["0", "integers >= 1"]),
    (1, {"c": 24.5}, "c", ["24.5", "integers >= 1"]),
    (1, {"c": True}, "c", ["True", "integers >= 1"]),
    (1, {"s": -2}, "s", ["-2", "integers >= 1"]),
    (1, {"n": 0}, "n", ["integers >= 1"]),
    (1, {"k": 4}, "k", ["4", "odd integers >= 1"]),
    (1, {"c": [24]}, "c", ["[24]", "integers >= 1"]),
    (1, {"k": "3"}, "k", ["'3'", "odd integers >= 1"]),
    (1, {"k": None}, "k", ["missing", "odd integers >= 1"]),
    (1, {"e": 0}, "e", ["numbers > 0"]),
    (1, {"e": float("nan")}, "e", ["nan", "numbers > 0"]),
    (1, {"e": float("inf")}, "e", ["inf", "numbers > 0"]),
    (1, {"act": "gelu"}, "act", ["gelu", "hswish, relu, swish, relu6"]),
    (1, {"se": True}, "se", ["hsigmoid, sigmoid"]),
    (1, {"se": "hsigmoid", "se_ratio": "0.25/x"}, "se_ratio", ["0.25/x", "0.25/e"]),
    (1, {"se": "hsigmoid", "se_ratio": 2}, "se_ratio", ["(0, 1]"]),
    (1, {"se_ratio": 0.25}, "se_ratio", ["requires se"]),
    (1, {"s": 1}, "dw_padding", ["only in a row with stride > 1"]),
    (1, {"dw_padding": -1}, "dw_padding", ["-1", "integers >= 0"]),
    (1, {"conv_bias": "yes"}, "conv_bias", ["true, false"]),
    (1, {"pw_groups": 3}, "pw_groups", ["does not divide", "16 and 64"]),
    (1, {"stage": 3}, "stage", ["3", "0 or 1"]),
    (2, {"s": 2}, "s", ["pooling op has no stride"]),
]


@pytest.mark.parametrize(("row", "changes", "key", "messages"), BAD_ROWS)
def test_the_error_of_a_bad_row_names_file_row_key_and_allowed_values(
    row: int, changes: dict[str, Any], key: str, messages: list[str]
) -> None:
    with pytest.raises(ArchError) as caught:
        Arch.from_dict(with_row(row, **changes), file="some.yaml")
    error, text = caught.value, str(caught.value)
    assert (error.file, error.arch, error.row, error.key) == ("some.yaml", "net", row, key)
    assert text.startswith(f"some.yaml: net: row {row}: {key}: ")
    assert all(message in text for message in messages), text
    assert "\n" not in text


BAD_TABLES: list[tuple[Any, str]] = [
    ([], "a table must be a mapping"),
    ({"resolution": 3, "rows": []}, "name: missing"),
    (table(), "the table has no rows"),
    (table(*ROWS, resolutoin=3), "did you mean resolution"),
    (table(*ROWS, width_divisor=0), "width_divisor: 0: not allowed; allowed: integers >= 1"),
    (table(*ROWS, num_classes=-1), "num_classes: -1: not allowed"),
    ({**table(*ROWS), "resolution": "224"}, "resolution: '224': not allowed"),
    ({**table(), "rows": "conv"}, "rows: 'conv': not allowed; allowed: a list of rows"),
    (table("conv"), "row 0: row: 'conv': a row must be a mapping"),
    (table(*ROWS, defaults={"actt": "relu"}), "did you mean act"),
    (table(*ROWS, defaults=["act"]), "defaults: ['act']: not allowed"),
]


@pytest.mark.parametrize(("data", "text"), BAD_TABLES)
def test_errors_in_a_table(data: Any, text: str) -> None:
    with pytest.raises(ArchError) as caught:
        Arch.from_dict(data, file="some.yaml")
    assert text in str(caught.value)
    assert str(caught.value).startswith("some.yaml: ")


def test_blocks_made_in_code_are_checked_too() -> None:
    with pytest.raises(ArchError, match="k: 2: not allowed; allowed: odd integers >= 1"):
        Block("mbconv", c=8, stage=0, k=2, e=1)
    with pytest.raises(ArchError, match="padding: 1: op mbconv does not take this key"):
        Block("mbconv", c=8, stage=0, k=3, e=1, options={"padding": 1})
    with pytest.raises(ArchError, match="k: 5: this key is a field, not an option"):
        Block("mbconv", c=8, stage=0, k=3, e=1, options={"k": 5})
    with pytest.raises(ArchError, match="not a Block"):
        Arch("net", 32, blocks=(ROWS[0],))  # type: ignore[arg-type]


@given(st.sampled_from([6, 6.0]))
def test_an_integral_float_is_stored_as_an_int(e: float) -> None:
    assert Block("mbpool", c=8, stage=0, e=e).to_dict()["e"] == 6
    assert isinstance(Block("mbpool", c=8, stage=0, e=e).e, int)
