"""Variants of networks side by side: latency, training step, memory, EMA, loop, input data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.progress import Progress

from fbnetv3.benchmark import measures, variants
from fbnetv3.benchmark.inputs import input_steps
from fbnetv3.benchmark.variants import Shape, Step
from fbnetv3.requires import require_detectron2

IMAGES_PER_SECOND = "images/s"


@dataclass(frozen=True)
class Settings:
    """Settings of a comparison.

    Attributes:
        measures: Names of measures, in the order of the results: ``latency``, ``training``,
            ``memory``, ``ema``, ``loop`` (which needs detectron2), and ``data``.
        resolution: Side of the images in pixels; None uses each network's own.
        batch_sizes: Batch sizes whose latency is measured. The memory of inference is measured
            with the largest.
        train_batch: Number of images of a training step.
        rounds: Number of rounds whose median is the result. Memory is measured once.
        threads: Number of threads that torch uses.
        compile: Whether to measure the compiled deployed form too.
        data: Name or path of the data set of the measure ``data``.
        image_size: Width and height in pixels of the JPEG files made from this data set.
    """

    measures: Sequence[str] = ("latency", "training", "memory", "ema")
    resolution: int | None = None
    batch_sizes: Sequence[int] = (1, 16)
    train_batch: int = 16
    rounds: int = 10
    threads: int = 1
    compile: bool = False
    data: str = "imagenette_train"
    image_size: tuple[int, int] = (500, 375)


@dataclass(frozen=True)
class Measurement:
    """The result for one variant of a network.

    Attributes:
        model: Name of the network, or of the data set for ``training data``.
        measure: ``latency``, ``training step``, ``EMA update``, ``step of the loop``,
            ``inference memory``, ``training memory`` or ``training data``.
        batch: Number of images; None for an EMA update.
        resolution: Side of the images in pixels.
        variant: The form of the network, loop or loader that was measured, such as ``deploy``.
        value: Median over the rounds, in ``unit``. Memory has one round.
        unit: ``ms``, ``MiB`` or ``images/s``.
        ratio: Improvement over the group's first variant as a factor: above 1 is faster or smaller.
        rounds: Value of each round, in ``unit``.
    """

    model: str
    measure: str
    batch: int | None
    resolution: int
    variant: str
    value: float
    unit: str
    ratio: float
    rounds: list[float]


def compare(
    models: Sequence[str], settings: Settings | None = None, progress: Progress | None = None
) -> list[Measurement]:
    """Measures variants of networks in alternating rounds on this machine.

    Args:
        models: Names of networks, such as ``fbnetv3_b`` or ``torchvision/resnet18``, or paths of
            weights files or run folders.
        settings: Measures and their sizes; None uses the defaults.
        progress: Progress display that the measurements are added to.

    Returns:
        One measurement for each variant, grouped by model, measure and batch size. The first of a
        group is the reference of the ratios: the bare loop for ``loop``, torchvision for ``data``,
        and otherwise timm's network, or this project's if timm does not have it.

    Raises:
        FBNetError: A network is unknown, or a measurement cannot be made.
    """
    settings = settings or Settings()
    benches = [_Bench(model, settings, progress) for model in models]
    with variants.torch_threads(settings.threads):
        return [
            measurement
            for bench in benches
            for measure in settings.measures
            for measurement in _MEASURES[measure](bench)
        ]


class _Bench:
    """One network, with the sizes of its measurements."""

    def __init__(self, model: str, settings: Settings, progress: Progress | None) -> None:
        variants.check_name(model)
        self.model = model
        self.settings = settings
        self.progress = progress or Progress(disable=True)
        resolution = settings.resolution
        self.resolution = variants.native_resolution(model) if resolution is None else resolution

    @property
    def training_shape(self) -> Shape:
        """The images of a training step."""
        return Shape(self.settings.train_batch, self.resolution)

    @property
    def inference_variants(self) -> list[str]:
        """The variants whose latency and memory are compared."""
        return variants.inference_variants(self.model, self.settings.compile)

    @property
    def training_variants(self) -> list[str]:
        """The variants whose training steps are compared."""
        return variants.training_variants(self.model)

    def time(self, measure: str, shape: Shape, steps: Mapping[str, Step]) -> Iterator[Measurement]:
        """Times steps in alternating rounds."""
        rounds = self.settings.rounds
        task = self.progress.add_task(f"{self.model} {measure} {shape.batch or ''}", total=rounds)
        times = measures.alternate(steps, rounds, lambda: self.progress.advance(task))
        self.progress.remove_task(task)
        return with_ratios(self.model, measure, shape, "ms", times)

    def peak_memory(self, kind: str, shape: Shape, names: Sequence[str]) -> Iterator[Measurement]:
        """Measures the memory of variants, each in a separate process."""
        threads = self.settings.threads
        peaks = {
            name: [measures.peak_memory(kind, self.model, name, shape, threads)]
            for name in self.progress.track(names, description=f"{self.model} {kind} memory")
        }
        return with_ratios(self.model, f"{kind} memory", shape, "MiB", peaks)


def _latency(bench: _Bench) -> Iterator[Measurement]:
    for batch in bench.settings.batch_sizes:
        shape = Shape(batch, bench.resolution)
        steps: dict[str, Step] = {}
        for variant in bench.inference_variants:
            step = variants.inference(bench.model, variant, shape)
            runtime = f" ({step.runtime})" if variant == variants.COMPILED else ""
            steps[variant + runtime] = step
        yield from bench.time("latency", shape, steps)


def _training(bench: _Bench) -> Iterator[Measurement]:
    shape, names = bench.training_shape, bench.training_variants
    steps = {name: variants.training_step(bench.model, name, shape) for name in names}
    return bench.time("training step", shape, steps)


def _ema(bench: _Bench) -> Iterator[Measurement]:
    names = variants.ema_variants(bench.model)
    steps = {name: variants.ema_update(bench.model, name) for name in names}
    return bench.time("EMA update", Shape(0, bench.resolution), steps)


def _memory(bench: _Bench) -> Iterator[Measurement]:
    largest = Shape(max(bench.settings.batch_sizes), bench.resolution)
    yield from bench.peak_memory("inference", largest, bench.inference_variants)
    yield from bench.peak_memory("training", bench.training_shape, bench.training_variants)


def _loop(bench: _Bench) -> Iterator[Measurement]:
    require_detectron2()
    # detectron2 is optional
    from fbnetv3.benchmark.loop import loop_steps

    with loop_steps(bench.model, bench.training_shape) as steps:
        yield from bench.time("step of the loop", bench.training_shape, steps)


def _data(bench: _Bench) -> Iterator[Measurement]:
    """Measures images per second of CPU time, which other processes affect less than wall time."""
    settings, shape = bench.settings, bench.training_shape
    with input_steps(settings.data, settings.image_size, shape) as steps:
        task = bench.progress.add_task(f"{settings.data} data", total=settings.rounds)
        times = measures.alternate(
            steps, settings.rounds, lambda: bench.progress.advance(task), time.process_time
        )
        bench.progress.remove_task(task)
    rates = {name: [shape.batch / seconds for seconds in values] for name, values in times.items()}
    return with_ratios(settings.data, "training data", shape, IMAGES_PER_SECOND, rates)


_MEASURES: Mapping[str, Callable[[_Bench], Iterator[Measurement]]] = {
    "latency": _latency,
    "training": _training,
    "memory": _memory,
    "ema": _ema,
    "loop": _loop,
    "data": _data,
}


def with_ratios(
    model: str, measure: str, shape: Shape, unit: str, rounds: Mapping[str, list[float]]
) -> Iterator[Measurement]:
    """Yields the measurement of each variant, with its ratio to the first one.

    Args:
        model: Name of the network, or of a data set.
        measure: Name of the measure.
        shape: Images of the measurement; the batch is 0 for a measure without images.
        unit: ``ms`` (then ``rounds`` are seconds), ``MiB`` or ``images/s``.
        rounds: Values of the rounds by variant; the first variant is the reference.
    """
    scale, is_rate = 1e3 if unit == "ms" else 1.0, unit == IMAGES_PER_SECOND
    medians = measures.medians(rounds)
    reference = next(iter(medians.values()))
    for variant, median in medians.items():
        yield Measurement(
            model=model,
            measure=measure,
            batch=shape.batch or None,
            resolution=shape.resolution,
            variant=variant,
            value=median * scale,
            unit=unit,
            ratio=median / reference if is_rate else reference / max(median, 1e-12),
            rounds=[value * scale for value in rounds[variant]],
        )
