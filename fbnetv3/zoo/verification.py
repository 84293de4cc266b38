"""Verifying records of weights: costs, files and, if the data set is installed, accuracies."""

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
from fbnetv3.data import DataError, EvalLoader, build_dataset
from fbnetv3.data.errors import MissingDataError
from fbnetv3.errors import FBNetError
from fbnetv3.weights.classes import class_order, other_classes
from fbnetv3.weights.detector_records import DetectorRecord, checked_file, detector_records
from fbnetv3.weights.download import check_file, known_sha256, local_path
from fbnetv3.weights.errors import RecordError
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.records import IMAGENET_CLASSES, WeightRecord, all_records
from fbnetv3.zoo.api import build_model
from fbnetv3.zoo.preprocess import transform

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
# Accepted deviation in percentage points, by the source of the stated accuracy; image decoders and
# machines differ a little.
TOLERANCE = {"quoted": 0.3, "measured": 0.1}
_DETECTOR_BATCH = 8  # images
Record = TypeVar("Record")
Check = Callable[[Record, "str | None"], tuple[str, str]]


@dataclass(frozen=True)
class VerifyRow:
    """The outcome of one check.

    Attributes:
        name: ``NAME.TAG`` of the weights.
        check: ``"cost"``, ``"hash"`` or ``"accuracy"``.
        status: ``"ok"``, ``"failed"`` or ``"skipped"``.
        detail: The compared values, or the reason why the check was skipped or failed.
    """

    name: str
    check: str
    status: str
    detail: str


