"""FBNet search spaces: the paper's Table 1 and its siblings as variables, with their cost."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from fbnetv3.arch import count_cost, get_arch
from fbnetv3.arch.latency import LatencyTable, MeasuredBlock
from fbnetv3.arch.latency_shapes import arch_shapes
from fbnetv3.arch.scaling import aligned
from fbnetv3.recipe import Recipe
from fbnetv3.search import Constraint, SearchError
from fbnetv3.search.fbnet.space import FBNetSpace, list_spaces
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.reach import measure_reach

TABLE_7 = {
    "lr": 0.026,
    "optimizer": "rmsprop",
    "dropout": 0.17,
    "drop_path": 0.09,
    "mixup": 0.19,
    "weight_decay": 7e-6,
}
# fmt: off
FBNETV3_B = {
    "resolution": 248, "stage0_c": 16,
    "stage1_n": 2, "stage1_k": 3, "stage1_k_rest": 3, "stage1_c": 16,
    "stage2_n": 4, "stage2_k": 5, "stage2_k_rest": 5, "stage2_c": 24,
    "stage2_e": 4, "stage2_e_rest": 2,
    "stage3_n": 5, "stage3_k": 5, "stage3_k_rest": 5, "stage3_c": 40,
    "stage3_e": 5, "stage3_e_rest": 3,
    "stage4a_n": 5, "stage4a_k": 5, "stage4a_k_rest": 3, "stage4a_c": 72,
    "stage4b_n": 6, "stage4b_k": 3, "stage4b_k_rest": 5, "stage4b_c": 120,
    "stage4_e": 5, "stage4_e_rest": 3,
    "stage5a_n": 6, "stage5a_k": 3, "stage5a_k_rest": 5, "stage5a_c": 184,
    "stage5a_e": 6, "stage5a_e_rest": 4,
    "stage5b_k": 5, "stage5b_c": 224,
    **TABLE_7,
}
# fmt: on
"""FBNetV3-B as values of the space's variables."""
# Table 1 of the paper: allowed channels and depths of each searched row.
TABLE_1 = {
    "stage0": (range(16, 25, 2), None),
    "stage1": (range(16, 25, 2), range(1, 5)),
    "stage2": (range(20, 33, 4), range(4, 8)),
    "stage3": (range(24, 49, 4), range(4, 8)),
    "stage4a": (range(56, 85, 4), range(4, 9)),
    "stage4b": (range(96, 145, 4), range(6, 11)),
    "stage5a": (range(180, 225, 4), range(5, 10)),
    "stage5b": (range(180, 225, 4), None),
}


@pytest.fixture(scope="module")
def fbnet() -> FBNetSpace:
    return FBNetSpace.from_yaml("fbnetv3")


def _values(space: FBNetSpace, name: str) -> list:
    parameter = space.space[name]
    return [parameter.value(level) for level in range(parameter.size)]


def test_the_space_is_table_1(fbnet: FBNetSpace) -> None:
    for row, (channels, depths) in TABLE_1.items():
        assert _values(fbnet, f"{row}_c") == list(channels)
        if depths:
            assert _values(fbnet, f"{row}_n") == list(depths)
    for row in ("stage2", "stage3", "stage4"):
        assert _values(fbnet, f"{row}_e") == [4, 5, 6, 7]
        assert _values(fbnet, f"{row}_e_rest") == [2, 3, 4, 5]
    assert _values(fbnet, "stage5a_e_rest") == [4, 5, 6, 7]
    assert _values(fbnet, "resolution") == list(range(224, 273, 8))
    kernels = [name for name in fbnet.space.names if "_k" in name]
    assert len(kernels) == 13  # two of six rows, one of the last; MBPool has none
    assert all(_values(fbnet, name) == [3, 5] for name in kernels)
    assert _values(fbnet, "lr") == pytest.approx(np.arange(20, 31) / 1000)
    assert _values(fbnet, "weight_decay") == pytest.approx(np.arange(7, 22) * 1e-6)
    assert len(fbnet.space) == 42


def test_fbnetv3_b_is_in_the_space(fbnet: FBNetSpace) -> None:
    arch = aligned(get_arch("fbnetv3_b"))
    assert fbnet.arch(FBNETV3_B).layers() == arch.layers()
    assert fbnet.arch(FBNETV3_B).resolution == arch.resolution
    assert count_cost(fbnet.arch(FBNETV3_B)) == count_cost(arch)
    levels = fbnet.space.levels([FBNETV3_B])
    assert fbnet.space.configs(levels) == [FBNETV3_B]


