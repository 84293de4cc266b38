"""Latency of networks, as a whole and block by block, in alternating calls.

Networks that do not fit into memory together are timed in groups. Reference networks are part of
every group: if they are slower in one group, the machine was slower then, and all times of that
group are divided by the slowdown.
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
# Parameters in memory at a time. Larger groups mean less drift of the machine between networks.
_GROUP_PARAMS = 150e6
_REFERENCES = 3  # networks that are part of every group
_ROUND_SECONDS = 0.05  # faster networks are called several times in a round
_FASTEST = 0.1  # the result is the mean over this share of the calls, the fastest ones


@dataclass
class TimedNetwork:
    """A deployed network and the times of its calls.

    Attributes:
        arch: Architecture of the network.
        model: The deployed network.
        parts: Modules that are timed separately, in order of execution; may be empty.
        size: Height and width of the images in pixels; None: a square of the network's resolution.
        whole_times: Seconds of each call without timing of parts.
        part_times: Seconds of each call in which parts were timed: the total, then each part.
    """

    arch: Arch
    model: nn.Module
    parts: list[nn.Module]
    size: tuple[int, int] | None = None
    whole_times: list[float] = field(default_factory=list)
    part_times: list[list[float]] = field(default_factory=list)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.size or (self.arch.resolution, self.arch.resolution)

    def time_round(self, images: Tensor, clock: Clock) -> None:
        """Times at least one call, and further ones until the round has lasted 0.05 s."""
        start = clock()
        self.time_call(images, clock)
        while clock() - start < _ROUND_SECONDS:
            self.time_call(images, clock)

    def time_call(self, images: Tensor, clock: Clock) -> None:
        """Times one call as a whole and, if there are parts, another one part by part."""
        self.whole_times.append(self._seconds(images, clock))
        if not self.parts:
            return
        marks: list[list[float]] = [[] for _ in self.parts]
        with contextlib.ExitStack() as hooks:
            for part, part_marks in zip(self.parts, marks, strict=True):
                hook = _ClockHook(part_marks, clock)
                hooks.enter_context(part.register_forward_pre_hook(hook))
                hooks.enter_context(part.register_forward_hook(hook))
            total = self._seconds(images, clock)
        self.part_times.append([total, *(end - begin for begin, end in marks)])

    def reset(self) -> None:
        """Discards the times measured so far."""
        self.whole_times.clear()
        self.part_times.clear()

    def _seconds(self, images: Tensor, clock: Clock) -> float:
        with torch.inference_mode():
            start = clock()
            self.model(images)
            return clock() - start

    def milliseconds(self) -> list[float]:
        """Returns the mean time of the fastest calls: of the network, then of each part.

        The times of parts are means over the calls with the smallest totals. They exclude the time
        of the hooks, which run between parts.
        """
        seconds = [float(np.mean(_fastest(self.whole_times)))]
        if self.parts:
            seconds += np.mean(_fastest(self.part_times), axis=0).tolist()[1:]
        return [1e3 * value for value in seconds]


class _ClockHook:
    """A module hook that appends the clock's time to a list."""

    def __init__(self, marks: list[float], clock: Clock) -> None:
        self._marks, self._clock = marks, clock

    def __call__(self, *_: Any) -> None:
        self._marks.append(self._clock())


def _fastest(calls: list[Any]) -> list[Any]:
    return sorted(calls)[: math.ceil(_FASTEST * len(calls))]


def build_timed_network(arch: Arch, *, by_part: bool) -> TimedNetwork:
    """Builds a deployed network with random weights.

    Args:
        arch: Architecture of the network.
        by_part: Whether to time each block and the head separately, too.
    """
    torch.manual_seed(0)
    model: Any = deploy(build_model(arch, arch.num_classes))
    blocks = [block for stage in model.model.backbone.stages for block in stage]
    return TimedNetwork(arch, model, [*blocks, model.model.head] if by_part else [])


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
    checks: Sequence[Any],
    rounds: int,
    clock: Clock,
    advance: Callable[[], None],
    build: Callable[..., TimedNetwork],
) -> tuple[list[list[float]], list[float]]:
    """Measures the latency of networks, with images of batch size 1.

    Args:
        archs: Architectures whose blocks are measured too.
        checks: Architectures that are measured as a whole only.
        rounds: Number of rounds.
        clock: Function that returns seconds.
        advance: Function that is called after each network.
        build: :func:`build_timed_network`, or the like for designs with an attribute ``arch``.

    Returns:
        Milliseconds of each of ``archs`` (the network, then each of its layers and its head), and
        milliseconds of each of ``checks``.
    """
    tasks = [(arch, True) for arch in archs] + [(arch, False) for arch in checks]
    order = np.random.default_rng(0).permutation(len(tasks)).tolist()
    references = [build(arch, by_part=False) for arch in archs[-_REFERENCES:]]
    groups = _memory_groups(order, [getattr(design, "arch", design) for design, _ in tasks])
    times: dict[int, list[float]] = {}
    speeds: list[float] = []
    for group in groups:
        networks = [build(tasks[i][0], by_part=tasks[i][1]) for i in group]
        time_rounds([*references, *networks], rounds, clock)
        speeds.append(_geometric_mean(network.milliseconds()[0] for network in references))
        for i, network in zip(group, networks, strict=True):
            times[i] = network.milliseconds()
            advance()
    for group, speed in zip(groups, speeds, strict=True):
        for i in group:
            times[i] = [ms * float(np.median(speeds)) / speed for ms in times[i]]
    rows = [times[i] for i in range(len(tasks))]
    return rows[: len(archs)], [row[0] for row in rows[len(archs) :]]


def _geometric_mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.prod(numbers) ** (1 / len(numbers))


def _memory_groups(order: Sequence[int], archs: Sequence[Arch]) -> list[list[int]]:
    """Splits a sequence of indices of ``archs`` into groups whose networks fit into memory."""
    params = sum(int(count_cost(arch).params) for arch in archs)
    count = min(len(order), math.ceil(params / _GROUP_PARAMS))
    return [list(order[i::count]) for i in range(count)]
