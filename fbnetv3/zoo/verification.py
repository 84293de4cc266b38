"""Checking what the records say: costs, files and, where the data is at hand, accuracies."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch

from fbnetv3.arch import count_cost
from fbnetv3.data import DataError
from fbnetv3.errors import FBNetError
from fbnetv3.weights.detector_records import DetectorRecord, checked_file, detector_records
from fbnetv3.weights.download import check_file, known_sha256, local_path
from fbnetv3.weights.errors import RecordError
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.records import WeightRecord, all_records

_BATCH = 8


def measure_ap(
    path: Path, dataset: str, output: Path, overrides: Sequence[str] = ()
) -> dict[str, float]:
    """Returns AP and AP50 in percent of a detector's file on a data set. Needs detectron2.

    Args:
        path: that training exported, or a packaged one.
        dataset: a registered name.
        output: folder of what an evaluation writes.
        overrides: of the file's config, ``KEY, VALUE, ...``.
    """
    from fbnetv3.config import get_cfg
    from fbnetv3.detection.detector import config_from_metadata
    from fbnetv3.training import evaluate

    cfg = get_cfg()
    cfg.merge_from_other_cfg(config_from_metadata(read_tensors(path)[1], path))
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = str(path), str(output)
    cfg.DATASETS.TEST, cfg.TEST.BATCH_SIZE = (dataset,), _BATCH
    cfg.merge_from_list(list(overrides))
    cfg.freeze()
    scores = evaluate(cfg)
    return {name: scores[f"bbox/{name}"] for name in ("AP", "AP50")}


OK, FAILED, SKIPPED = "ok", "failed", "skipped"
# percent of top-1 that other image decoders and other machines may make
TOLERANCE = {"quoted": 0.3, "measured": 0.1}
Record = TypeVar("Record")
Check = Callable[[Record, "str | None"], tuple[str, str]]


@dataclass(frozen=True)
class VerifyRow:
    """The outcome of one check.

    Args:
        name: ``NAME.TAG``.
        check: ``"cost"``, ``"hash"`` or ``"accuracy"``.
        status: ``"ok"``, ``"failed"`` or ``"skipped"``.
        detail: what was compared, or why it was skipped.
    """

    name: str
    check: str
    status: str
    detail: str


def verify(pattern: str = "*", data: str | None = None) -> list[VerifyRow]:
    """Re-checks every record: its cost, its file's hash, its accuracy.

    Nothing is downloaded: a file that is not in the cache or the package is skipped, and so is
    an accuracy whose data set is not there.

    Args:
        pattern: shell-style, over ``NAME.TAG``.
        data: data set to measure the accuracy on, a registered name or a path; None is the one
            that each record names, where it is found.

    Raises:
        RecordError: no record matches.
    """
    records = [r for r in all_records() if fnmatch.fnmatchcase(r.full_name, pattern)]
    detectors = [r for r in detector_records() if fnmatch.fnmatchcase(r.name, pattern)]
    if not records and not detectors:
        raise RecordError(f"no weights match {pattern!r}; list them with: fbnetv3-zoo list")
    checks = {"cost": _cost, "hash": _hash, "accuracy": _accuracy}
    of_detectors = {"hash": _detector_hash, "accuracy": _detector_ap}
    return [
        *(row for record in records for row in _rows(record.full_name, checks, record, data)),
        *(row for record in detectors for row in _rows(record.name, of_detectors, record, data)),
    ]


def _rows(
    name: str, checks: Mapping[str, Check[Record]], record: Record, data: str | None
) -> Iterator[VerifyRow]:
    for kind, check in checks.items():
        try:
            status, detail = check(record, data)
        except FBNetError as error:
            status, detail = FAILED, str(error)
        yield VerifyRow(name, kind, status, detail)


def _as_printed(count: int, quoted: float) -> float:
    """Returns ``count`` in millions with as many digits as the quoted figure has."""
    return round(count / 1e6, len(repr(quoted).partition(".")[2]))


def _cost(record: WeightRecord, data: str | None) -> tuple[str, str]:
    cost = count_cost(record.arch())
    counts = {"macs_m": cost.macs, "conv_weights_m": cost.conv_weights}
    quoted = {key: getattr(record, key) for key in counts}
    stated = {key: value for key, value in quoted.items() if value is not None}
    if not stated:
        return SKIPPED, f"no cost quoted; counted {cost.macs / 1e6:.1f}M MACs"
    wrong = [
        f"{key}: {value}M quoted, {counts[key] / 1e6}M counted"
        for key, value in stated.items()
        if _as_printed(counts[key], value) != value
    ]
    if wrong:
        return FAILED, "; ".join(wrong)
    return OK, f"{cost.macs / 1e6:.1f}M MACs, {', '.join(stated)} equal to the digit"


def _hash(record: WeightRecord, data: str | None) -> tuple[str, str]:
    path = local_path(record)
    if not path.is_file():
        return (SKIPPED, "not downloaded") if record.url else (FAILED, f"{path} is missing")
    known = known_sha256(record)
    found = check_file(path, record)
    origin = "stated" if record.sha256 else "pinned" if known else "not pinned yet"
    return OK, f"sha256 {found[:12]}... ({origin})"


def _accuracy(record: WeightRecord, data: str | None) -> tuple[str, str]:
    quoted = record.metrics.get("top1")
    if quoted is None or not local_path(record).is_file():
        return SKIPPED, "no accuracy stated" if quoted is None else "not downloaded"
    if (name := _data_at_hand(record, data)) is None:
        return SKIPPED, f"data set {data or record.dataset} is not at hand (FBNETV3_DATA)"
    top1 = measure_top1(record, name)
    text = f"top-1 {top1:.2f} on {name}, {quoted.source} {quoted.value:.2f}"
    return (OK if abs(top1 - quoted.value) <= TOLERANCE[quoted.source] else FAILED), text


def _data_at_hand(record: WeightRecord, data: str | None) -> str | None:
    from fbnetv3.data import DataError, build_dataset

    name = data or record.dataset
    if name is None:
        return None
    try:
        build_dataset(name)
    except DataError:
        if data is not None:
            raise
        return None
    return name


def _detector_hash(record: DetectorRecord, data: str | None) -> tuple[str, str]:
    checked_file(record)
    return OK, f"sha256 {record.sha256[:12]}... (stated)"


def _detector_ap(record: DetectorRecord, data: str | None) -> tuple[str, str]:
    if importlib.util.find_spec("detectron2") is None:
        return SKIPPED, "detectron2 is not installed"
    name = data or record.dataset
    stated = record.metrics["AP"]
    try:
        with TemporaryDirectory() as folder:
            found = measure_ap(checked_file(record), name, Path(folder))["AP"]
    except DataError:
        if data is not None:
            raise
        return SKIPPED, f"data set {name} is not at hand (FBNETV3_DATA)"
    text = f"AP {found:.2f} on {name}, {stated.source} {stated.value:.2f}"
    return (OK if abs(found - stated.value) <= TOLERANCE[stated.source] else FAILED), text


@torch.inference_mode()
def measure_top1(record: WeightRecord, data: str, batch_size: int = 32) -> float:
    """Measures a record's top-1 accuracy.

    Args:
        record: whose file is at hand or can be downloaded.
        data: registered name or path of the data set.
        batch_size: images a step.

    Returns:
        In percent.
    """
    from fbnetv3.data import DataError, EvalLoader, build_dataset
    from fbnetv3.zoo.api import get, transform

    dataset = build_dataset(data)
    if len(dataset.classes) != record.num_classes:
        raise DataError(
            f"data set {data} has {len(dataset.classes)} classes, {record.full_name} has "
            f"{record.num_classes}; choose the one that the record names: {record.dataset}"
        )
    model = get(record.full_name, pretrained=True).eval().to(memory_format=torch.channels_last)
    workers = min(2, os.cpu_count() or 1)
    loader = EvalLoader(
        dataset, transform(record.full_name), batch_size=batch_size, num_workers=workers
    )
    right = 0
    for images, labels in loader:
        right += int((model(images).argmax(1) == labels).sum())
    return 100.0 * right / len(dataset)
