"""``fbnetv3-benchmark --latency-table``: its arithmetic by a clock of the test's, and one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fbnetv3.arch import Arch, get_arch
from fbnetv3.arch.latency import LatencyTable
from fbnetv3.arch.latency_shapes import arch_shapes
from fbnetv3.benchmark import blocks as benchmark_blocks
from fbnetv3.benchmark import latency as benchmark_latency
from fbnetv3.benchmark.blocks import Timed
from fbnetv3.cli import benchmark, run_main
from fbnetv3.search.fbnet.space import FBNetSpace

CLASSES = 10


class _Slow(nn.Module):
    """Takes so many seconds of a clock, one number a call."""

    def __init__(self, now: list[float], seconds: list[float]) -> None:
        super().__init__()
        self._now, self._seconds = now, iter(seconds)

    def forward(self, x: Tensor) -> Tensor:
        self._now[0] += next(self._seconds)
        return x


def _timed(now: list[float], *seconds: list[float], apart: bool) -> Timed:
    parts = [_Slow(now, each) for each in seconds]
    model = nn.Sequential(*parts, _Slow(now, [0.5] * 99))
    return Timed(get_arch("fbnetv3_a0"), model, list(parts) if apart else [])


def test_parts_are_those_of_the_fastest_call() -> None:
    now = [0.0]
    # every other call is timed by parts; the third of those is the fastest, not in its first part
    first, second = [0.0, 5.0, 0.0, 2.0, 0.0, 3.0], [9.0, 5.0, 1.0, 6.0, 8.0, 1.0]
    network = _timed(now, first, second, apart=True)
    for _ in range(3):
        network.call(torch.zeros(1), lambda: now[0])
    assert network.milliseconds() == [1500.0, 3000.0, 1000.0]


def test_a_network_is_left_without_hooks() -> None:
    now = [0.0]
    network = _timed(now, [1.0] * 9, apart=True)
    network.call(torch.zeros(1), lambda: now[0])
    hooks = [m._forward_hooks or m._forward_pre_hooks for m in network.model.modules()]
    assert not any(hooks)


def test_short_networks_are_called_more_than_once_a_round() -> None:
    now = [0.0]
    network = Timed(get_arch("fbnetv3_a0"), _Slow(now, [0.02] * 9), [])
    network.round(torch.zeros(1), lambda: now[0])
    assert len(network.whole) == 3


def test_rounds_go_there_and_back_and_forget_the_first_call() -> None:
    now, order = [0.0], []

    class Noting(_Slow):
        def forward(self, x: Tensor) -> Tensor:
            order.append(self.name)
            return super().forward(x)

    arch = get_arch("fbnetv3_a0").replace(resolution=32)
    networks = []
    for name in "ab":
        model = Noting(now, [1.0] * 9)
        model.name = name
        networks.append(Timed(arch, model, []))
    benchmark_blocks.run_rounds(networks, 3, lambda: now[0])
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert [len(network.whole) for network in networks] == [3, 3]


def test_what_is_between_blocks_is_the_frame() -> None:
    arch = FBNetSpace.from_yaml("nano").arch(_smallest(), CLASSES)
    shapes = arch_shapes(arch)
    parts = [float(i) for i in range(1, len(shapes))]
    found = benchmark_latency.blocks_of([(arch, [sum(parts) + 0.5, *parts])])
    costs = {block.shape: block.ms for block in found}
    assert costs[shapes[0]] == pytest.approx(0.5)
    assert sum(costs.values()) == pytest.approx(sum(parts) + 0.5)
    assert LatencyTable(found).of_arch(arch) == pytest.approx(sum(parts) + 0.5)


def test_a_shape_that_occurs_again_costs_the_mean() -> None:
    arch = FBNetSpace.from_yaml("nano").arch(_smallest(), CLASSES)
    count = len(arch_shapes(arch)) - 1
    found = benchmark_latency.blocks_of(
        [(arch, [9.0] + [1.0] * count), (arch, [19.0] + [2.0] * count)]
    )
    assert [block.ms for block in found[1:]] == [1.5] * count


def _smallest() -> dict:
    space = FBNetSpace.from_yaml("nano").space
    return space.configs(space.canonical((space.sizes * 0)[None]))[0]


def test_no_candidate_lies_beyond_the_corners() -> None:
    space = FBNetSpace.from_yaml("nano")
    corners = benchmark_latency.corners(space, CLASSES)
    assert len(corners) == 4
    parts = [(arch, [1.0] * len(arch_shapes(arch))) for arch in corners]
    table = LatencyTable(benchmark_latency.blocks_of(parts))
    for arch in benchmark_latency.draw(space, 200, CLASSES, seed=5):
        table.of_arch(arch)


def test_drawn_networks_are_distinct_and_the_same_again() -> None:
    space = FBNetSpace.from_yaml("nano")
    one, other = (benchmark_latency.draw(space, 20, CLASSES, seed=1) for _ in range(2))
    assert one == other
    assert len({arch.to_yaml() for arch in one}) == 20


def test_groups_fit_into_memory_and_lose_nothing() -> None:
    archs = [get_arch("fbnetv3_b")] * 40  # of 8.6M parameters
    groups = benchmark_blocks._groups(list(range(40)), archs)
    assert len(groups) == 3
    assert sorted(i for group in groups for i in group) == list(range(40))


def test_what_changes_between_groups_is_divided_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that gets slower from group to group all networks cost the same."""
    now, slowness = [0.0], [1.0]

    class Network(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            now[0] += slowness[0]
            return x

    def timed(arch: Arch, *, apart: bool) -> Timed:
        return Timed(arch, Network(), [])

    def groups(order: list[int], archs: list[Arch]) -> list[list[int]]:
        return [order[:4], order[4:7], order[7:]]

    def advance() -> None:
        slowness[0] *= 1.0 if len(done) in (0, 1, 2, 4, 5) else 3.0
        done.append(1)

    done: list[int] = []
    monkeypatch.setattr(benchmark_blocks, "timed", timed)
    monkeypatch.setattr(benchmark_blocks, "_groups", groups)
    archs = [get_arch("fbnetv3_a0").replace(resolution=32)] * 6
    apart, whole = benchmark_blocks.measure(archs, archs[:4], 2, lambda: now[0], advance)
    assert [row[0] for row in apart] == pytest.approx([3000.0] * 6)
    assert whole == pytest.approx([3000.0] * 4)


def test_the_check_compares_what_it_says() -> None:
    found = benchmark_latency.compared([1.1, 1.8, 3.0], [1.0, 2.0, 3.0])
    assert found["mean_absolute_error"] == pytest.approx(0.2 / 3)
    assert found["rank_correlation"] == 1.0


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A config of a search whose space has a handful of small networks."""
    space = tmp_path / "space.yaml"
    space.write_text(
        "name: tiny\nresolution: 16\ndefaults: {act: hswish}\nrows:\n"
        "  - {stage: 0, op: conv, k: 3, c: {range: [8, 16, 4]}, s: 2}\n"
        "  - {stage: 1, op: mbconv, k: {choices: [3, 5]}, e: 2, c: 16, n: {range: [1, 2]}, s: 2}\n"
        "  - {stage: 2, op: mbpool, e: 2, c: 32}\n"
    )
    config = tmp_path / "tiny.yaml"
    config.write_text(f"MODEL:\n  NUM_CLASSES: 4\nSEARCH:\n  SPACE: {space}\n")
    return config


def _arguments(config: Path, table: Path) -> list[str]:
    numbers = ["--networks", "3", "--check", "3", "--rounds", "1", "--seed", "7"]
    return ["--latency-table", str(table), "--config-file", str(config), *numbers]


def test_a_run(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("detectron2")
    path = tmp_path / "made" / "table.json"
    assert benchmark.main(_arguments(tiny, path)) == 0
    shown = capsys.readouterr().out
    about = json.loads(path.read_text())["about"]
    check = about["check"]
    assert (about["torch"], about["threads"], about["batch"]) == (torch.__version__, 1, 1)
    assert len(check["measured_ms"]) == len(check["predicted_ms"]) == 3
    assert min(check["measured_ms"]) > 0
    assert f"mean absolute error {check['mean_absolute_error']:.1%}" in shown
    assert f"rank correlation {check['rank_correlation']:.3f}" in shown
    assert f"SEARCH.LATENCY_TABLE {path}" in shown
    space, classes = benchmark_latency.read_space(str(tiny))
    again = [LatencyTable.load(path).of_arch(a) for a in _checks(space, classes)]
    assert again == pytest.approx(check["predicted_ms"], rel=1e-2)


def _checks(space: FBNetSpace, classes: int) -> list[Arch]:
    return benchmark_latency.draw(space, 6, classes, seed=7)[:3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--latency-table", "x.json"], "go together"),
        (["--config-file", "model_zoo/search/digits.yaml"], "go together"),
        (
            ["--latency-table", "x", "--config-file", "search/autotrain.yaml"],
            "one architecture only",
        ),
        (["--latency-table", "x", "--config-file", "no_such.yaml"], "no_such.yaml"),
    ],
)
def test_refusals_are_one_line(
    change: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("detectron2")
    assert run_main(benchmark.main, change) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]