@pytest.mark.parametrize("name", ["fbnetv3", "nano"])
def test_arrays_and_single_architectures_have_the_same_cost(name: str) -> None:
    space = FBNetSpace.from_yaml(name)
    random = np.random.default_rng(0)
    levels = space.space.canonical(random.integers(0, space.space.sizes, (40, len(space.space))))
    levels[0], levels[1] = 0, space.space.canonical(space.space.sizes[None] - 1)
    statistics = space.statistics(100)
    assert statistics is not None
    configs = space.space.configs(levels)
    by_columns = statistics.of_columns(space.space.values_by_name(levels))
    for key, values in statistics(configs).items():
        assert values.tolist() == by_columns[key].tolist()
    for i, config in enumerate(configs):
        arch = space.arch(config, 100)
        cost = count_cost(arch)
        assert [by_columns[k][i] for k in ("macs", "params", "activations")] == [
            cost.macs,
            cost.params,
            cost.activations,
        ]


def _table(space: FBNetSpace, num_classes: int) -> LatencyTable:
    """Returns a table of the blocks of random networks, with latencies drawn at random."""
    random = np.random.default_rng(1)
    levels = random.integers(0, space.space.sizes, (30, len(space.space)))
    levels[0], levels[1] = 0, space.space.sizes - 1
    archs = [space.arch(c, num_classes) for c in space.space.configs(levels)]
    shapes = dict.fromkeys(s for arch in archs for s in arch_shapes(arch))
    blocks = [MeasuredBlock(s, float(random.uniform(0.1, 2.0))) for s in shapes]
    ends = (
        dataclasses.replace(blocks[0].shape, size=8),
        dataclasses.replace(blocks[0].shape, size=512),
    )
    return LatencyTable([*blocks, *(MeasuredBlock(end, 0.1) for end in ends)])


def test_latency_is_a_statistic_if_there_is_a_table() -> None:
    space = FBNetSpace.from_yaml("nano")
    table = _table(space, 10)
    statistics = space.statistics(10, table)
    assert statistics is not None
    random = np.random.default_rng(1)  # the networks whose blocks the table has
    levels = random.integers(0, space.space.sizes, (30, len(space.space)))
    configs = space.space.configs(levels)[2:]
    computed = statistics(configs)
    assert set(computed) == {"macs", "params", "activations", "latency_ms"}
    latencies = [table.of_arch(space.arch(config, 10)) for config in configs]
    assert computed["latency_ms"].tolist() == pytest.approx(latencies)


def test_the_space_is_larger_than_the_paper_states(fbnet: FBNetSpace) -> None:
    space = fbnet.space
    assert space.log10_cardinality_of("architecture") == pytest.approx(20.5, abs=0.01)
    assert space.log10_cardinality_of("recipe") == pytest.approx(7.1, abs=0.03)
    extra = [n for n in space.names if n.endswith("_k_rest")] + ["stage5a_e_rest", "resolution"]
    as_printed = space.log10_cardinality_of("architecture") - sum(
        math.log10(space[n].size) for n in extra
    )
    assert as_printed == pytest.approx(17.25, abs=0.05)  # the paper: 10^17
    lines = fbnet.size_lines()
    assert len(lines) == 2
    assert "10^20.5 architectures x 10^7.1 recipes" in lines[0]
    assert "10^17" in lines[1]


def test_autotrain_searches_the_recipe_row(fbnet: FBNetSpace) -> None:
    autotrain = FBNetSpace.from_yaml("autotrain")
    assert not autotrain.has_architecture
    assert _values(autotrain, "ema") == [True, False]
    shared = set(autotrain.space.names) & set(fbnet.space.names)
    assert shared == set(autotrain.space.names) - {"ema"}
    assert all(autotrain.space[n] == fbnet.space[n] for n in shared)


def test_sgd_has_four_times_the_learning_rate(fbnet: FBNetSpace) -> None:
    config = {**TABLE_7, "optimizer": "sgd"}
    assert fbnet.recipe(config, Recipe()).lr == pytest.approx(0.104)
    recipe = fbnet.recipe(TABLE_7, Recipe(ema=False, epochs=3.0, warmup_epochs=0.0))
    assert (recipe.lr, recipe.ema, recipe.dropout, recipe.epochs) == (0.026, True, 0.17, 3.0)


def test_a_width_factor_scales_every_row_but_the_pooling_one() -> None:
    table = {
        "width": 0.5,
        "rows": [
            {"stage": 0, "op": "conv", "k": 3, "c": {"range": [16, 24, 2]}, "s": 2},
            {"stage": 1, "op": "mbpool", "e": 2, "c": 64},
        ],
    }
    space = FBNetSpace(table)
    assert [b.c for b in space.arch({"stage0_c": 24}).blocks] == [16, 64]


def test_variables_can_be_fixed(fbnet: FBNetSpace) -> None:
    space = FBNetSpace.from_yaml("fbnetv3", {"resolution": 224, "optimizer": "sgd"})
    assert space.space["resolution"].size == space.space["optimizer"].size == 1
    with pytest.raises(SearchError, match=r"'resolutoin'.*did you mean resolution.*leave it out"):
        FBNetSpace.from_yaml("fbnetv3", {"resolutoin": 224})
    with pytest.raises(SearchError, match="resolution=100 is not in the space"):
        FBNetSpace.from_yaml("fbnetv3", {"resolution": 100})


