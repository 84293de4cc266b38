"""Latency of networks, as a whole and layer by layer, in alternating calls.

Networks that do not fit into memory together are timed in groups. Reference networks are part of
every group: if they are slower in one group than in the median of the groups, the machine was
slower then, and all times of that group are divided by the slowdown.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fbnetv3.arch import Arch, count_cost
from fbnetv3.modeling import build_model, deploy

Clock = Callable[[], float]
# Parameters of the networks of a group, which are in memory together and timed in turn. The speed
# of the machine changes from group to group, so that groups should be few and large.
_GROUP_PARAMS = 150e6
# Number of reference networks: the last ones of a list, since callers list extreme networks first
_REFERENCES = 3
_ROUND_SECONDS = 0.05  # faster networks are called several times in a round
_FASTEST_SHARE = 0.1  # the result is the mean over this share of the calls, the fastest ones


@dataclass
class TimedNetwork:
    """A network and the times of its calls.

    Attributes:
        arch: Architecture of the network.
        model: The network as it is timed: deployed, or a detector in evaluation mode.
        layers: Modules that are timed separately, in order of execution: blocks, convs of a
            detector's neck, the head; may be empty.
        size: Height and width of the images in pixels; None: both are the network's resolution.
        whole_times: Seconds of each call without timing of layers.
        layer_times: Seconds of each call in which layers were timed: the total, then each layer.
    """

    arch: Arch
    model: nn.Module
    layers: list[nn.Module]
    size: tuple[int, int] | None = None
    whole_times: list[float] = field(default_factory=list)
    layer_times: list[list[float]] = field(default_factory=list)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.size or (self.arch.resolution, self.arch.resolution)

    def time_round(self, images: Tensor, clock: Clock) -> None:
        """Times one call or more, until the round has lasted ``_ROUND_SECONDS``."""
        start = clock()
        self.time_call(images, clock)
        while clock() - start < _ROUND_SECONDS:
            self.time_call(images, clock)

    def time_call(self, images: Tensor, clock: Clock) -> None:
        """Times one call as a whole and, if there are layers, another one layer by layer."""
        self.whole_times.append(self._seconds(images, clock))
        if not self.layers:
            return
        marks: list[list[float]] = [[] for _ in self.layers]
        with contextlib.ExitStack() as hooks:
            for layer, layer_marks in zip(self.layers, marks, strict=True):
                hook = _ClockHook(layer_marks, clock)
                hooks.enter_context(layer.register_forward_pre_hook(hook))
                hooks.enter_context(layer.register_forward_hook(hook))
            total = self._seconds(images, clock)
        self.layer_times.append([total, *(end - begin for begin, end in marks)])

    def reset(self) -> None:
        """Discards the times measured so far."""
        self.whole_times.clear()
        self.layer_times.clear()

    def _seconds(self, images: Tensor, clock: Clock) -> float:
        with torch.inference_mode():
            start = clock()
            self.model(images)
            return clock() - start

    def milliseconds(self) -> list[float]:
        """Returns the mean time of the fastest calls: of the network, then of each layer.

        The times of layers are means over the calls with the smallest totals. They exclude the time
        of the hooks, which run between layers.
        """
        seconds = [float(np.mean(_fastest(self.whole_times)))]
        if self.layers:
            seconds += np.mean(_fastest(self.layer_times), axis=0).tolist()[1:]
        return [1e3 * value for value in seconds]


class _ClockHook:
    """A module hook that appends the clock's time to a list."""

    def __init__(self, marks: list[float], clock: Clock) -> None:
        self._marks, self._clock = marks, clock

    def __call__(self, *_: Any) -> None:
        self._marks.append(self._clock())


def _fastest(calls: list[Any]) -> list[Any]:
    return sorted(calls)[: math.ceil(_FASTEST_SHARE * len(calls))]


def build_timed_network(arch: Arch, *, by_layer: bool) -> TimedNetwork:
    """Builds a deployed network with random weights.

    Args:
        arch: Architecture of the network.
        by_layer: Whether to time each layer and the head separately, too.
    """
    torch.manual_seed(0)
    model: Any = deploy(build_model(arch, arch.num_classes))
    layers = [layer for stage in model.model.backbone.stages for layer in stage]
    return TimedNetwork(arch, model, [*layers, model.model.head] if by_layer else [])


def time_rounds(networks: Sequence[TimedNetwork], rounds: int, clock: Clock) -> None:
    """Times networks in turn; the order is reversed after each round.

    Args:
        networks: Networks to time; each stores its own times.
        rounds: Number of rounds, each of which times every network.
        clock: Function that returns seconds.
    """
    images = {size: torch.randn(1, 3, *size) for size in {n.image_size for n in networks}}
    order = list(networks)
    for network in order:
        network.time_call(images[network.image_size], clock)
        network.reset()  # the first call is slower, since it allocates memory
    for _ in range(rounds):
        for network in order:
            network.time_round(images[network.image_size], clock)
        order.reverse()


def measure_networks(
    archs: Sequence[Any],
    validation_archs: Sequence[Any],
    rounds: int,
    clock: Clock,
    on_network_done: Callable[[], None],
    build: Callable[..., TimedNetwork],
) -> tuple[list[list[float]], list[float]]:
    """Measures the latency of networks, with images of batch size 1.

    Args:
        archs: Architectures whose layers are measured too.
        validation_archs: Architectures that are measured as a whole only.
        rounds: Number of rounds.
        clock: Function that returns seconds.
        on_network_done: Function that is called once for each network, after its group is timed.
        build: :func:`build_timed_network`, or ``build_timed_detector`` for ``DetectorDesign``s.

    Returns:
        Milliseconds of each of ``archs`` (the network, then each module of its ``layers``), and
        milliseconds of each of ``validation_archs``.
    """
    jobs = [(arch, True) for arch in archs] + [(arch, False) for arch in validation_archs]
    order = np.random.default_rng(0).permutation(len(jobs)).tolist()
    references = [build(arch, by_layer=False) for arch in archs[-_REFERENCES:]]
    groups = _memory_groups(order, [getattr(design, "arch", design) for design, _ in jobs])
    times: dict[int, list[float]] = {}
    reference_ms: list[float] = []
    for group in groups:
        networks = [build(jobs[i][0], by_layer=jobs[i][1]) for i in group]
        time_rounds([*references, *networks], rounds, clock)
        reference_ms.append(_geometric_mean(network.milliseconds()[0] for network in references))
        for i, network in zip(group, networks, strict=True):
            times[i] = network.milliseconds()
            on_network_done()
    for group, group_ms in zip(groups, reference_ms, strict=True):
        for i in group:
            times[i] = [ms * float(np.median(reference_ms)) / group_ms for ms in times[i]]
    rows = [times[i] for i in range(len(jobs))]
    return rows[: len(archs)], [row[0] for row in rows[len(archs) :]]


def _geometric_mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.prod(numbers) ** (1 / len(numbers))


def _memory_groups(order: Sequence[int], archs: Sequence[Arch]) -> list[list[int]]:
    """Splits indices of ``archs`` into groups, whose networks are in memory together.

    On average, a group has at most ``_GROUP_PARAMS`` parameters.
    """
    params = sum(int(count_cost(arch).params) for arch in archs)
    count = min(len(order), math.ceil(params / _GROUP_PARAMS))
    return [list(order[i::count]) for i in range(count)]