def verify(pattern: str = "*", data: str | None = None) -> list[VerifyRow]:
    """Checks the records of weights: the hashes of their files, accuracies, classifiers' costs.

    Nothing is downloaded. Checks of files that are not in the cache are skipped, and so are figures
    that a record does not state, accuracies on data sets that are not installed, and accuracies of
    detectors without detectron2. A packaged file that is missing, and a data set ``data`` that is
    not installed, are failures.

    Args:
        pattern: Shell-style pattern of ``NAME.TAG``.
        data: Data set for the accuracies: a registered name or, for classifiers, a path. None: the
            data set of each record.

    Raises:
        RecordError: The pattern matches no weights.
    """
    records = [r for r in all_records() if fnmatch.fnmatchcase(r.full_name, pattern)]
    detectors = [r for r in detector_records() if fnmatch.fnmatchcase(r.name, pattern)]
    if not records and not detectors:
        raise RecordError(
            f"no weights match {pattern!r}; list them with: fbnetv3-zoo list --pretrained"
        )
    checks = {"cost": _cost, "hash": _hash, "accuracy": _top1}
    detector_checks = {"hash": _detector_hash, "accuracy": _detector_ap}
    return [
        *(row for record in records for row in _rows(record.full_name, checks, record, data)),
        *(row for record in detectors for row in _rows(record.name, detector_checks, record, data)),
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


def _rounded_as(quoted: float, count: int) -> float:
    """Returns ``count`` in millions, rounded to the decimals of the quoted figure."""
    return round(count / 1e6, len(repr(quoted).partition(".")[2]))


def _cost(record: WeightRecord, data: str | None) -> tuple[str, str]:
    cost = count_cost(record.arch())
    counts = {"macs_m": cost.macs, "conv_weights_m": cost.conv_weights}
    figures = {key: getattr(record, key) for key in counts}
    quoted = {key: value for key, value in figures.items() if value is not None}
    if not quoted:
        return SKIPPED, f"no cost quoted; counted {cost.macs / 1e6:.1f}M MACs"
    wrong = [
        f"{key}: {value}M quoted, {counts[key] / 1e6}M counted"
        for key, value in quoted.items()
        if _rounded_as(value, counts[key]) != value
    ]
    if wrong:
        return FAILED, "; ".join(wrong)
    return OK, f"{cost.macs / 1e6:.1f}M MACs, all quoted digits of {', '.join(quoted)} equal"


def _hash(record: WeightRecord, data: str | None) -> tuple[str, str]:
    path = local_path(record)
    if not path.is_file():
        return (SKIPPED, "not downloaded") if record.url else (FAILED, f"{path} is missing")
    pinned = known_sha256(record)
    sha256 = check_file(path, record)
    origin = "stated" if record.sha256 else "pinned" if pinned else "not pinned yet"
    return OK, f"sha256 {sha256[:12]}... ({origin})"


def _top1(record: WeightRecord, data: str | None) -> tuple[str, str]:
    stated = record.metrics.get("top1")
    if stated is None or not local_path(record).is_file():
        return SKIPPED, "no accuracy stated" if stated is None else "not downloaded"
    if (name := _installed_dataset(record, data)) is None:
        return SKIPPED, f"data set {data or record.dataset} is not installed (FBNETV3_DATA)"
    top1 = measure_top1(record, name)
    text = f"top-1 {top1:.2f} on {name}, {stated.source} {stated.value:.2f}"
    return (OK if abs(top1 - stated.value) <= TOLERANCE[stated.source] else FAILED), text


def _installed_dataset(record: WeightRecord, data: str | None) -> str | None:
    name = data or record.dataset
    if name is None:
        return None
    try:
        build_dataset(name)
    except MissingDataError:
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
            ap = measure_ap(checked_file(record), name, Path(folder))["AP"]
    except MissingDataError:
        if data is not None:
            raise
        return SKIPPED, f"data set {name} is not installed (FBNETV3_DATA)"
    text = f"AP {ap:.2f} on {name}, {stated.source} {stated.value:.2f}"
    return (OK if abs(ap - stated.value) <= TOLERANCE[stated.source] else FAILED), text


def measure_ap(
    path: Path, dataset: str, output: Path, overrides: Sequence[str] = ()
) -> dict[str, float]:
    """Measures the accuracy of a detector on a data set. Needs detectron2.

    Args:
        path: Weights file that training exported, or a packaged one.
        dataset: Registered name of the data set.
        output: Folder for the files that an evaluation writes.
        overrides: ``KEY, VALUE, ...`` that replace values of the config in the file.

    Returns:
        ``AP`` and ``AP50`` in percent.

    Raises:
        FBNetError: The file is no detector, the data set is not installed or has no box, or a value
            of the config is not allowed.
    """
    from fbnetv3.config import get_cfg
    from fbnetv3.detection.detector import config_from_metadata
    from fbnetv3.training import evaluate

    cfg = get_cfg()
    cfg.merge_from_other_cfg(config_from_metadata(read_tensors(path)[1], path))
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = str(path), str(output)
    cfg.DATASETS.TEST, cfg.TEST.BATCH_SIZE = (dataset,), _DETECTOR_BATCH
    cfg.merge_from_list(list(overrides))
    cfg.freeze()
    scores = evaluate(cfg)
    if "bbox/AP" not in scores:
        raise DataError(f"data set {dataset} has no box to score; name one with boxes")
    return {name: scores[f"bbox/{name}"] for name in ("AP", "AP50")}


@torch.inference_mode()
def measure_top1(record: WeightRecord, data: str, batch_size: int = 32) -> float:
    """Measures the top-1 accuracy of weights, in percent.

    Args:
        record: Record of the weights, which are downloaded if necessary.
        data: Registered name or path of the data set.
        batch_size: Number of images of a forward pass.

    Raises:
        DataError: The data set is not installed, or has other classes.
        DownloadError: The weights cannot be downloaded, or their file is damaged.
    """
    dataset = build_dataset(data)
    # Without comparable names (see read_weights in weights/load.py), the data's order is assumed.
    is_imagenet = record.classes == IMAGENET_CLASSES
    saved = dataset.classes if record.classes is None or is_imagenet else record.classes
    order = class_order(saved, dataset.classes)
    if order is None:
        difference = other_classes(saved, dataset.classes)
        raise DataError(f"data set {data} does not fit {record.full_name}: {difference}")
    if len(dataset.classes) != record.num_classes:
        raise DataError(
            f"data set {data} has {len(dataset.classes)} classes, {record.full_name} has "
            f"{record.num_classes}; use the data set of the record, {record.dataset}"
        )
    model = build_model(record.full_name, pretrained=True).eval()
    loader = EvalLoader(
        dataset,
        transform(record.full_name),
        batch_size=batch_size,
        num_workers=min(2, os.cpu_count() or 1),
    )
    correct = 0
    for images, labels in loader:
        correct += int((model(images)[:, order].argmax(1) == labels).sum())
    return 100.0 * correct / len(dataset)
