"""Latency tables: the blocks of a search space, measured on this machine.

Blocks are timed inside networks, so that the state of the CPU's caches is as in real use. The
networks are random ones of the space, and those at the ends of the ranges of its variables. The
time that a network spends outside of its blocks is the table's ``frame``. Classifiers are timed in
the form of ``fbnetv3.deploy``; RetinaNets in evaluation mode, without decoding of boxes. The batch
size is 1, and nothing is compiled, since a compiled network has no separate blocks. With one thread
the clock is CPU time, which excludes other processes. Further random networks, timed as a whole in
the same rounds, validate the table's predictions.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.progress import Progress
from scipy.stats import spearmanr

from fbnetv3.arch import Arch
from fbnetv3.arch.latency import LatencyTable, MeasuredBlock
from fbnetv3.arch.latency_shapes import Shape, arch_shapes
from fbnetv3.benchmark.blocks import TimedNetwork, build_timed_network, measure_networks
from fbnetv3.benchmark.errors import BenchmarkError
from fbnetv3.benchmark.machine import describe_machine
from fbnetv3.benchmark.variants import torch_threads
from fbnetv3.requires import require_detectron2
from fbnetv3.resources import find_config
from fbnetv3.search.fbnet.space import FBNetSpace

if TYPE_CHECKING:
    from fbnetv3.search.fbnet.config import SearchSetup


def mean_blocks(networks: Sequence[tuple[Arch, list[float]]]) -> list[MeasuredBlock]:
    """Returns each block shape once, with its mean latency over its occurrences.

    Args:
        networks: Architectures, each with latencies in milliseconds: of the whole network, of each
            layer, and of the head.
    """
    return mean_shapes([(arch_shapes(arch), times) for arch, times in networks])


def mean_shapes(networks: Sequence[tuple[Sequence[Shape], list[float]]]) -> list[MeasuredBlock]:
    """Returns each shape once, with its mean latency over its occurrences.

    Args:
        networks: Shapes of each network, with latencies in milliseconds: of the whole network, and
            of each part. The first shape is the frame, which takes the time outside of all parts.
    """
    times: dict[Shape, list[float]] = {}
    for shapes, (total, *parts) in networks:
        frame = max(0.0, total - sum(parts))
        for shape, ms in zip(shapes, [frame, *parts], strict=True):
            times.setdefault(shape, []).append(ms)
    return [MeasuredBlock(shape, float(np.mean(ms))) for shape, ms in times.items()]


def sample_archs(space: FBNetSpace, count: int, num_classes: int, seed: int) -> list[Arch]:
    """Samples distinct architectures of a space.

    Args:
        space: Space of architectures.
        count: Number of architectures; fewer are returned if 20 * ``count`` random candidates do
            not have that many.
        num_classes: Number of classes of the networks.
        seed: Random seed.
    """
    archs = (space.arch(config, num_classes) for config in random_configs(space, count, seed))
    return _first_distinct(archs, count)


def random_configs(space: FBNetSpace, count: int, seed: int) -> list[dict[str, Any]]:
    """Returns 20 * ``count`` random candidates.

    In a small space, many of them have the same architecture.
    """
    random = np.random.default_rng([seed, 31])
    levels = random.integers(0, space.space.sizes, (20 * count, len(space.space)))
    return space.space.configs(space.space.canonical(levels))


def _first_distinct(archs: Iterator[Arch], count: int) -> list[Arch]:
    distinct: dict[Arch, None] = {}
    while len(distinct) < count and (arch := next(archs, None)) is not None:
        distinct.setdefault(arch)
    return list(distinct)


def corner_archs(space: FBNetSpace, num_classes: int) -> list[Arch]:
    """Returns the deepest architectures at the ends of all ranges of a space.

    With them, every size of every block of the space lies between measured sizes. Each row of
    the space's table has its largest number of layers, so that its repeated layers are measured
    too.

    Args:
        space: Space of architectures.
        num_classes: Number of classes of the networks.
    """
    archs = [space.arch(config, num_classes) for config in corner_configs(space)]
    return _first_distinct(iter(archs), len(archs))


def corner_configs(space: FBNetSpace) -> list[dict[str, Any]]:
    """Returns the deepest candidates at the ends of all ranges of a space, with all choices.

    All stages have the same choice of an unordered variable, such as the op. For each combination
    of these choices, there are two candidates: one with all ordered variables at their lowest
    level, and one with all at their highest. Numbers of layers, and ordered variables that others
    depend on, are at their largest in both.
    """
    parents = {condition.name for p in space.space.parameters for condition in p.active_if}
    parents |= space.depth_names
    choices = {_key_of(p.name): 0 for p in space.space.parameters if not p.is_ordered}
    for p in space.space.parameters:
        if not p.is_ordered:
            # A recipe has no influence on latency.
            size = p.size if p.part == "architecture" else 1
            choices[_key_of(p.name)] = max(choices[_key_of(p.name)], size)
    combinations = list(itertools.product(*map(range, choices.values())))
    levels = []
    # Numbers of layers, and ordered parameters that others depend on, are at their largest, so that
    # all layers exist.
    for end in (0, 1):
        for combination in combinations:
            chosen = dict(zip(choices, combination, strict=True))
            levels.append(
                [
                    min(chosen[_key_of(p.name)], p.size - 1)
                    if not p.is_ordered
                    else (1 if p.name in parents else end) * (p.size - 1)
                    for p in space.space.parameters
                ]
            )
    return space.space.configs(space.space.canonical(np.array(levels)))


def _key_of(name: str) -> str:
    """Returns the key that a variable sets, such as ``k_mid`` for ``stage2_k_mid_rest``.

    In :func:`corner_configs`, all unordered variables of one key share a level.
    """
    return re.sub(r"^stage\d+[a-z]*_", "", name).removesuffix("_rest")


def compare_predictions(predicted: Sequence[float], measured: Sequence[float]) -> dict[str, Any]:
    """Compares predicted and measured latencies of networks that the table was not measured on.

    Args:
        predicted: Predicted latencies in milliseconds.
        measured: Measured latencies in milliseconds, in the same order.

    Returns:
        The entry ``check`` of a latency table's ``about``. Its ``mean_absolute_error`` is relative
        to the measured latencies.
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
        FBNetError: The config cannot be used.
    """
    _, space, num_classes = _read_search(config_file)
    return space, num_classes


def _read_search(config_file: str) -> tuple[SearchSetup, FBNetSpace, int]:
    """Returns a search, its space and the number of classes; see :func:`read_space`."""
    require_detectron2()
    from fbnetv3.search.fbnet.config import SearchSetup
    from fbnetv3.search.fbnet.datasets import num_classes_from_config
    from fbnetv3.search.fbnet.keys import get_search_cfg

    cfg = get_search_cfg()
    cfg.merge_from_file(str(find_config(config_file)))
    setup = SearchSetup(cfg)
    space = setup.space
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
    return setup, space, num_classes_from_config(setup.cfg)


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
        networks: Number of random networks whose blocks are measured, besides those at the ends of
            the ranges.
        check_networks: Number of further random networks to validate the table on.
        rounds: Number of rounds of measurement.
        threads: Number of threads that torch uses.
        seed: Random seed of the networks.
        progress: Progress display that the measurement is added to.

    Returns:
        The table. Its ``about`` describes the machine, the measurement and the check.

    Raises:
        FBNetError: The config cannot be used, its space has only one architecture, or its networks
            are not FBNets.
    """
    sample, corners, build, about = _networks(config_file, networks + check_networks, seed)
    checks, measured = sample[:check_networks], [*corners, *sample[check_networks:]]
    blocks, check_ms = _measure(measured, checks, rounds, threads, progress, build)
    predicted = [LatencyTable(blocks).of_shapes(_shapes(network)) for network in checks]
    about |= {"networks": len(measured), "rounds": rounds, "seed": seed}
    about |= {"runtime": "torch", "runtime_version": torch.__version__}
    check = compare_predictions(predicted, check_ms)
    return LatencyTable(blocks, {**measurement_conditions(threads), **about, "check": check})


