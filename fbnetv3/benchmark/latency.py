"""``fbnetv3-benchmark --latency-table``: measures the blocks of a search space on this machine.

Blocks are timed inside random networks of the space, so that inputs and weights come from the
caches as they do in use; what is left of a network's time is its ``frame``. Networks are in
the form of ``deploy``, eager, batch 1: a compiled one has no blocks that could be timed apart.
With one thread, its CPU time is taken: what other processes take away meanwhile does not count.
Further random networks, timed whole in the same rounds, check what the table says of them.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from scipy.stats import spearmanr

from fbnetv3.arch import Arch
from fbnetv3.arch.latency import LatencyTable, MeasuredBlock
from fbnetv3.arch.latency_shapes import Shape, arch_shapes
from fbnetv3.benchmark.blocks import measure
from fbnetv3.benchmark.errors import BenchmarkError
from fbnetv3.benchmark.variants import torch_threads
from fbnetv3.requires import require_detectron2
from fbnetv3.resources import find_config
from fbnetv3.search.fbnet.space import FBNetSpace

LARGEST_ERROR, SMALLEST_CORRELATION = 0.10, 0.95


def blocks_of(networks: Sequence[tuple[Arch, list[float]]]) -> list[MeasuredBlock]:
    """Returns each shape once, with the mean over the networks that have it.

    Args:
        networks: (architecture, milliseconds: all, each layer, head).
    """
    found: dict[Shape, list[float]] = {}
    for arch, (total, *parts) in networks:
        frame = max(0.0, total - sum(parts))
        for shape, ms in zip(arch_shapes(arch), [frame, *parts], strict=True):
            found.setdefault(shape, []).append(ms)
    return [MeasuredBlock(shape, float(np.mean(ms))) for shape, ms in found.items()]


def draw(space: FBNetSpace, count: int, num_classes: int, seed: int) -> list[Arch]:
    """Returns random distinct architectures of a space, fewer where there are fewer."""
    random = np.random.default_rng([seed, 31])
    levels = random.integers(0, space.space.sizes, (20 * count, len(space.space)))
    configs = space.space.configs(space.space.canonical(levels))
    archs = (space.arch(config, num_classes) for config in configs)
    return _distinct(archs, count)


def _distinct(archs: Iterator[Arch], count: int) -> list[Arch]:
    found: dict[str, Arch] = {}
    while len(found) < count and (arch := next(archs, None)) is not None:
        found.setdefault(arch.to_yaml(), arch)
    return list(found.values())


def corners(space: FBNetSpace, num_classes: int) -> list[Arch]:
    """Returns architectures of the ends of all ranges, as deep as can be.

    With them, every number of every block lies between measured ones.
    """
    sizes = space.space.sizes
    parents = {w.name for p in space.space.parameters for w in p.active_if}
    found = []
    for wide in (0, 1):
        for last in (0, 1):
            ends = [
                last if not p.is_ordered else 1 if p.name in parents else wide
                for p in space.space.parameters
            ]
            levels = space.space.canonical(np.array(ends)[None] * (sizes - 1))
            found.append(space.arch(space.space.configs(levels)[0], num_classes))
    return _distinct(iter(found), len(found))


def compared(predicted: Sequence[float], measured: Sequence[float]) -> dict[str, Any]:
    """Returns the check of a table against networks that were not in it."""
    error = np.abs(np.array(predicted) / np.array(measured) - 1).mean()
    return {
        "networks": len(measured),
        "mean_absolute_error": float(error),
        "rank_correlation": float(spearmanr(predicted, measured).statistic),
        "measured_ms": [round(ms, 4) for ms in measured],
        "predicted_ms": [round(ms, 4) for ms in predicted],
    }


def read_space(config_file: str) -> tuple[FBNetSpace, int]:
    """Returns the space of a search's config, and how many classes its networks tell apart."""
    require_detectron2()
    from fbnetv3.search.fbnet.config import space_from_config
    from fbnetv3.search.fbnet.datasets import num_classes_from_config
    from fbnetv3.search.fbnet.keys import get_search_cfg

    cfg = get_search_cfg()
    cfg.merge_from_file(str(find_config(config_file)))
    space = space_from_config(cfg)
    if not space.has_architecture:
        raise BenchmarkError(
            f"{config_file}: the space {space.name} has one architecture only, so there is no "
            "latency table to measure"
        )
    return space, num_classes_from_config(cfg)


def make_table(arguments: argparse.Namespace, progress: Progress, cpu: str) -> LatencyTable:
    """Measures what the command line asks for, and writes the table."""
    space, classes = read_space(arguments.config_file)
    count = arguments.networks + arguments.check
    drawn = draw(space, count, classes, arguments.seed)
    checks, archs = drawn[: arguments.check], drawn[arguments.check :]
    archs = [*corners(space, classes), *archs]
    task = progress.add_task("networks", total=len(archs) + len(checks))
    clock = time.thread_time if arguments.threads == 1 else time.perf_counter
    with torch_threads(arguments.threads):
        apart, whole = measure(
            archs, checks, arguments.rounds, clock, lambda: progress.advance(task)
        )
    blocks = blocks_of(list(zip(archs, apart, strict=True)))
    table = LatencyTable(blocks)
    about = {
        "cpu": cpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "form": "fbnetv3.deploy, eager, float32",
        "batch": 1,
        "threads": arguments.threads,
        "clock": "CPU time" if arguments.threads == 1 else "wall time",
        "space": space.name,
        "config": arguments.config_file,
        "classes": classes,
        "networks": len(archs),
        "rounds": arguments.rounds,
        "seed": arguments.seed,
        "check": compared([table.of_arch(arch) for arch in checks], whole),
    }
    table = LatencyTable(blocks, about)
    table.save(arguments.latency_table)
    return table


def report(table: LatencyTable, path: os.PathLike[str]) -> list[str]:
    """Returns what a user is told of a new table."""
    about, check = table.about, table.about["check"]
    measured = check["measured_ms"]
    made = (
        f"{path}: {len(table.blocks)} block shapes in {about['networks']} networks of the space "
        f"{about['space']}; {about['form']}, batch 1, threads {about['threads']}, {about['cpu']}"
    )
    checked = (
        f"check on {check['networks']} further random networks, {min(measured):.3g} to "
        f"{max(measured):.3g} ms: mean absolute error {check['mean_absolute_error']:.1%}, "
        f"rank correlation {check['rank_correlation']:.3f}"
    )
    lines = [made, checked]
    if (
        check["mean_absolute_error"] > LARGEST_ERROR
        or not check["rank_correlation"] >= SMALLEST_CORRELATION
    ):
        lines.append(
            f"warning: more than {LARGEST_ERROR:.0%}, or less than {SMALLEST_CORRELATION}: "
            "measure again when the machine is idle, with more --rounds or --networks"
        )
    bound = f"latency_ms <= {float(np.median(measured)):.3g}"
    lines.append(f"search with it: SEARCH.LATENCY_TABLE {path} SEARCH.CONSTRAINTS '[\"{bound}\"]'")
    return lines
