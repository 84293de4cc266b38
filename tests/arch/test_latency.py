"""Latency tables: sums of blocks, shapes between measured ones, files, errors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from fbnetv3.arch import Arch, ArchError
from fbnetv3.arch.latency import LatencyTable, MeasuredBlock
from fbnetv3.arch.latency_shapes import Shape, arch_shapes, work


def _arch(c: int = 16, n: int = 2, k: int = 3, e: int = 4, resolution: int = 32) -> Arch:
    row = {"op": "mbconv", "k": k, "e": e, "act": "hswish"}
    rows = [
        {"stage": 0, "op": "conv", "k": 3, "c": 8, "s": 2, "act": "relu"},
        {"stage": 1, **row, "c": c, "s": 2, "se": "hsigmoid", "se_ratio": 0.25},
        *([{"stage": 1, **row, "c": c, "n": n - 1}] if n > 1 else []),
        {"stage": 2, "op": "mbpool", "e": 2, "c": 64, "act": "hswish"},
    ]
    table = {"name": "small", "resolution": resolution, "num_classes": 10, "rows": rows}
    return Arch.from_dict(table)


def _true_ms(shape: Shape) -> float:
    """Returns the latency of a simulated machine: a weighted sum of work for each kernel size."""
    weights = np.linspace(0.5, 2.0, work(shape).shape[-1]) * (1 + 0.1 * shape.kind.k)
    return float(work(shape) @ weights)


def _table(*archs: Arch) -> LatencyTable:
    shapes = dict.fromkeys(shape for arch in archs for shape in arch_shapes(arch))
    return LatencyTable([MeasuredBlock(shape, _true_ms(shape)) for shape in shapes], {"cpu": "x"})


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    random = np.random.default_rng(0)
    drawn = [
        _arch(
            *(int(random.choice(values)) for values in ((8, 16, 24, 32), (3,), (3, 5), (2, 3, 4)))
        )
        for _ in range(30)
    ]
    ends = [_arch(c, 3, k, e, r) for c in (8, 32) for k in (3, 5) for e in (2, 4) for r in (32, 64)]
    return _table(*ends, *drawn)


def test_the_latency_of_a_measured_network_is_the_sum_of_its_blocks(table: LatencyTable) -> None:
    arch = _arch(32, 3, 5, 4, 64)
    costs = {block.shape: block.ms for block in table.blocks}
    assert table.of_arch(arch) == pytest.approx(sum(costs[shape] for shape in arch_shapes(arch)))


def test_a_measured_latency_has_priority_over_the_fit() -> None:
    arch = _arch()
    blocks = list(_table(arch, _arch(24), _arch(32)).blocks)
    index = next(i for i, b in enumerate(blocks) if b.shape == arch_shapes(arch)[2])
    slow = [*blocks]
    slow[index] = dataclasses.replace(blocks[index], ms=blocks[index].ms + 100)
    difference = LatencyTable(slow).of_arch(arch) - LatencyTable(blocks).of_arch(arch)
    assert difference == pytest.approx(100)


def test_shapes_between_measured_ones_follow_the_work(table: LatencyTable) -> None:
    arch = _arch(20, 2, 5, 3, 48)  # no block with these sizes was measured
    truth = sum(map(_true_ms, arch_shapes(arch)))
    assert table.of_arch(arch) == pytest.approx(truth, rel=0.1)


def test_latencies_of_arrays_equal_those_of_networks(table: LatencyTable) -> None:
    random = np.random.default_rng(1)
    c, n = random.choice([8, 12, 20, 32], 50), random.choice([2, 3], 50)
    k, e = random.choice([3, 5], 50), random.choice([2, 3, 4], 50)
    resolution = random.choice([32, 40, 64], 50)
    row = {"op": "mbconv", "k": k, "e": e, "c": c, "act": "hswish"}
    rows = [
        {"stage": 0, "op": "conv", "k": 3, "c": 8, "s": 2, "act": "relu"},
        {"stage": 1, **row, "s": 2, "se": "hsigmoid", "se_ratio": 0.25},
        {"stage": 1, **row, "n": n - 1},
        {"stage": 2, "op": "mbpool", "e": 2, "c": 64, "act": "hswish"},
    ]
    latencies = table.of_rows(rows, resolution, num_classes=10)
    archs = [_arch(*map(int, numbers)) for numbers in zip(c, n, k, e, resolution, strict=True)]
    assert latencies.tolist() == pytest.approx([table.of_arch(arch) for arch in archs])


def test_a_longer_network_is_never_faster(table: LatencyTable) -> None:
    for k in (3, 5):
        one, two, three = (table.of_arch(_arch(20, n, k, 3, 40)) for n in (1, 2, 3))
        assert one < two < three


def test_a_table_survives_saving_and_loading(table: LatencyTable, tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.json"
    table.save(path)
    loaded = LatencyTable.load(path)
    assert loaded.about == table.about
    assert [b.shape for b in loaded.blocks] == [b.shape for b in table.blocks]
    assert loaded.of_arch(_arch(20, 3)) == pytest.approx(table.of_arch(_arch(20, 3)), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 96}, "size: 96: outside"),
        ({"k": 7}, "no block of the kind mbconv k 7 s 2 hswish hsigmoid"),
        ({"c": 64}, "c_out: 64: outside"),
    ],
)
def test_shapes_outside_the_measured_range_are_refused(
    table: LatencyTable, change: dict[str, int], message: str
) -> None:
    with pytest.raises(ArchError) as error:
        table.of_arch(_arch(**change))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[]",
        "{}",
        json.dumps({"format": 99, "blocks": [], "about": {}}),
        json.dumps({"format": 1, "blocks": [{"op": "conv"}], "about": {}}),
    ],
)
def test_the_error_of_a_bad_file_is_one_line_with_the_command(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "table.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ArchError) as error:
        LatencyTable.load(path)
    text = str(error.value)
    assert "\n" not in text
    assert f"--latency-table {path} --config-file CONFIG" in text