def _networks(
    config_file: str, count: int, seed: int
) -> tuple[list[Any], list[Any], Callable[..., TimedNetwork], dict[str, Any]]:
    """Returns the networks to measure, the function that builds them, and entries of ``about``.

    Returns:
        Up to ``count`` random networks, the networks at the ends of the ranges, the function that
        builds them, and entries of the table's ``about``.
    """
    setup, space, num_classes = _read_search(config_file)
    about = {"space": space.name, "config": config_file, "classes": num_classes}
    if setup.cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        sample = sample_archs(space, count, num_classes, seed)
        about["form"] = "fbnetv3.deploy, eager, float32"
        return sample, corner_archs(space, num_classes), build_timed_network, about
    from fbnetv3.benchmark.detectors import build_timed_detector  # for detectors only

    about["form"] = "RetinaNet without decoding of boxes, eager, float32"
    about["aspect_ratio"] = setup.cfg.SEARCH.ASPECT_RATIO
    return *_detectors(setup, space, count, seed), build_timed_detector, about


def _shapes(network: Any) -> list[Shape]:
    """Returns the shapes of a network: an architecture, or a detector's design."""
    return arch_shapes(network) if isinstance(network, Arch) else network.shapes


def _detectors(setup: Any, space: FBNetSpace, count: int, seed: int) -> tuple[list[Any], list[Any]]:
    """Returns random detectors of a space, and those at the ends of its ranges."""
    from fbnetv3.benchmark.detectors import distinct_designs, with_all_depths
    from fbnetv3.search.fbnet.tasks import statistics_of

    statistics: Any = statistics_of(setup)
    corners = with_all_depths(space, corner_configs(space))
    sample = distinct_designs(statistics, random_configs(space, count, seed), count)
    return sample, distinct_designs(statistics, corners, len(corners))


