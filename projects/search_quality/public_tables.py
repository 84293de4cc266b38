"""Turns published tables of trainings into arrays for the problems of ``public_problems.py``.

    python -m projects.search_quality.public_tables nasbench_macro nas-bench-macro_cifar10.json
    python -m projects.search_quality.public_tables nasbench201 \
        metric_vals.pkl str_arch2idx.pt pixel3.pt
    python -m projects.search_quality.public_tables accel_nasbench \
        anb_dataset_jsons.tar.gz proxified-seed1.csv proxified-seed2.csv proxified-seed3.csv

The files are given by their paths, in the order of ``SOURCES``, which states for each file where it
is published, its licence and its SHA-256. This repository contains no copy of them. The arrays are
written to ``public/NAME.npz`` beside this file; git ignores this folder.

All tables have the same arrays: ``levels``, (networks, variables), the choice of each variable;
``scores``, (networks, trainings), accuracies in percent, NaN where a network has fewer trainings;
``cost``, (networks,), MACs or milliseconds; ``noise``, the standard deviation of the score of one
training, in percent, or NaN if ``scores`` has several trainings per network.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fbnetv3.errors import FBNetError
from fbnetv3.io import atomic_write

FOLDER = Path(__file__).with_name("public")
Floats = npt.NDArray[np.float64]
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""Operations of an edge of NAS-Bench-201, in the order of the levels."""
BLOCKS = 7
"""Number of blocks of a network of Accel-NASBench."""
EXPANSIONS, KERNELS, DEPTHS = (1, 4, 6), (3, 5), (1, 2, 3, 4)
"""Values of the variables of a block of Accel-NASBench; only block 5 has a depth of 4."""


class TableError(FBNetError):
    """A published file is missing, altered, or of another format."""


class Arrays(NamedTuple):
    """The arrays of a table; the docstring of this file states their shapes and units."""

    levels: npt.NDArray[np.int64]
    scores: Floats
    cost: Floats
    noise: float = float("nan")


class Source(NamedTuple):
    """A published file: its place at GitHub, its licence, and its SHA-256."""

    place: str
    licence: str
    sha256: str


def macro(path: Path) -> Arrays:
    """Reads NAS-Bench-Macro: 8 layers of one of 3 blocks, three trainings on CIFAR-10, MACs."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    names = sorted(rows)
    return Arrays(
        np.array([[int(c) for c in name] for name in names]),
        np.array([rows[name]["test_acc"] for name in names]),
        np.array([float(rows[name]["flops"]) for name in names]),
    )


def nasbench201(runs: Path, indices: Path, latencies: Path) -> Arrays:
    """Reads NAS-Bench-201: 6 edges with 5 operations each, trainings on CIFAR-100, latencies.

    Args:
        runs: Pickle of all trainings, network by network: loss (100 minus the accuracy in percent),
            duration and size. The 2 or 3 trainings of a network have the same duration and size,
            and the next network has others.
        indices: File with the index of each network, by its text, in ``runs`` and ``latencies``.
        latencies: File with the milliseconds of each network on a device.
    """
    import torch

    table = _ArraysOnly(io.BytesIO(runs.read_bytes())).load()["cifar100"]
    keys = list(zip(table["runtime"].tolist(), table["size_in_mb"].tolist(), strict=True))
    groups = [len(list(group)) for _, group in groupby(keys)]
    index: dict[str, int] = torch.load(indices, weights_only=True)
    cost = np.array(torch.load(latencies, weights_only=True), dtype=np.float64)
    if not len(groups) == len(index) == len(cost):
        raise TableError(
            f"the files describe {len(groups)}, {len(index)} and {len(cost)} networks; give the "
            "files of SOURCES, which describe 15,625 each"
        )
    scores = np.full((len(groups), max(groups)), np.nan)
    is_run = np.arange(max(groups)) < np.array(groups)[:, None]
    scores[is_run] = 100 - table["loss"]
    texts = sorted(index, key=lambda text: index[text])
    return Arrays(np.array([_operations(text) for text in texts]), scores, cost)


def _operations(text: str) -> list[int]:
    """Returns the levels of a cell such as ``|none~0|+|none~0|none~1|+|...|``."""
    edges = [edge for node in text.split("+") for edge in node.strip("|").split("|")]
    return [OPERATIONS.index(edge.split("~")[0]) for edge in edges]


class _ArraysOnly(pickle.Unpickler):
    """Reads a pickle of dictionaries and arrays, and refuses all else, which could run code."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            # numpy's own way to pickle an array; old files name a module that numpy 2 renamed
            "numpy.core.multiarray._reconstruct": np.empty(0).__reduce__()[0],
            "numpy._core.multiarray._reconstruct": np.empty(0).__reduce__()[0],
            "numpy.ndarray": np.ndarray,
            "numpy.dtype": np.dtype,
        }
        if f"{module}.{name}" not in allowed:
            raise TableError(f"the pickle contains {module}.{name}; only arrays are allowed")
        return allowed[f"{module}.{name}"]


