"""Accuracies and costs of networks of the zoo, of trainings and of other papers, to compare."""

from __future__ import annotations

import csv
import json
import math
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from fbnetv3.arch import count_cost
from fbnetv3.plain_yaml import parse_mapping
from fbnetv3.weights.errors import RecordError
from fbnetv3.weights.records import all_records
from fbnetv3.zoo.runs import read_run

IMAGENET = "imagenet_val"
RUNS = "runs"
# Group of trainings that were scored on another data set: this text, then that data set's name
_ELSEWHERE = f"{RUNS}, on "


@dataclass(frozen=True)
class Point:
    """A network with its accuracy and its cost.

    Attributes:
        name: Name of the network.
        group: Where the figures come from, such as ``zoo, quoted``.
        macs: Multiply-adds for one image.
        top1: Top-1 accuracy in percent.
        latency_ms: Milliseconds for one image; None: not recorded.
    """

    name: str
    group: str
    macs: float
    top1: float
    latency_ms: float | None = None


def zoo_points(dataset: str = IMAGENET) -> list[Point]:
    """Returns the classifiers of the zoo that have a top-1 accuracy on a data set."""
    return [
        Point(
            r.full_name, f"zoo, {r.metrics['top1'].source}", count_cost(r.arch()).macs, top1.value
        )
        for r in all_records()
        if (top1 := r.metrics.get("top1")) is not None and r.dataset == dataset
    ]


def peers() -> list[Point]:
    """Returns published networks with their quoted accuracies on ImageNet, from ``peers.yaml``."""
    text = resources.files("fbnetv3.zoo").joinpath("peers.yaml").read_text(encoding="utf-8")
    rows = parse_mapping(text)["peers"]
    return [Point(r["name"], "peers, quoted", 1e6 * r["macs_m"], r["top1"]) for r in rows]


def run_point(folder: str | os.PathLike[str], dataset: str = IMAGENET) -> Point:
    """Returns the network of a finished training, with the accuracy of its averaged (EMA) weights.

    Without averaged weights, it has the accuracy of the raw ones.

    Args:
        folder: OUTPUT_DIR of the training.
        dataset: Data set of the accuracies to compare with. If the training was scored on another
            data set, the group of the point names that data set.

    Raises:
        FBNetError: The folder holds no finished training of an FBNet classifier, or the training
            has no top-1 accuracy.
    """
    run = read_run(folder)
    top1 = run.top1 if run.top1_ema is None else run.top1_ema
    if top1 is None:
        raise RecordError(f"{folder} has no top-1 accuracy; train with DATASETS.TEST")
    group = RUNS if run.dataset in (None, dataset) else f"{_ELSEWHERE}{run.dataset}"
    return Point(run.name, group, run.macs, top1)


def warnings(runs: Iterable[Point], dataset: str) -> list[str]:
    """Returns one line for each training that was scored on another data set than ``dataset``."""
    others = [(p.name, p.group.removeprefix(_ELSEWHERE)) for p in runs if p.group != RUNS]
    return [
        f"{name} was scored on {other}: do not compare it with accuracies on {dataset}; "
        f"--data {shlex.quote(other)} leaves out the zoo's accuracies on {dataset}"
        for name, other in others
    ]


def csv_points(path: str | os.PathLike[str]) -> list[Point]:
    """Returns the networks of a csv with the columns name, macs, top1 and, if known, latency_ms.

    Raises:
        RecordError: The file cannot be read, a row lacks a column, or a value is no finite number.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [_csv_point(row, Path(path).stem) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RecordError(
            f"{path}: {error!r}; allowed: a csv with the columns name, macs and top1 (percent), "
            "and latency_ms if it is known"
        ) from None


def _csv_point(row: Mapping[str, str], group: str) -> Point:
    texts = [row["macs"], row["top1"], *filter(None, [row.get("latency_ms")])]
    macs, top1, *latency = map(float, texts)
    if not row["name"] or not all(map(math.isfinite, (macs, top1, *latency))):
        raise ValueError(f"a row without a name, or with a number that is not finite: {dict(row)}")
    return Point(row["name"], group, macs, top1, latency[0] if latency else None)


def with_latencies(points: list[Point], path: str | os.PathLike[str]) -> list[Point]:
    """Returns points with the latencies of a json that ``fbnetv3-benchmark --json`` wrote.

    Args:
        points: Networks. A network takes the latency of its name, or of the part before the first
            dot, which is the architecture in names of the zoo. If the file has neither, the network
            keeps its latency.
        path: The json. Its latencies of one image by networks with folded batch norms are used.

    Raises:
        RecordError: The file cannot be read, or is no such json.
    """
    try:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)["rows"]
        times = dict(_latencies(rows))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path}: {error!r}; give a file of fbnetv3-benchmark --json") from None
    names = {point.name: point.name.split(".")[0] for point in points}
    return [
        replace(p, latency_ms=times.get(p.name, times.get(names[p.name], p.latency_ms)))
        for p in points
    ]


def _latencies(rows: list[Mapping[str, object]]) -> Iterator[tuple[str, float]]:
    for row in rows:
        if (row["measure"], row["variant"], row["batch"]) == ("latency", "deploy", 1):
            yield str(row["model"]), float(str(row["value"]))
