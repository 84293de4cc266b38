"""How long networks take, as a whole and block by block: alternating calls, drift divided out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fbnetv3.arch import Arch, count_cost
from fbnetv3.modeling import build_model, deploy

Clock = Callable[[], float]
_TOGETHER = 150e6  # parameters in memory at a time: the more, the less drift between networks
_REFERENCES = 3  # networks in every group
_ROUND_SECONDS = 0.05  # shorter networks are called more than once a round
_BEST = 0.1  # share of the calls, the fastest ones, whose mean counts


@dataclass
class Timed:
    """A network in its deployed form, and how long its calls took.

    Attributes:
        arch: of the network.
        model: the deployed network.
        parts: modules that are timed apart, in order; may be none.
        whole: seconds of each call as a user makes it.
        apart: seconds of each call in which parts were timed: all, then of each part.
    """

    arch: Arch
    model: nn.Module
    parts: list[nn.Module]
    whole: list[float] = field(default_factory=list)
    apart: list[list[float]] = field(default_factory=list)

    def round(self, images: Tensor, clock: Clock) -> None:
        """Times calls, for a while."""
        start = clock()
        self.call(images, clock)
        while clock() - start < _ROUND_SECONDS:
            self.call(images, clock)

    def call(self, images: Tensor, clock: Clock) -> None:
        """Times a call as a whole and, if there are parts, one more by parts."""
        self.whole.append(self._seconds(images, clock))
        if not self.parts:
            return
        times: list[list[float]] = [[] for _ in self.parts]
        with contextlib.ExitStack() as hooks:
            for part, own in zip(self.parts, times, strict=True):
                note = _Note(own, clock)
                hooks.enter_context(part.register_forward_pre_hook(note))
                hooks.enter_context(part.register_forward_hook(note))
            total = self._seconds(images, clock)
        self.apart.append([total, *(end - begin for begin, end in times)])

    def forget(self) -> None:
        """Drops the calls so far."""
        self.whole.clear()
        self.apart.clear()

    def _seconds(self, images: Tensor, clock: Clock) -> float:
        with torch.inference_mode():
            start = clock()
            self.model(images)
            return clock() - start

    def milliseconds(self) -> list[float]:
        """Returns the means of the fastest calls: as a whole, then of each part.

        Those of parts are from the calls whose total is smallest. What noting the times costs is
        between parts, so in neither number.
        """
        found = [float(np.mean(_fastest(self.whole)))]
        if self.parts:
            found += np.mean(_fastest(self.apart), axis=0).tolist()[1:]
        return [1e3 * seconds for seconds in found]


class _Note:
    """A hook that notes the time."""

    def __init__(self, times: list[float], clock: Clock) -> None:
        self._times, self._clock = times, clock

    def __call__(self, *_: Any) -> None:
        self._times.append(self._clock())


def _fastest(calls: list[Any]) -> list[Any]:
    return sorted(calls)[: math.ceil(_BEST * len(calls))]


def timed(arch: Arch, *, apart: bool) -> Timed:
    """Builds a network with random weights; ``apart``: for the time of each block."""
    torch.manual_seed(0)
    model: Any = deploy(build_model(arch, arch.num_classes))
    parts = [block for stage in model.model.backbone.stages for block in stage]
    return Timed(arch, model, [*parts, model.model.head] if apart else [])


def run_rounds(networks: Sequence[Timed], rounds: int, clock: Clock) -> None:
    """Times networks in turn, once a round; the order turns around after each."""
    images = {
        n.arch.resolution: torch.randn(1, 3, n.arch.resolution, n.arch.resolution) for n in networks
    }
    order = list(networks)
    for network in order:
        network.call(images[network.arch.resolution], clock)
        network.forget()  # the first call allocates
    for _ in range(rounds):
        for network in order:
            network.round(images[network.arch.resolution], clock)
        order.reverse()


def measure(
    archs: Sequence[Arch],
    checks: Sequence[Arch],
    rounds: int,
    clock: Clock,
    advance: Callable[[], None],
) -> tuple[list[list[float]], list[float]]:
    """Times architectures by block, and others as a whole, in turn.

    Those that do not fit into memory together are timed in groups. Some networks are in every
    group: what has changed on the machine between groups shows in them and is divided out.

    Returns:
        Milliseconds of each of ``archs`` (see Timed) and of each of ``checks``.
    """
    todo = [(arch, i < len(archs)) for i, arch in enumerate([*archs, *checks])]
    order = np.random.default_rng(0).permutation(len(todo)).tolist()
    references = [timed(arch, apart=False) for arch in archs[-_REFERENCES:]]
    found: dict[int, list[float]] = {}
    speeds: list[float] = []
    groups = _groups(order, [arch for arch, _ in todo])
    for group in groups:
        networks = [timed(todo[i][0], apart=todo[i][1]) for i in group]
        run_rounds([*references, *networks], rounds, clock)
        speeds.append(math.prod(r.milliseconds()[0] for r in references) ** (1 / len(references)))
        for i, network in zip(group, networks, strict=True):
            found[i] = network.milliseconds()
            advance()
    for group, speed in zip(groups, speeds, strict=True):
        for i in group:
            found[i] = [ms * float(np.median(speeds)) / speed for ms in found[i]]
    rows = [found[i] for i in range(len(todo))]
    return rows[: len(archs)], [row[0] for row in rows[len(archs) :]]


def _groups(order: Sequence[int], archs: Sequence[Arch]) -> list[list[int]]:
    """Returns equal parts of an order, each of networks that fit into memory together."""
    params = sum(int(count_cost(arch).params) for arch in archs)
    count = min(len(order), math.ceil(params / _TOGETHER))
    return [list(order[i::count]) for i in range(count)]
