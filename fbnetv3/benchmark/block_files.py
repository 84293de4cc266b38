"""Blocks of a search space as files of a runtime, with a csv for their latencies.

A folder of :func:`write_blocks` has these parts: each distinct block of some random networks of the
space, each of these networks as a whole, and further networks as a whole, whose measured latencies
are compared with the latencies predicted from the blocks. Each part is a file in each format.
``blocks.json`` describes the parts; ``blocks.csv`` has a row ``name,ms`` for each part.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fbnetv3 import imagenet
from fbnetv3.arch import Arch
from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.latency import block_from_row, block_row
from fbnetv3.arch.latency_shapes import FRAME, Shape, arch_shapes
from fbnetv3.benchmark.errors import BenchmarkError
from fbnetv3.export.calibration import MIN_IMAGES
from fbnetv3.export.files import write_file
from fbnetv3.export.formats import Format
from fbnetv3.export.job import Job
from fbnetv3.export.network import ExportNetwork
from fbnetv3.io import atomic_write, read_text
from fbnetv3.modeling import build_model

CSV, MANIFEST = "blocks.csv", "blocks.json"
_FORMAT = 1  # version of the content of blocks.json
# Python's errors if blocks.json does not have the content that write_manifest writes
_MISREAD = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
_MAX_MS, _MAX_ELEMENTS = 1e9, 1e12  # upper bounds of values that are read, against broken files


@dataclass(frozen=True)
class Part:
    """A block or a whole network in a folder of blocks.

    Attributes:
        name: Name of its files without their suffix, and its name in the csv.
        input_size: Size (1, C, H, W) of its input.
        elements: Number of elements of its input and output together.
        shape: Shape of the block; None for a whole network.
        blocks: For a whole network, the indices of its blocks among those of the folder, in order;
            empty for a block, and for a network that only checks predictions.
        is_check: Whether it is a network that only checks predicted latencies.
    """

    name: str
    input_size: tuple[int, ...]
    elements: int
    shape: Shape | None = None
    blocks: tuple[int, ...] = ()
    is_check: bool = False


class _Block(ExportNetwork):
    """A single block as an exported network: its input is not normalised."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels)


def write_blocks(
    folder: Path,
    archs: Sequence[Arch],
    checks: Sequence[Arch],
    formats: Sequence[Format],
    about: Mapping[str, Any],
    done: Callable[[], None] = lambda: None,
) -> list[Part]:
    """Writes blocks and whole networks with random weights.

    Args:
        folder: Folder to write, which is created.
        archs: Architectures whose blocks are written.
        checks: Architectures that are written as a whole only.
        formats: Formats of the files.
        about: Description of the space, stored with the parts.
        done: Function that is called after each network.

    Returns:
        The parts: all blocks, then the networks.

    Raises:
        ExportError: A part cannot be written in a format.
        WriteError: The folder cannot be written to.
    """
    blocks, networks = dict[Shape, Part](), dict[str, Part]()
    designs = [*((arch, False) for arch in archs), *((arch, True) for arch in checks)]
    for number, (arch, is_check) in enumerate(designs):
        torch.manual_seed(number)
        model = build_model(arch, arch.num_classes).eval()
        if not is_check:
            _write_new_blocks(folder, model, arch, blocks, formats)
        name = f"{'check' if is_check else 'network'}_{number + 1:03d}"
        networks[name] = _network_part(name, arch, [] if is_check else list(blocks))
        whole = ExportNetwork(model, imagenet.MEAN, imagenet.STD)
        _write(folder, networks[name], whole, formats)
        done()
    parts = [*blocks.values(), *networks.values()]
    write_manifest(folder, parts, dict(zip(networks, (*archs, *checks), strict=True)), about)
    return parts


def _network_part(name: str, arch: Arch, written: Sequence[Shape]) -> Part:
    """Returns the part of a whole network; without ``written``, it only checks predictions."""
    shapes = [shape for shape in arch_shapes(arch) if shape.kind.op != FRAME]
    size = (1, 3, arch.resolution, arch.resolution)
    used = tuple(written.index(shape) for shape in shapes) if written else ()
    return Part(name, size, math.prod(size) + arch.num_classes, None, used, not written)


def _write_new_blocks(
    folder: Path,
    model: nn.Module,
    arch: Arch,
    blocks: dict[Shape, Part],
    formats: Sequence[Format],
) -> None:
    """Writes the blocks of a network whose shapes are new, and adds them to ``blocks``."""
    backbone: Any = model.backbone
    modules = [*(block for stage in backbone.stages for block in stage), model.head]
    sizes: list[tuple[torch.Size, torch.Size]] = []
    hooks = [
        module.register_forward_hook(lambda _, args, out: sizes.append((args[0].shape, out.shape)))
        for module in modules
    ]
    with torch.no_grad():
        model(torch.zeros(1, 3, arch.resolution, arch.resolution))
    for hook in hooks:
        hook.remove()
    shapes = [shape for shape in arch_shapes(arch) if shape.kind.op != FRAME]
    for module, shape, (before, after) in zip(modules, shapes, sizes, strict=True):
        if shape in blocks:
            continue
        kind, numbers = shape.kind, "-".join(str(n) for n in shape.numbers[:3])
        name = f"{len(blocks) + 1:04d}_{kind.op}_k{kind.k}_s{kind.s}_{numbers}_{shape.size}px"
        part = Part(name, tuple(before), before.numel() + after.numel(), shape)
        _write(folder, part, _Block(module), formats)
        blocks[shape] = part


