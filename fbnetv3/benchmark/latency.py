"""Latency tables: the blocks of a search space, measured on this machine.

Blocks are timed inside random networks of the space, so that the state of the CPU's caches is as in
real use. The rest of a network's time is the table's ``frame``. Networks are timed in the form of
``fbnetv3.deploy`` with batch size 1, uncompiled, since a compiled network has no separate blocks.
With one thread the clock is CPU time, which excludes other processes. Further random networks,
timed as a whole in the same rounds, validate the table's predictions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.progress import Progress
from scipy.stats import spearmanr

from fbnetv3.arch import Arch
from fbnetv3.arch.latency import LatencyTable, MeasuredBlock
from fbnetv3.arch.latency_shapes import Shape, arch_shapes
from fbnetv3.benchmark.blocks import measure_networks
from fbnetv3.benchmark.errors import BenchmarkError
from fbnetv3.benchmark.machine import describe_machine
from fbnetv3.benchmark.variants import torch_threads
from fbnetv3.requires import require_detectron2
from fbnetv3.resources import find_config
from fbnetv3.search.fbnet.space import FBNetSpace


def mean_blocks(networks: Sequence[tuple[Arch, list[float]]]) -> list[MeasuredBlock]:
    """Returns each block shape once, with its mean latency over the networks that contain it.

    Args:
        networks: Architectures, each with latencies in milliseconds: of the whole network, of each
            layer, and of the head.
    """
    times: dict[Shape, list[float]] = {}
    for arch, (total, *parts) in networks:
        frame = max(0.0, total - sum(parts))
        for shape, ms in zip(arch_shapes(arch), [frame, *parts], strict=True):
            times.setdefault(shape, []).append(ms)
    return [MeasuredBlock(shape, float(np.mean(ms))) for shape, ms in times.items()]


def sample_archs(space: FBNetSpace, count: int, num_classes: int, seed: int) -> list[Arch]:
    """Samples distinct architectures of a space.

    Args:
        space: Space of architectures.
        count: Number of architectures. A space with fewer architectures gives fewer.
        num_classes: Number of classes of the networks.
        seed: Random seed.
    """
    random = np.random.default_rng([seed, 31])
    # 20 times as many draws, because many give the same architecture
    levels = random.integers(0, space.space.sizes, (20 * count, len(space.space)))
    configs = space.space.configs(space.space.canonical(levels))
    archs = (space.arch(config, num_classes) for config in configs)
    return _first_distinct(archs, count)


def _first_distinct(archs: Iterator[Arch], count: int) -> list[Arch]:
    distinct: dict[str, Arch] = {}
    while len(distinct) < count and (arch := next(archs, None)) is not None:
        distinct.setdefault(arch.to_yaml(), arch)
    return list(distinct.values())


def corner_archs(space: FBNetSpace, num_classes: int) -> list[Arch]:
    """Returns the deepest architectures at the ends of all ranges of a space.

    With them, every size of every block of the space lies between measured sizes.

    Args:
        space: Space of architectures.
        num_classes: Number of classes of the networks.
    """
    parents = {condition.name for p in space.space.parameters for condition in p.active_if}
    archs = []
    # Ordered parameters that others depend on are at their largest, so that all layers exist.
    for width_end in (0, 1):
        for choice_end in (0, 1):
            ends = [
                choice_end if not p.is_ordered else 1 if p.name in parents else width_end
                for p in space.space.parameters
            ]
            levels = space.space.canonical(np.array(ends)[None] * (space.space.sizes - 1))
            archs.append(space.arch(space.space.configs(levels)[0], num_classes))
    return _first_distinct(iter(archs), len(archs))


def compare_predictions(predicted: Sequence[float], measured: Sequence[float]) -> dict[str, Any]:
    """Compares predicted and measured latencies of networks that the table was not measured on.

    Args:
        predicted: Predicted latencies in milliseconds.
        measured: Measured latencies in milliseconds, in the same order.

    Returns:
        The entry ``check`` of a latency table's ``about``.
    """
    error = np.abs(np.array(predicted) / np.array(measured) - 1).mean()
    return {
        "networks": len(measured),
        "mean_absolute_error": float(error),
        "rank_correlation": float(spearmanr(predicted, measured).statistic),
        "measured_ms": [round(ms, 4) for ms in measured],
        "predicted_ms": [round(ms, 4) for ms in predicted],
    }


def read_space(config_file: str) -> tuple[FBNetSpace, int]:
    """Reads the space of a search's config.

    Args:
        config_file: Path or packaged name of the config.

    Returns:
        The space, and the number of classes of its networks.

    Raises:
        BenchmarkError: The space has only one architecture, or its networks are not FBNets.
    """
    require_detectron2()
    from fbnetv3.search.fbnet.config import space_from_config
    from fbnetv3.search.fbnet.datasets import num_classes_from_config
    from fbnetv3.search.fbnet.keys import get_search_cfg

    cfg = get_search_cfg()
    cfg.merge_from_file(str(find_config(config_file)))
    space = space_from_config(cfg)
    if not isinstance(space, FBNetSpace):
        raise BenchmarkError(
            f"{config_file}: the networks of the space are not FBNets, so there are no blocks to "
            "measure; give a config whose SEARCH.SPACE has rows"
        )
    if not space.has_architecture:
        raise BenchmarkError(
            f"{config_file}: the space {space.name} has one architecture only, so there is no "
            "latency table to measure"
        )
    return space, num_classes_from_config(cfg)


def measure_latency_table(
    config_file: str,
    *,
    networks: int = 100,
    check_networks: int = 30,
    rounds: int = 10,
    threads: int = 1,
    seed: int = 1,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measures the latency table of a search's space on this machine. Needs detectron2.

    Args:
        config_file: Path or packaged name of the search's config.
        networks: Number of random networks whose blocks are measured.
        check_networks: Number of further random networks to validate the table on.
        rounds: Number of rounds of measurement.
        threads: Number of threads that torch uses.
        seed: Random seed of the networks.
        progress: Progress display that the measurement is added to.

    Returns:
        The table. Its ``about`` describes the machine, the measurement and the check.

    Raises:
        FBNetError: The config cannot be used, or its space has only one architecture.
    """
    space, num_classes = read_space(config_file)
    sample = sample_archs(space, networks + check_networks, num_classes, seed)
    checks = sample[:check_networks]
    archs = [*corner_archs(space, num_classes), *sample[check_networks:]]
    settings = {"networks": len(archs), "rounds": rounds, "seed": seed}
    names = {"space": space.name, "config": config_file, "classes": num_classes}
    blocks, check_ms = _measure(archs, checks, rounds, threads, progress)
    predicted = [LatencyTable(blocks).of_arch(arch) for arch in checks]
    check = compare_predictions(predicted, check_ms)
    return LatencyTable(blocks, {**_conditions(threads), **names, **settings, "check": check})


def _measure(
    archs: Sequence[Arch],
    checks: Sequence[Arch],
    rounds: int,
    threads: int,
    progress: Progress | None,
) -> tuple[list[MeasuredBlock], list[float]]:
    display = progress or Progress(disable=True)
    task = display.add_task("networks", total=len(archs) + len(checks))
    clock = time.thread_time if threads == 1 else time.perf_counter
    with torch_threads(threads):
        arch_ms, check_ms = measure_networks(
            archs, checks, rounds, clock, lambda: display.advance(task)
        )
    return mean_blocks(list(zip(archs, arch_ms, strict=True))), check_ms


def _conditions(threads: int) -> dict[str, Any]:
    return {
        **describe_machine(),
        "form": "fbnetv3.deploy, eager, float32",
        "batch": 1,
        "threads": threads,
        "clock": "CPU time" if threads == 1 else "wall time",
    }