def _measure(
    networks: Sequence[Any],
    checks: Sequence[Any],
    rounds: int,
    threads: int,
    progress: Progress | None,
    build: Callable[..., TimedNetwork],
) -> tuple[list[MeasuredBlock], list[float]]:
    display = progress or Progress(disable=True)
    task = display.add_task("networks", total=len(networks) + len(checks))
    clock = time.thread_time if threads == 1 else time.perf_counter
    with torch_threads(threads):
        network_ms, check_ms = measure_networks(
            networks, checks, rounds, clock, lambda: display.advance(task), build
        )
    return mean_shapes(list(zip(map(_shapes, networks), network_ms, strict=True))), check_ms


def space_networks(
    config_file: str, networks: int, check_networks: int, seed: int
) -> tuple[list[Arch], list[Arch], dict[str, Any]]:
    """Returns architectures of a search over classifiers, with entries of the table's ``about``.

    Args:
        config_file: Path or packaged name of the search's config.
        networks: Number of random architectures, to which those at the ends of ranges are added.
        check_networks: Number of further random architectures, to validate the table on.
        seed: Random seed of the architectures.

    Returns:
        The architectures whose blocks are measured, the ``check_networks`` further ones, and
        entries of the table's ``about``.

    Raises:
        BenchmarkError: The search is one over detectors, its space has only one architecture, or
            its networks are not FBNets.
        FBNetError: The config cannot be used.
    """
    setup, space, num_classes = _read_search(config_file)
    if setup.cfg.MODEL.META_ARCHITECTURE != "ImageClassifier":
        raise BenchmarkError(
            f"{config_file}: blocks of detectors are not written as files; measure the table of a "
            "search over detectors in torch, without --runtime and --export-blocks"
        )
    sample = sample_archs(space, networks + check_networks, num_classes, seed)
    checks, archs = sample[:check_networks], sample[check_networks:]
    about = {"space": space.name, "config": config_file, "classes": num_classes}
    return [*corner_archs(space, num_classes), *archs], checks, about


def measurement_conditions(threads: int) -> dict[str, Any]:
    """Returns the entries of a table's ``about`` on machine, batch size, threads and clock."""
    return {
        **describe_machine(),
        "batch": 1,
        "threads": threads,
        "clock": "CPU time" if threads == 1 else "wall time",
    }
