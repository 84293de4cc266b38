"""Measurements that ``fbnetv3-benchmark`` was asked for, as rows of its table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.progress import Progress

from fbnetv3.arch import get_arch
from fbnetv3.arch.library_names import RESOLUTION, is_library_name
from fbnetv3.benchmark import measures as measures
from fbnetv3.benchmark import variants as variants
from fbnetv3.benchmark.variants import Shape, Step
from fbnetv3.requires import require_detectron2


@dataclass(frozen=True)
class Row:
    """One number: ``value`` in ms or MiB, ``ratio`` of the reference's value to it."""

    model: str
    measure: str
    batch: int | None
    resolution: int
    variant: str
    value: float
    unit: str
    ratio: float
    rounds: list[float]


def run(arguments: argparse.Namespace, progress: Progress) -> list[Row]:
    """Measures what the command line asks for; returns the rows, each group's reference first."""
    sizes = {name: arguments.resolution or _resolution(name) for name in arguments.models}
    with variants.torch_threads(arguments.threads):
        benches = [_Bench(name, size, arguments, progress) for name, size in sizes.items()]
        return [row for bench in benches for row in bench.rows()]


def _resolution(name: str) -> int:
    return RESOLUTION if is_library_name(name) else get_arch(name).resolution


@dataclass(frozen=True)
class _Bench:
    """The measurements of one network."""

    name: str
    resolution: int
    arguments: argparse.Namespace
    progress: Progress

    def rows(self) -> Iterator[Row]:
        """Yields the rows of the measures that were asked for, in that order."""
        for measure in self.arguments.measures:
            yield from getattr(self, measure)()

    def latency(self) -> Iterator[Row]:
        for batch in self.arguments.batch_sizes:
            shape = Shape(batch, self.resolution)
            steps: dict[str, Step] = {}
            for variant in self._inference_variants():
                step = variants.inference(self.name, variant, shape)
                runtime = f" ({step.runtime})" if variant == variants.COMPILED else ""
                steps[variant + runtime] = step
            yield from self._timed("latency", shape, steps)

    def training(self) -> Iterator[Row]:
        names = variants.training_variants(self.name)
        steps = {v: variants.training_step(self.name, v, self._training_shape()) for v in names}
        yield from self._timed("training step", self._training_shape(), steps)

    def ema(self) -> Iterator[Row]:
        names = variants.ema_variants(self.name)
        steps = {v: variants.ema_update(self.name, v) for v in names}
        yield from self._timed("EMA update", Shape(0, self.resolution), steps)

    def loop(self) -> Iterator[Row]:
        require_detectron2()
        from fbnetv3.benchmark.loop import loop_steps

        shape = self._training_shape()
        with loop_steps(self.name, shape) as steps:
            yield from self._timed("step of the loop", shape, steps)

    def memory(self) -> Iterator[Row]:
        largest = Shape(max(self.arguments.batch_sizes), self.resolution)
        yield from self._peaks("inference", largest, self._inference_variants())
        names = variants.training_variants(self.name)
        yield from self._peaks("training", self._training_shape(), names)

    def _training_shape(self) -> Shape:
        return Shape(self.arguments.train_batch, self.resolution)

    def _inference_variants(self) -> list[str]:
        return variants.inference_variants(self.name, self.arguments.compile)

    def _timed(self, measure: str, shape: Shape, steps: Mapping[str, Step]) -> Iterator[Row]:
        rounds = self.arguments.rounds
        task = self.progress.add_task(f"{self.name} {measure} {shape.batch or ''}", total=rounds)
        times = measures.alternate(steps, rounds, lambda: self.progress.advance(task))
        self.progress.remove_task(task)
        yield from with_ratios(self.name, measure, shape, "ms", times)

    def _peaks(self, kind: str, shape: Shape, names: Sequence[str]) -> Iterator[Row]:
        found: dict[str, list[float]] = {}
        threads = self.arguments.threads
        for variant in self.progress.track(names, description=f"{self.name} {kind} memory"):
            found[variant] = [measures.peak_memory(kind, self.name, variant, shape, threads)]
        yield from with_ratios(self.name, f"{kind} memory", shape, "MiB", found)


def with_ratios(
    name: str, measure: str, shape: Shape, unit: str, found: Mapping[str, list[float]]
) -> Iterator[Row]:
    """Yields a row a variant; the first variant is the reference of the ratios."""
    scale = 1e3 if unit == "ms" else 1.0
    values = measures.medians(found)
    reference = next(iter(values.values()))
    for variant, value in values.items():
        yield Row(
            name,
            measure,
            shape.batch or None,
            shape.resolution,
            variant,
            value * scale,
            unit,
            reference / max(value, 1e-12),
            [v * scale for v in found[variant]],
        )