def accel(archive: Path, *seeds: Path) -> Arrays:
    """Reads Accel-NASBench: 7 MnasNet blocks, one training on ImageNet, latency on a ZCU102.

    Args:
        archive: Archive with one json file per network. Networks without a latency are left out.
        seeds: Csv files, each with one training of the same networks. The noise is computed from
            the differences between them.
    """
    rows = []
    with tarfile.open(archive) as tar:
        for member in sorted(tar, key=lambda m: m.name):
            file = tar.extractfile(member) if member.name.endswith(".json") else None
            if file is not None:
                rows.append(json.load(file))
    costs = [row["platform_perf"]["latency_zcu102"]["latency_mean"] for row in rows]
    rows = [row for row, cost in zip(rows, costs, strict=True) if cost is not None]
    return Arrays(
        np.array([_blocks(row["architecture"]) for row in rows]),
        np.array([[row["metrics"]["val_top1"]] for row in rows]),
        np.array([cost for cost in costs if cost is not None]),
        _deviation_of([_top1(path) for path in seeds]),
    )


def _blocks(architecture: dict[str, Any]) -> list[int]:
    """Returns the levels of expansion, kernel, depth and squeeze-excite of each block."""
    levels = []
    for block in range(BLOCKS):
        e, k, d, s = (architecture[f"block{block}_{key}"] for key in ("e", "k", "l", "se"))
        levels += [EXPANSIONS.index(e), KERNELS.index(k), DEPTHS.index(d), int(s)]
    return levels


def _top1(path: Path) -> dict[tuple[str, ...], float]:
    """Returns the accuracy (column 4, from 0) of each architecture (columns 9 and later)."""
    with path.open(encoding="utf-8", newline="") as file:
        return {tuple(row[9:]): float(row[4]) for row in csv.reader(file)}


def _deviation_of(tables: Sequence[dict[tuple[str, ...], float]]) -> float:
    """Returns the pooled standard deviation between trainings of the same network."""
    common = sorted(set.intersection(*(set(table) for table in tables)))
    values = np.array([[table[network] for table in tables] for network in common])
    return float(np.sqrt(values.var(axis=1, ddof=1).mean()))


@dataclass(frozen=True)
class Table:
    """A published table: the function that reads it, and its files."""

    read: Callable[..., Arrays]
    sources: tuple[Source, ...]


