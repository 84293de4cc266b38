"""Latency tables: their arithmetic, with a clock that the tests set."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fbnetv3.arch import Arch, get_arch
from fbnetv3.arch.latency import LatencyTable
from fbnetv3.arch.latency_shapes import arch_shapes
from fbnetv3.benchmark import blocks, latency
from fbnetv3.benchmark.blocks import TimedNetwork
from fbnetv3.search.fbnet.space import FBNetSpace

CLASSES = 10


class _Slow(nn.Module):
    """Advances a clock by the next of ``seconds`` in each call."""

    def __init__(self, now: list[float], seconds: list[float]) -> None:
        super().__init__()
        self._now, self._seconds = now, iter(seconds)

    def forward(self, x: Tensor) -> Tensor:
        self._now[0] += next(self._seconds)
        return x


def _timed(now: list[float], *seconds: list[float], by_layer: bool) -> TimedNetwork:
    layers = [_Slow(now, layer_seconds) for layer_seconds in seconds]
    model = nn.Sequential(*layers, _Slow(now, [0.5] * 99))
    return TimedNetwork(get_arch("fbnetv3_a0"), model, list(layers) if by_layer else [])


def test_layer_times_are_those_of_the_fastest_call() -> None:
    now = [0.0]
    # every other call is timed by layer; the third of those is the fastest, not in its first layer
    first, second = [0.0, 5.0, 0.0, 2.0, 0.0, 3.0], [9.0, 5.0, 1.0, 6.0, 8.0, 1.0]
    network = _timed(now, first, second, by_layer=True)
    for _ in range(3):
        network.time_call(torch.zeros(1), lambda: now[0])
    assert network.milliseconds() == [1500.0, 3000.0, 1000.0]


def test_a_network_is_left_without_hooks() -> None:
    now = [0.0]
    network = _timed(now, [1.0] * 9, by_layer=True)
    network.time_call(torch.zeros(1), lambda: now[0])
    hooks = [m._forward_hooks or m._forward_pre_hooks for m in network.model.modules()]
    assert not any(hooks)


def test_short_networks_are_called_more_than_once_a_round() -> None:
    now = [0.0]
    network = TimedNetwork(get_arch("fbnetv3_a0"), _Slow(now, [0.02] * 9), [])
    network.time_round(torch.zeros(1), lambda: now[0])
    assert len(network.whole_times) == 3


def test_rounds_alternate_in_order_and_leave_out_the_first_call() -> None:
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
        networks.append(TimedNetwork(arch, model, []))
    blocks.time_rounds(networks, 3, lambda: now[0])
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert [len(network.whole_times) for network in networks] == [3, 3]


def test_time_outside_of_blocks_is_the_frame() -> None:
    arch = FBNetSpace.from_yaml("nano").arch(_smallest(), CLASSES)
    shapes = arch_shapes(arch)
    parts = [float(i) for i in range(1, len(shapes))]
    measured = latency.mean_blocks([(arch, [sum(parts) + 0.5, *parts])])
    costs = {block.shape: block.ms for block in measured}
    assert costs[shapes[0]] == pytest.approx(0.5)
    assert sum(costs.values()) == pytest.approx(sum(parts) + 0.5)
    assert LatencyTable(measured).of_arch(arch) == pytest.approx(sum(parts) + 0.5)


def test_a_shape_that_occurs_again_costs_the_mean() -> None:
    arch = FBNetSpace.from_yaml("nano").arch(_smallest(), CLASSES)
    count = len(arch_shapes(arch)) - 1
    measured = latency.mean_blocks([(arch, [9.0] + [1.0] * count), (arch, [19.0] + [2.0] * count)])
    assert [block.ms for block in measured[1:]] == [1.5] * count


def _smallest() -> dict:
    space = FBNetSpace.from_yaml("nano").space
    return space.configs(space.canonical((space.sizes * 0)[None]))[0]


def _table_of_corners(space: FBNetSpace) -> LatencyTable:
    archs = latency.corner_archs(space, CLASSES)
    return LatencyTable(latency.mean_blocks([(a, [1.0] * len(arch_shapes(a))) for a in archs]))


def test_no_candidate_lies_beyond_the_corners() -> None:
    space = FBNetSpace.from_yaml("nano")
    assert len(latency.corner_archs(space, CLASSES)) == 4
    table = _table_of_corners(space)
    for arch in latency.sample_archs(space, 200, CLASSES, seed=5):
        table.of_arch(arch)


@pytest.mark.parametrize(
    "keys",
    [
        {"k": 3, "e": 3},  # no variable depends on n
        {"k": 3, "e": {"first": {"range": [2, 4]}, "rest": 3}},
        {"k": {"choices": [3, 5]}, "e": 3},
        {"k": 3, "e": {"range": [2, 4]}},
    ],
)
@pytest.mark.parametrize("n", [{"range": [1, 3]}, {"choices": [1, 3]}, 2])
def test_the_corners_have_the_repeated_layers_of_every_row(keys: dict, n: object) -> None:
    row = {"stage": 1, "op": "mbconv", "c": {"range": [16, 64, 8]}, "n": n, "s": 2, **keys}
    rows = [
        {"stage": 0, "op": "conv", "k": 3, "c": 16, "s": 2},
        row,
        {"stage": 2, "op": "mbpool", "e": 6, "c": 128},
    ]
    space = FBNetSpace({"name": "x", "resolution": 32, "defaults": {"act": "relu"}, "rows": rows})
    table = _table_of_corners(space)
    for arch in latency.sample_archs(space, 100, CLASSES, seed=5):
        table.of_arch(arch)


def test_drawn_networks_are_distinct_and_the_same_again() -> None:
    space = FBNetSpace.from_yaml("nano")
    one, other = (latency.sample_archs(space, 20, CLASSES, seed=1) for _ in range(2))
    assert one == other
    assert len({arch.to_yaml() for arch in one}) == 20


def test_groups_fit_into_memory_and_lose_nothing() -> None:
    archs = [get_arch("fbnetv3_b")] * 40  # of 8.6M parameters
    groups = blocks._memory_groups(list(range(40)), archs)
    assert len(groups) == 3
    assert sorted(i for group in groups for i in group) == list(range(40))


def test_a_slowdown_between_groups_is_divided_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a machine that slows down from group to group, equal networks get equal times."""
    now, slowness = [0.0], [1.0]

    class Network(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            now[0] += slowness[0]
            return x

    def timed(arch: Arch, *, by_layer: bool) -> TimedNetwork:
        return TimedNetwork(arch, Network(), [])

    def groups(order: list[int], archs: list[Arch]) -> list[list[int]]:
        return [order[:4], order[4:7], order[7:]]

    def advance() -> None:
        slowness[0] *= 1.0 if len(done) in (0, 1, 2, 4, 5) else 3.0
        done.append(1)

    done: list[int] = []
    monkeypatch.setattr(blocks, "_memory_groups", groups)
    archs = [get_arch("fbnetv3_a0").replace(resolution=32)] * 6
    apart, whole = blocks.measure_networks(archs, archs[:4], 2, lambda: now[0], advance, timed)
    assert [row[0] for row in apart] == pytest.approx([3000.0] * 6)
    assert whole == pytest.approx([3000.0] * 4)


def test_predictions_are_compared_with_measurements() -> None:
    check = latency.compare_predictions([1.1, 1.8, 3.0], [1.0, 2.0, 3.0])
    assert check["mean_absolute_error"] == pytest.approx(0.2 / 3)
    assert check["rank_correlation"] == 1.0