def _write(folder: Path, part: Part, network: ExportNetwork, formats: Sequence[Format]) -> None:
    generator = torch.Generator().manual_seed(0)
    size = part.input_size[1:]
    example = torch.rand((2, *size), generator=generator)
    for format in formats:
        calibration = None
        if format.quantized:
            calibration = torch.rand((MIN_IMAGES, *size), generator=generator).numpy()
        job = Job(network, example, {}, calibration)
        path = folder / f"{part.name}{format.suffix}"
        write_file(format.name, partial(format.write, job), path)


def write_manifest(
    folder: Path, parts: Sequence[Part], archs: Mapping[str, Arch], about: Mapping[str, Any]
) -> None:
    """Writes ``blocks.json``, and the csv without latencies, for the user to fill in.

    Args:
        folder: Folder of the files.
        parts: Blocks and networks.
        archs: Architectures of the networks by name.
        about: Description of the space.
    """
    rows = [
        {
            "name": part.name,
            "input": list(part.input_size),
            "elements": part.elements,
            **({"shape": block_row(part.shape)} if part.shape else {}),
            **({"arch": archs[part.name].to_yaml()} if part.name in archs else {}),
            "blocks": list(part.blocks),
            "check": part.is_check,
        }
        for part in parts
    ]
    content = {"format": _FORMAT, "about": dict(about), "parts": rows}
    with atomic_write(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with atomic_write(folder / CSV) as temporary:
        lines = ["name,ms", *(f"{part.name}," for part in parts)]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_manifest(path: Path) -> tuple[list[Part], dict[str, Arch], dict[str, Any]]:
    """Reads the parts of a folder of blocks.

    Args:
        path: Path of its ``blocks.json``.

    Returns:
        The parts, the architectures of whole networks by name, and the description of the space.

    Raises:
        BenchmarkError: The file cannot be read, or is not one of :func:`write_blocks`.
    """
    try:
        content = json.loads(read_text(path, "latency table"))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, not {_FORMAT}")
        parts = [_part(row) for row in content["parts"]]
        archs = {r["name"]: Arch.from_yaml(r["arch"]) for r in content["parts"] if "arch" in r}
        count = sum(part.shape is not None for part in parts)
        if any(not 0 <= i < count for part in parts for i in part.blocks):
            raise ValueError("a network names a block that is not there")
        if any(part.shape is None and part.name not in archs for part in parts):
            raise ValueError("a network has no architecture")
        return parts, archs, {**content["about"], "space": str(content["about"]["space"])}
    except OSError as error:
        reason = error.strerror or str(error)
        raise BenchmarkError(
            f"cannot read {path}: {reason}; it must be beside the csv, in the folder "
            "that --export-blocks DIR wrote"
        ) from error
    except (ArchError, *_MISREAD) as e:
        raise BenchmarkError(
            f"{path}: not written by --export-blocks ({type(e).__name__}: {e}); export the blocks "
            "again"
        ) from e


def _part(row: Mapping[str, Any]) -> Part:
    if not 0 < int(row["elements"]) < _MAX_ELEMENTS:
        raise ValueError(f"elements must be > 0 and < {_MAX_ELEMENTS:g}, not {row['elements']}")
    return Part(
        str(row["name"]),
        tuple(int(n) for n in row["input"]),
        int(row["elements"]),
        block_from_row({**row["shape"], "ms": 0}).shape if "shape" in row else None,
        tuple(int(i) for i in row["blocks"]),
        bool(row["check"]),
    )


def read_times(path: Path, parts: Sequence[Part]) -> dict[str, float]:
    """Reads the filled csv of a folder of blocks.

    Args:
        path: The csv, with the header ``name,ms``.
        parts: Parts of the folder.

    Returns:
        Milliseconds by name.

    Raises:
        BenchmarkError: The csv cannot be read or has another header, or a row is missing, unknown,
            there twice, or is not a name and a time > 0; the message names the row.
    """
    try:
        # spreadsheets write a byte order mark
        text = read_text(path, "latency table").lstrip("\ufeff")
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BenchmarkError(f"cannot read {path}: {reason}; give a csv of name,ms") from error
    if not rows or [cell.strip().lower() for cell in rows[0]] != ["name", "ms"]:
        header = ",".join(rows[0])[:80] if rows else ""
        raise BenchmarkError(f"{path}: row 1 is {header!r}; it must be the header 'name,ms'")
    known, times = {part.name for part in parts}, dict[str, float]()
    for number, row in enumerate(rows[1:], start=2):
        if row:
            name, ms = _time(f"{path}: row {number}", row, known, times)
            times[name] = ms
    missing = [part.name for part in parts if part.name not in times]
    if missing:
        raise BenchmarkError(
            f"{path}: no row for {missing[0]} ({len(missing)} of {len(parts)} are missing); "
            "measure all files of the folder"
        )
    return times


def _time(
    where: str, row: Sequence[str], known: set[str], times: Mapping[str, float]
) -> tuple[str, float]:
    """Returns name and milliseconds of a row of a csv."""
    if len(row) != 2:
        raise BenchmarkError(f"{where} has {len(row)} cells; it must have two, name and ms")
    name, text = (cell.strip() for cell in row)
    if name not in known:
        raise BenchmarkError(f"{where}: {name[:80]!r} is not a file of this folder; remove the row")
    if name in times:
        raise BenchmarkError(f"{where}: {name} is there twice; keep one of the rows")
    try:
        ms = float(text)
    except ValueError:
        ms = math.nan
    if not 0 < ms < _MAX_MS:
        raise BenchmarkError(
            f"{where}: the ms of {name} must be a number of milliseconds > 0, not {text[:40]!r}"
        )
    return name, ms
