"""Spaces in which the op of a row is a variable, and kernels may be left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fbnetv3.arch import count_cost
from fbnetv3.arch.latency import LatencyTable, MeasuredBlock
from fbnetv3.arch.latency_shapes import arch_shapes, work
from fbnetv3.benchmark.latency import corner_archs, sample_archs
from fbnetv3.search import SearchError
from fbnetv3.search.fbnet.space import FBNetSpace

NUMBERS = ("macs", "params", "activations")


def _row(**changes: Any) -> dict[str, Any]:
    row = {"stage": 1, "op": {"choices": ["mbconv", "uib", "fused"]}, "k": {"choices": [3, 5]}}
    row |= {"k_start": {"choices": [0, 3]}, "k_mid": {"choices": [0, 3]}, "e": {"range": [1, 2]}}
    row |= {"c": {"range": [8, 16, 8]}, "n": {"range": [1, 2]}, "s": 1}
    return {key: value for key, value in (row | changes).items() if value is not None}


def _space(fixed: dict[str, Any] | None = None, **changes: Any) -> FBNetSpace:
    stem = {"stage": 0, "op": "conv", "k": 3, "c": 8, "s": 2}
    return FBNetSpace({"resolution": 16, "rows": [stem, _row(**changes)]}, fixed)


def test_keys_matter_for_the_ops_that_take_them() -> None:
    space = _space().space
    config = dict.fromkeys(space.names) | {"stage1_n": 2, "stage1_c": 8}
    config |= {"stage1_e": 2, "stage1_e_rest": 2, "stage1_op": "uib", "stage1_op_rest": "fused"}
    for name in ("k", "k_rest", "k_mid", "k_mid_rest", "k_start", "k_start_rest"):
        config[f"stage1_{name}"] = 3
    active = dict(zip(space.names, space.active(space.levels([config]))[0].tolist(), strict=True))
    assert [active[f"stage1_{key}"] for key in ("k_start", "k_mid", "k")] == [True, True, False]
    assert [active[f"stage1_{key}_rest"] for key in ("k", "k_mid")] == [True, False]
    config["stage1_n"] = 1
    active = dict(zip(space.names, space.active(space.levels([config]))[0].tolist(), strict=True))
    assert [active[f"stage1_{key}_rest"] for key in ("k", "op")] == [False, False]
    blocks = _space().arch(config | {"stage1_n": 2}).blocks
    assert [block.op for block in blocks] == ["conv", "uib", "fused"]
    assert {"k_start": 3, "k_mid": 3}.items() <= dict(blocks[1].options).items()


@pytest.mark.parametrize("name", ["latency", "latency_mbconv"])
def test_costs_and_latencies_of_all_candidates_equal_those_of_each(name: str) -> None:
    space = FBNetSpace.from_yaml(name)
    archs = [*corner_archs(space, 10), *sample_archs(space, 30, 10, seed=1)]
    shapes = dict.fromkeys(shape for arch in archs for shape in arch_shapes(arch))
    ms = [float(work(s).sum() * (1 + 0.1 * len(str(s.kind)))) for s in shapes]
    table = LatencyTable(list(map(MeasuredBlock, shapes, ms)))
    random = np.random.default_rng(0)
    levels = space.space.canonical(random.integers(0, space.space.sizes, (60, len(space.space))))
    statistics = space.statistics(10, table)
    assert statistics is not None
    columns = statistics.of_columns(space.space.values_by_name(levels))
    for i, config in enumerate(space.space.configs(levels)):
        arch = space.arch(config, 10)
        cost = count_cost(arch)
        assert [columns[key][i] for key in NUMBERS] == [getattr(cost, key) for key in NUMBERS]
        # The corners of the space bound all of its blocks, so that each has a latency.
        assert columns["latency_ms"][i] == pytest.approx(table.of_arch(arch))


def test_the_twin_is_the_same_space_with_one_op() -> None:
    space, twin = (FBNetSpace.from_yaml(name).space for name in ("latency", "latency_mbconv"))
    others = set(space.names) - set(twin.names)
    assert others == {
        n for n in space.names if any(key in n for key in ("_op", "k_start", "k_mid"))
    }
    assert all(twin[name].size == space[name].size for name in twin.names)
    fixed = FBNetSpace.from_yaml("latency", {n: "mbconv" for n in space.names if "_op" in n})
    config = fixed.space.configs(fixed.space.sizes[None] - 1)[0]
    assert fixed.arch(config).blocks == FBNetSpace.from_yaml("latency_mbconv").arch(config).blocks


def test_an_op_can_be_fixed() -> None:
    space = _space({"stage1_op": "uib", "stage1_op_rest": "mbconv"})
    config = space.space.configs(space.space.sizes[None] - 1)[0]
    assert [block.op for block in space.arch(config).blocks] == ["conv", "uib", "mbconv"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op": {"choices": ["mbconv", "uibb"]}}, "'uibb': unknown op; did you mean uib"),
        ({"kk": 3}, "none of the ops mbconv, uib, fused takes the key 'kk'"),
        ({"k_mid": None}, "op uib needs the key 'k_mid' in this row"),
        ({"op": {"choices": ["uib", "mbpool"]}, "k": None}, "mbpool cannot be a choice beside"),
        ({"k": {"choices": [0, 3]}}, "stage1_k=0 is not allowed; allowed for k: odd"),
        ({"k_start": {"choices": [0, 2]}}, "allowed for k_start: 0, or odd integers >= 1"),
        ({"s": 2}, "k_start and k_mid may both be 0 in a layer with a stride"),
        ({"act": {"choices": ["relu", "hswish"]}}, "stage1_act cannot vary"),
    ],
)
def test_rows_that_do_not_fit_their_ops_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        _space(**changes)


def test_a_stride_needs_no_zero_in_one_kernel_of_the_first_layer_only() -> None:
    first = {"first": {"choices": [3, 5]}, "rest": {"choices": [0, 3, 5]}}
    assert _space(s=2, k_mid=first).space["stage1_k_mid_rest"].size == 3
