"""Cost formulas: published numbers, numbers by hand, arrays against scalars, monotonicity."""

from __future__ import annotations

import dataclasses
import doctest
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbnetv3.arch import Arch, ArchError, Block, Cost, count_cost, get_arch, round_channels
from fbnetv3.arch import cost as cost_module
from fbnetv3.arch.cost import count_cost_arrays
from tests.arch.strategies import archs

GOLDEN = Path(__file__).parent.parent / "golden"
PUBLISHED = json.loads((GOLDEN / "published.json").read_text())
TABLE = json.loads((GOLDEN / "published_table.json").read_text())
# FBNet-A, B and C with squeeze-and-excitation are published without a table.
KNOWN = [row for row in TABLE if not row["name"].endswith("se")]
NUMBERS = [field.name for field in dataclasses.fields(Cost)] + ["macs"]


@pytest.mark.parametrize("golden", PUBLISHED, ids=lambda golden: golden["name"])
def test_equal_to_the_published_networks(golden: dict[str, Any]) -> None:
    cost = count_cost(golden["name"].lower(), golden["input_size"])
    assert cost.macs_conv == golden["macs_conv"] + golden["macs_linear"]
    assert cost.macs_avgpool == golden["macs_avgpool"]
    assert cost.macs == golden["macs_conv"] + golden["macs_avgpool"]
    assert cost.params == golden["params"]
    assert all(type(getattr(cost, number)) is int for number in NUMBERS)


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: row["name"])
def test_equal_to_the_published_table(row: dict[str, Any]) -> None:
    arch = get_arch(row["name"].lower())
    cost = count_cost(arch)
    assert arch.resolution == row["resolution"]
    assert cost.macs / 1e6 == pytest.approx(row["macs_m"], abs=1e-6)
    assert cost.conv_weights / 1e6 == pytest.approx(row["conv_weights_m"], abs=1e-5)


def test_l3_is_the_table_of_the_paper() -> None:
    # Its MACs are not published. The first row of the printed table has k and e swapped.
    arch = get_arch("fbnetv2_l3")
    assert arch.resolution == 256
    assert sum(block.n for block in arch.blocks) == 33
    assert arch.blocks[0] == Block("conv", c=16, stage=0, k=3, s=2)
    assert 600e6 < count_cost(arch).macs < 650e6


def test_cost_computed_by_hand() -> None:
    rows = [
        {"stage": 0, "op": "conv", "k": 3, "c": 8, "s": 2},
        {"stage": 1, "op": "mbconv", "k": 3, "e": 2, "c": 8, "se": "hsigmoid", "se_ratio": 0.5},
    ]
    arch = Arch.from_dict({"name": "n", "resolution": 8, "rows": rows, "num_classes": 5})
    cost = count_cost(arch)
    # 8 px -> 4 px: stem, expansion to 16, depthwise, SE 16 -> 8 -> 16, projection, classifier.
    conv = 27 * 8 * 16 + 8 * 16 * 16 + 9 * 16 * 16 + 2 * 16 * 8 + 16 * 8 * 16 + 8 * 5
    assert cost.macs_conv == conv
    assert cost.macs_avgpool == 16 * 16 + 8 * 16
    weights = 27 * 8 + 8 * 16 + 9 * 16 + 2 * 16 * 8 + 16 * 8 + 8 * 5
    assert cost.conv_weights == weights
    assert cost.params == weights + 8 + 2 * (8 + 16 + 16 + 8) + (8 + 16) + 5
    assert cost.activations == 16 * (8 + 16 + 16 + 8) + (8 + 16) + 5


@settings(max_examples=100, deadline=None)
@given(archs(), st.integers(1, 3))
def test_arrays_equal_scalars(arch: Arch, more: int) -> None:
    repeats = [np.array([block.n, block.n + more]) for block in arch.blocks]
    rows = [{**block.row(), "n": n} for block, n in zip(arch.blocks, repeats, strict=True)]
    sides = np.array([arch.resolution, arch.resolution + 2])
    costs = count_cost_arrays(rows, sides, num_classes=arch.num_classes)
    for i in range(2):
        blocks = [block.replace(n=int(n[i])) for block, n in zip(arch.blocks, repeats, strict=True)]
        single = count_cost(arch.replace(blocks=tuple(blocks)), int(sides[i]))
        for number in NUMBERS:
            assert getattr(costs, number)[i] == getattr(single, number), number


