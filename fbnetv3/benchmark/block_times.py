"""Latency tables from blocks that were timed as files of their own, here or on another device.

A block that runs alone pays for what a network pays once: the call of the runtime, and the
conversion of its input and output to the runtime's layout or number format. Both are estimated from
networks that were timed as wholes. ``t`` is the time of a block alone in ms, ``e`` the number of
elements of its input and output together, in millions, and the sums run over the blocks of a
network::

    ms of a network = scale * sum(t) - call * (number of blocks) - element * sum(e) + frame

``scale``, ``call`` (ms per call), ``element`` (ms per million elements) and ``frame`` (ms that a
network takes outside of its blocks) are >= 0. These coefficients minimise the squared relative
error over the networks whose blocks were timed. Further networks, timed as wholes, check the
predictions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from scipy.optimize import nnls

from fbnetv3.arch import Arch
from fbnetv3.arch.latency import LatencyTable, MeasuredBlock
from fbnetv3.arch.latency_shapes import frame_shape
from fbnetv3.benchmark.block_files import Part, read_manifest, read_times, write_blocks
from fbnetv3.benchmark.errors import BenchmarkError
from fbnetv3.benchmark.latency import compare_predictions, measurement_conditions, space_networks
from fbnetv3.benchmark.variants import torch_threads
from fbnetv3.export.formats import Format
from fbnetv3.export.job import Run
from fbnetv3.export.runtimes import RUNTIMES, FileRuntime, get_runtime

NETWORKS = 24
"""Default number of random networks whose blocks are written."""
_SMALLEST = 0.05  # smallest time of a block inside a network, as a share of its time alone
_ROUND_SECONDS = 0.02  # faster files are called several times in a round
_FASTEST_SHARE = 0.2  # the result is the mean over this share of the rounds, the fastest ones
_GROUP_BYTES = 400e6  # size of the files of a group, which are in memory together
_REFERENCES = 3  # networks that are part of every group


def table_from_times(
    parts: Sequence[Part],
    archs: Mapping[str, Arch],
    times: Mapping[str, float],
    about: Mapping[str, Any],
) -> LatencyTable:
    """Returns the latency table of blocks that were timed alone, with a check of its predictions.

    Args:
        parts: Blocks and networks.
        archs: Architectures of the networks by name.
        times: Milliseconds of all parts by name.
        about: Description of measurement and space.

    Raises:
        BenchmarkError: There are no networks to fit or to check, or the fit does not converge.
    """
    blocks = [part for part in parts if part.shape is not None]
    fits = [part for part in parts if part.blocks]
    checks = [part for part in parts if part.is_check]
    if not fits or not checks:
        raise BenchmarkError("the folder of blocks has no networks; export the blocks again")
    inside, fit = _inside(blocks, fits, times)
    measured = [
        MeasuredBlock(block.shape, ms)
        for block, ms in zip(blocks, inside, strict=True)
        if block.shape is not None
    ]
    sides = sorted({archs[part.name].resolution for part in (*fits, *checks)})
    table = LatencyTable(
        [*(MeasuredBlock(frame_shape(n), fit["frame_ms"]) for n in sides), *measured]
    )
    check = compare_predictions(
        [table.of_arch(archs[part.name]) for part in checks],
        [times[part.name] for part in checks],
    )
    form = "blocks timed as files of their own, corrected by whole networks, float32 in and out"
    facts = {"networks": len(fits), "form": form, "fit": fit, "check": check}
    return LatencyTable(table.blocks, {**about, **facts})


def _inside(
    blocks: Sequence[Part], fits: Sequence[Part], times: Mapping[str, float]
) -> tuple[list[float], dict[str, float]]:
    """Returns the milliseconds of each block inside a network, and the fitted coefficients."""
    alone = np.array([times[block.name] for block in blocks])
    elements = np.array([block.elements for block in blocks], dtype=float)
    rows = [list(part.blocks) for part in fits]
    whole = np.array([times[part.name] for part in fits])
    columns = np.array([[alone[r].sum(), -len(r), -elements[r].sum() / 1e6, 1.0] for r in rows])
    try:
        scale, call, element, frame = nnls(columns / whole[:, None], np.ones(len(rows)))[0].tolist()
    except (RuntimeError, ValueError) as error:  # nnls does not converge
        raise BenchmarkError(
            f"the times of the {len(rows)} networks do not fit those of their blocks ({error}); "
            "measure again"
        ) from error
    inside = np.maximum(_SMALLEST * alone, scale * alone - call - element * elements / 1e6).tolist()
    fit = {"scale": scale, "call_ms": call, "million_elements_ms": element, "frame_ms": frame}
    return inside, fit


def export_blocks(
    folder: Path,
    config_file: str,
    *,
    runtime: str | None = None,
    networks: int = NETWORKS,
    check_networks: int = 30,
    seed: int = 1,
    progress: Progress | None = None,
) -> int:
    """Writes the blocks of a search's space as files to time on another device.

    ``block_files.py`` describes the folder.

    Args:
        folder: Folder to write; it must be empty or missing.
        config_file: Path or packaged name of the search's config.
        runtime: Name of a runtime whose files are written; None writes ONNX files and, where
            ExecuTorch is installed, its programs.
        networks: Number of random networks whose blocks are written.
        check_networks: Number of other networks, timed as wholes only, to check predictions.
        seed: Random seed of the networks.
        progress: Progress display that the work is added to.

    Returns:
        The number of blocks and networks, each of which has a row in the csv.

    Raises:
        FBNetError: The config or the runtime cannot be used, or the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BenchmarkError(f"--export-blocks {folder}: is not an empty folder; name a new one")
    names = [runtime] if runtime else ["onnxruntime", "executorch"]
    if runtime:
        get_runtime(runtime)
    formats = [RUNTIMES[n].part_format for n in names if not RUNTIMES[n].problem()]
    if not formats:
        get_runtime(names[0])  # raises the error that says what is missing
    sizes = networks, check_networks, seed
    return len(_write(folder, config_file, sizes, formats, progress)[0])