def test_a_recipe_variable_is_fixed_at_any_valid_value() -> None:
    fixed = {"dropout": 0.0, "drop_path": 0, "optimizer": "sgd"}
    space = FBNetSpace.from_yaml("autotrain", fixed)
    config = space.space.configs(np.zeros((1, len(space.space)), dtype=np.int64))[0]
    recipe = space.recipe(config, Recipe())
    assert (recipe.dropout, recipe.drop_path, recipe.optimizer) == (0.0, 0, "sgd")
    with pytest.raises(SearchError, match=r"dropout=1\.5 is out of range"):
        FBNetSpace.from_yaml("autotrain", {"dropout": 1.5})
    with pytest.raises(SearchError, match="'adan' is unknown"):
        FBNetSpace.from_yaml("autotrain", {"optimizer": "adan"})


def test_tied_depths_activate_a_shared_variable() -> None:
    row = {"op": "mbconv", "k": 3, "s": 1, "n": {"range": [1, 2]}, "c": 16}
    tied = {"first": 2, "rest": {"range": [2, 4], "tie": "e_rest"}}
    table = {
        "resolution": 32,
        "rows": [
            {"stage": 0, "op": "conv", "k": 3, "c": 16, "s": 2},
            {**row, "stage": 1, "e": tied},
            {**row, "stage": 2, "e": tied},
        ],
    }
    space = FBNetSpace(table).space
    configs = [{"stage1_n": a, "stage2_n": b, "e_rest": 4} for a in (1, 2) for b in (1, 2)]
    active = space.active(space.levels(configs))[:, space.names.index("e_rest")]
    assert active.tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rowz": []}, "no key 'rowz'; did you mean rows"),
        ({"recipe": {"lrr": 1}}, "no key 'lrr'; did you mean lr"),
        ({"recipe": {"lr": {"range": [1]}}}, r"range \[1\]"),
        ({"recipe": {"lr": {"rang": [1, 2]}}}, "does not describe a variable"),
        ({"recipe": {"lr": {"range": ["a", "b"]}}}, "must hold numbers only"),
        ({"recipe": {"lr": {"range": [0.3, 0.1]}}}, r"low=0.3 is above high=0.1"),
        ({"recipe": {"lr": {"range": []}}}, r"range \[\]"),
        ({"recipe": {"lr": {"choices": 3}}}, "choices 3 is not a list"),
        ({"recipe": {"lr": {"choices": []}}}, "at least one value"),
        ({"recipe": {"lr": 0.1}}, "only one candidate"),
        ({"recipe": {"lr": {"range": [0.1, 0.1]}}}, "only one candidate"),
        ({"recipe": [1]}, "recipe must be a mapping"),
        ({"rows": 3}, "rows must be a list"),
        ({"rows": [3]}, "rows must be a list"),
        ({"rows": [{"stage": 0, "op": "conw", "c": 8}]}, "conw"),
        ({"rows": [{"stage": 0, "op": "conv", "k": 3, "cc": 8}]}, "cc"),
        ({"width": "wide"}, "width='wide'"),
        ({"width": 0}, "width=0 .*a number > 0"),
        ({"recipe": {"optimizer": {"choices": ["sgd", "adan"]}}}, "'adan' is unknown"),
        ({"recipe": {"dropout": {"range": [0.5, 1.5]}}}, "dropout=1.5 is out of range"),
        ({"recipe": {"lr": {"choices": ["fast", 0.1]}}}, "lr='fast'"),
    ],
)
def test_invalid_tables(change: dict, text: str) -> None:
    with pytest.raises(SearchError, match=text) as error:
        FBNetSpace({"recipe": {"lr": {"range": [0.1, 0.2]}}, **change})
    assert "\n" not in str(error.value)


def test_an_unknown_space() -> None:
    assert list_spaces() == [
        "autotrain",
        "autotrain_paper",
        "fbnetv3",
        "fbnetv3_paper",
        "latency",
        "latency_mbconv",
        "nano",
        "photos",
        "retinanet",
        "retinanet_small",
        "timm_resnet",
        "timm_vit",
    ]
    with pytest.raises(SearchError, match="did you mean nano"):
        FBNetSpace.from_yaml("nan0")


def test_the_pool_of_the_paper_is_built_in_seconds(fbnet: FBNetSpace) -> None:
    costs = Costs(fbnet.space, fbnet.statistics(1000))
    feasible = FeasibleSpace(costs, (Constraint("macs", 4e8, 8e8),))
    pool, reach = feasible.sample(2000, seed=0), measure_reach(feasible, seed=0)
    assert len(pool) == 2000
    assert reach["macs"].acceptance > 0.2
    smallest = fbnet.space.configs(np.zeros((1, len(fbnet.space)), dtype=np.int64))[0]
    # Every variable's cost grows with its level; the short evolution reaches the true minimum.
    assert reach["macs"].low == count_cost(fbnet.arch(smallest)).macs