_HELP = "github.com/HayeonLee/HELP (45f70eb), data/nasbench201/"
_ACCEL = "github.com/afzalxo/Accel-NASBench (4260357), "
_SEEDS = "plots/ablations_plots/csvs/proxified-seed"
SOURCES = {
    "nasbench_macro": Table(
        macro,
        (
            Source(
                "github.com/xiusu/NAS-Bench-Macro (61a2bfc), data/nas-bench-macro_cifar10.json",
                "Apache-2.0",
                "686dee8363cc21cca8c1f321ad5749454f2d9b9ca5972682e137e539bc522297",
            ),
        ),
    ),
    "nasbench201": Table(
        nasbench201,
        (
            Source(
                "github.com/nabenabe0928/constrained-tpe (2476ed0), "
                "targets/nasbench201/metric_vals.pkl",
                "Apache-2.0",
                "f912d67de5e800e7121bb9faecf596aa2a9b950d0b8432493a85607c224a2228",
            ),
            Source(
                _HELP + "str_arch2idx.pt",
                "MIT",
                "e1d7b7cc7cf51d7c3cd6f9e726e7395bea87d7ba674e26202fb8633f963aef0d",
            ),
            Source(
                _HELP + "latency/pixel3.pt",
                "MIT",
                "cf1387da12e06b1d4541ce85f3ca4869d551084e09daf4acf024b6e21a80d465",
            ),
        ),
    ),
    "accel_nasbench": Table(
        accel,
        (
            Source(
                _ACCEL + "anb_dataset/anb_dataset_jsons.tar.gz",
                "Apache-2.0",
                "3520992d42e368b7c08c99fc3f6612855b5b366bf98668a7f19d49f3131aa4ae",
            ),
            Source(
                _ACCEL + _SEEDS + "1.csv",
                "Apache-2.0",
                "ab8dfce48bc0ca59d365f5bfde70c1036112fb694a773856fb72adc45ddf5e90",
            ),
            Source(
                _ACCEL + _SEEDS + "2.csv",
                "Apache-2.0",
                "7cd2c96a6ec9c0c63a56780a700baa6dfa7df199a2d2d8281a1185c658c0b054",
            ),
            Source(
                _ACCEL + _SEEDS + "3.csv",
                "Apache-2.0",
                "301f346c34f8528864f3332af07ae0fa71746aa442f27ce03409f7ea92cfdc3a",
            ),
        ),
    ),
}


def check(path: Path, source: Source) -> None:
    """Checks that a file is the published one.

    Raises:
        TableError: If the file is missing, or its SHA-256 differs.
    """
    if not path.is_file():
        raise TableError(f"{path} is no file; fetch it from {source.place}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != source.sha256:
        raise TableError(
            f"{path} has the SHA-256 {found} instead of {source.sha256}; fetch it from "
            f"{source.place}"
        )


def write(name: str, paths: Sequence[Path], folder: Path = FOLDER) -> Path:
    """Writes the arrays of a table to ``folder/NAME.npz`` and returns this path.

    Args:
        name: A key of ``SOURCES``.
        paths: Published files of the table, in the order of its sources.
        folder: Folder of the arrays.

    Raises:
        TableError: If the files are not the published ones.
    """
    table = SOURCES[name]
    if len(paths) != len(table.sources):
        places = ", ".join(source.place for source in table.sources)
        raise TableError(f"{name} needs {len(table.sources)} files, not {len(paths)}: {places}")
    for path, source in zip(paths, table.sources, strict=True):
        check(path, source)
    arrays = table.read(*paths)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    with atomic_write(path) as temporary, Path(temporary).open("wb") as file:
        np.savez_compressed(file, **arrays._asdict())
    return path


def read(name: str, folder: Path = FOLDER) -> Arrays:
    """Returns the arrays of a table that :func:`write` wrote.

    Raises:
        TableError: If the arrays are missing; the message states the command that makes them.
    """
    path = folder / f"{name}.npz"
    if not path.is_file():
        places = ", ".join(f"{s.place} ({s.licence})" for s in SOURCES[name].sources)
        raise TableError(
            f"{path} is missing; fetch {places}, then call "
            f"`python -m projects.search_quality.public_tables {name} FILES`"
        )
    with np.load(path) as file:
        return Arrays(file["levels"], file["scores"], file["cost"], float(file["noise"]))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=tuple(SOURCES), help="table to read")
    parser.add_argument("files", nargs="+", type=Path, help="its published files, as in SOURCES")
    arguments = parser.parse_args()
    path = write(arguments.name, arguments.files)
    arrays = read(arguments.name)
    print(f"{path}: {len(arrays.levels)} networks, {arrays.levels.shape[1]} variables")


if __name__ == "__main__":
    main()