def _write(
    folder: Path,
    config_file: str,
    sizes: tuple[int, int, int],
    formats: Sequence[Format],
    progress: Progress | None,
) -> tuple[list[Part], dict[str, Arch], dict[str, Any]]:
    networks, check_networks, seed = sizes
    archs, checks, about = space_networks(config_file, networks, check_networks, seed)
    display = progress or Progress(disable=True)
    task = display.add_task("files", total=len(archs) + len(checks))
    about = {**about, "seed": seed}
    parts = write_blocks(folder, archs, checks, formats, about, lambda: display.advance(task))
    display.remove_task(task)
    names = (part.name for part in parts if part.shape is None)
    return parts, dict(zip(names, (*archs, *checks), strict=True)), about


def read_blocks(path: Path, runtime: str) -> LatencyTable:
    """Returns the latency table from a csv with times of another device.

    Args:
        path: The filled csv, in the folder that :func:`export_blocks` wrote.
        runtime: Runtime, its version and the device of the measurement, as free text.

    Raises:
        BenchmarkError: The folder or the csv cannot be used; the message names the row.
    """
    parts, archs, about = read_manifest(path.with_name("blocks.json"))
    times = read_times(path, parts)
    measured = {"cpu": "another device", "runtime": runtime, "batch": 1}
    return table_from_times(parts, archs, times, {**about, **measured})


def measure_runtime_table(
    config_file: str,
    runtime: str,
    *,
    networks: int = NETWORKS,
    check_networks: int = 30,
    rounds: int = 10,
    threads: int = 1,
    seed: int = 1,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measures the latency table of a search's space in a runtime, on this machine.

    ``runtime`` is a name in ``fbnetv3.export.runtimes``; the other arguments are those of
    :func:`fbnetv3.benchmark.latency.measure_latency_table`. With one thread, the clock is the CPU
    time of this process, which excludes other processes.

    Raises:
        FBNetError: The config or the runtime cannot be used, or the fit does not converge.
    """
    chosen = get_runtime(runtime)
    clock = time.process_time if threads == 1 else time.perf_counter
    with TemporaryDirectory() as name, torch_threads(threads):
        folder, sizes = Path(name), (networks, check_networks, seed)
        parts, archs, about = _write(folder, config_file, sizes, [chosen.part_format], progress)
        times = _time_parts(folder, parts, chosen, rounds, clock, progress)
    facts = {"runtime": runtime, "runtime_version": chosen.version, "rounds": rounds}
    return table_from_times(
        parts, archs, times, {**about, **measurement_conditions(threads), **facts}
    )


def _time_parts(
    folder: Path,
    parts: Sequence[Part],
    runtime: FileRuntime,
    rounds: int,
    clock: Callable[[], float],
    progress: Progress | None,
) -> dict[str, float]:
    """Returns the milliseconds of each part.

    Files are timed in groups that fit into memory together, each with the same reference networks.
    The times of a group are divided by the slowdown of these networks relative to the median group.
    """
    order = np.random.default_rng(0).permutation(len(parts)).tolist()
    paths = {part.name: folder / f"{part.name}{runtime.part_format.suffix}" for part in parts}
    total = sum(path.stat().st_size for path in paths.values())
    count = min(len(parts), math.ceil(total / _GROUP_BYTES))
    display = progress or Progress(disable=True)
    task = display.add_task("rounds", total=rounds * count)
    references = [_Timed(part, paths, runtime) for part in parts if part.blocks][:_REFERENCES]
    times: list[dict[str, float]] = []
    speeds = []
    for group in (order[i::count] for i in range(count)):
        timed = [_Timed(parts[i], paths, runtime) for i in group]
        for part in references:
            part.seconds.clear()
        for number in range(rounds):
            for item in (*references, *timed)[:: -1 if number % 2 else 1]:
                item.time(clock)
            display.advance(task)
        speeds.append(math.prod(item.ms for item in references) ** (1 / len(references)))
        times.append({item.name: item.ms for item in timed})
    usual = float(np.median(speeds))
    return {
        name: ms * usual / speed
        for values, speed in zip(times, speeds, strict=True)
        for name, ms in values.items()
    }


class _Timed:
    """A file that is loaded and timed."""

    def __init__(self, part: Part, paths: Mapping[str, Path], runtime: FileRuntime) -> None:
        self.name = part.name
        self.seconds: list[float] = []
        generator = torch.Generator().manual_seed(0)
        self._images = torch.rand(part.input_size, generator=generator).numpy()
        self._run: Run = runtime.load_part(paths[part.name])
        self._run(self._images)  # the first call is slower, since it allocates memory

    def time(self, clock: Callable[[], float]) -> None:
        """Times a round of calls."""
        start, calls = clock(), 0
        while calls == 0 or clock() - start < _ROUND_SECONDS:
            self._run(self._images)
            calls += 1
        self.seconds.append((clock() - start) / calls)

    @property
    def ms(self) -> float:
        """Mean time of a call in the fastest rounds."""
        count = math.ceil(_FASTEST_SHARE * len(self.seconds))
        return 1e3 * float(np.mean(sorted(self.seconds)[:count]))