def candidates(count: int, seed: int = 0) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Returns the rows of FBNetV3-G with random k, e, c and n, and random resolutions."""
    r = np.random.default_rng(seed)
    rows = []
    for block in get_arch("fbnetv3_g").blocks:
        row = {**block.row(), "c": block.c + 8 * r.integers(-1, 3, count)}
        row["n"] = np.maximum(1, block.n + r.integers(-1, 3, count))
        if block.op == "mbconv":
            row |= {"k": r.choice([3, 5], count), "e": r.choice([1.5, 2, 3.25, 4, 6], count)}
        rows.append(row)
    return rows, 8 * r.integers(24, 41, count)


def test_random_candidates_equal_scalars() -> None:
    rows, sides = candidates(60)
    cost = count_cost_arrays(rows, sides)
    for i in range(60):
        blocks = [
            Block.from_dict({k: v[i] if isinstance(v, np.ndarray) else v for k, v in row.items()})
            for row in rows
        ]
        single = count_cost(Arch("single", int(sides[i]), tuple(blocks)))
        assert [int(getattr(cost, n)[i]) for n in NUMBERS] == [getattr(single, n) for n in NUMBERS]


def test_twenty_thousand_candidates_take_less_than_half_a_second() -> None:
    rows, sides = candidates(20_000)
    times = []
    for _ in range(3):
        start = time.process_time()
        macs = count_cost_arrays(rows, sides).macs
        times.append(time.process_time() - start)
    assert macs.shape == (20_000,)
    assert macs.dtype == np.int64
    assert min(times) < 0.5


@settings(max_examples=60, deadline=None)
@given(archs(), st.data())
def test_more_costs_more(arch: Arch, data: st.DataObject) -> None:
    cost = count_cost(arch)
    row = data.draw(st.integers(0, len(arch.blocks) - 1))
    block = arch.blocks[row]
    changes: list[dict[str, Any]] = [{"n": block.n + 1}, {"c": block.c + 8}]
    if block.e is not None:
        changes.append({"e": block.e + 1})
    for change in changes:
        blocks = list(arch.blocks)
        blocks[row] = block.replace(**change)
        more = count_cost(arch.replace(blocks=tuple(blocks)))
        # A skip whose input and output channels become equal turns into an identity.
        if "c" not in change or all(b.op != "skip" for b in arch.blocks):
            assert more.params >= cost.params
            assert more.macs >= cost.macs
    larger = count_cost(arch, arch.resolution + 16)
    assert larger.macs > cost.macs
    assert larger.params == cost.params
    assert larger.activations > cost.activations


def test_resolutions_that_are_not_allowed() -> None:
    with pytest.raises(ArchError, match=r"fbnetv3_a: row 6: .*side of 2 pixels, too small"):
        count_cost("fbnetv3_a", 16)
    for bad in (0, -1, 1.5, "224"):
        with pytest.raises(ArchError, match=r"resolution: .*allowed: integers >= 1"):
            count_cost("fbnetv3_a", bad)  # type: ignore[arg-type]
    with pytest.raises(ArchError, match=r"row 6: .*side of 2 pixels"):
        count_cost_arrays(get_arch("fbnetv3_a").blocks, np.array([16, 224]))


def test_every_number_has_the_shape_of_the_candidates() -> None:
    cost = count_cost_arrays(get_arch("fbnetv3_a0").blocks, np.array([192, 224]))
    assert cost.params.tolist() == [count_cost("fbnetv3_a0").params] * 2
    assert cost.macs.tolist() == [count_cost("fbnetv3_a0", side).macs for side in (192, 224)]


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(cost_module).failed == 0


def test_bad_arrays() -> None:
    rows = [{"stage": 0, "op": "conv", "k": np.array([3, 4]), "c": 8}]
    with pytest.raises(ArchError, match=r"row 0: k: .*odd integers >= 1"):
        count_cost_arrays(rows, 32)


@pytest.mark.parametrize(
    ("value", "divisor", "expected"),
    [
        (12, 8, 16),  # halves are rounded up
        (11.9, 8, 16),  # 8 would lose more than 5%
        (36, 8, 40),
        (33, 8, 32),
        (3, 8, 8),
        (100, None, 100),
        (0.3, None, 1),
        (9, 8, 16),  # 8 is below 0.95 x 9
        (8.4, 8, 8),
    ],
)
def test_round_channels(value: float, divisor: int | None, expected: int) -> None:
    assert round_channels(value, divisor) == expected
    assert round_channels(np.array([value, value]), divisor).tolist() == [expected, expected]
