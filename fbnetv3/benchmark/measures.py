"""Measuring time in alternating rounds, and memory in a separate process."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from fbnetv3.benchmark.errors import BenchmarkError
from fbnetv3.benchmark.variants import (
    Inference,
    Shape,
    Step,
    TrainingStep,
    images,
    inference,
    torch_threads,
    training_step,
)

Clock = Callable[[], float]
# Calls that take less are repeated within a round, so that the clock's resolution matters little.
_ROUND_SECONDS = 0.05
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def alternate(
    steps: Mapping[str, Step], rounds: int, after_round: Step, clock: Clock | None = None
) -> dict[str, list[float]]:
    """Times steps in turn, so that other load on the machine affects all of them alike.

    Args:
        steps: Steps by name, already warmed up.
        rounds: Number of rounds. Each round times every step; every second one in reverse order.
        after_round: Function that is called after each round.
        clock: Function that returns seconds; None uses the wall clock.

    Returns:
        Seconds per call, one number for each round, by the names of the steps.
    """
    clock = clock or time.perf_counter
    repeats = {name: _repeats(step, clock) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    for _ in range(rounds):
        for name in order:
            times[name].append(_seconds(steps[name], repeats[name], clock))
        order.reverse()
        after_round()
    return times


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    """Returns the median over the rounds of each step."""
    return {name: statistics.median(values) for name, values in times.items()}


def _seconds(step: Step, repeats: int, clock: Clock) -> float:
    start = clock()
    for _ in range(repeats):
        step()
    return (clock() - start) / repeats


def _repeats(step: Step, clock: Clock) -> int:
    return max(1, math.ceil(_ROUND_SECONDS / max(1e-6, _seconds(step, 1, clock))))


def peak_memory(kind: str, name: str, variant: str, shape: Shape, threads: int) -> float:
    """Returns by how many MiB resident memory grows, at its peak, while a network runs.

    A new process builds the network and calls it with one image, or trains it with two. Then it
    makes two calls with ``shape``. The result is the high-water mark of resident memory over these
    two calls, minus the resident memory before them. Hence images and activations are included;
    weights, gradients and the optimizer's state are not. Only Linux can reset the mark: elsewhere
    the result is the growth of the mark, which may be smaller.

    Args:
        kind: ``inference`` or ``training``.
        name: Name of the network.
        variant: Form of the network, such as ``deploy``; see ``variants.py``.
        shape: Images of a call.
        threads: CPU threads of PyTorch.

    Raises:
        BenchmarkError: The process died, most likely for lack of memory.
    """
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(_growth, kind, name, variant, shape, threads).result()
    except BrokenProcessPool as error:
        raise BenchmarkError(
            f"the process that measured the memory of {name} ({variant}) died, most likely for "
            "lack of memory; try smaller --batch-sizes and --train-batch"
        ) from error


def _growth(kind: str, name: str, variant: str, shape: Shape, threads: int) -> float:
    step: Inference | TrainingStep
    with torch_threads(threads):
        if kind == "inference":
            step = inference(name, variant, Shape(1, shape.resolution))
        else:  # in training, batch norm needs more than one value per channel
            step = training_step(name, variant, Shape(2, shape.resolution))
        before = _reset_peak()
        step.images = images(variant, shape)
        step()
        step()
        return (_peak() - before) / 2**20


def _reset_peak() -> int:
    """Sets the high-water mark to the current resident memory if possible; returns it in bytes."""
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5")  # 5 resets VmHWM, see proc(5)
    return _peak()


def _peak() -> int:
    """Returns the high-water mark of this process's resident memory in bytes."""
    if _STATUS.is_file():
        line = next(x for x in _STATUS.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    # kilobytes on Linux and BSD, bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
