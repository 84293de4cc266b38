"""Records of packaged detectors: their names, files and measured accuracy."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from fbnetv3.errors import did_you_mean
from fbnetv3.plain_yaml import parse_mapping
from fbnetv3.weights.download import missing_weights, package_dir
from fbnetv3.weights.errors import DownloadError, RecordError
from fbnetv3.weights.files import sha256_of
from fbnetv3.weights.records import Metric

_FILE = "detectors.yaml"


@dataclass(frozen=True)
class DetectorRecord:
    """One detector's weights; the file itself tells its config and classes.

    Attributes:
        name: ``NAME.TAG``, as ``retinanet_fbnetv3_a0.bccd``.
        path: of the packaged file, relative to ``fbnetv3.model_zoo/weights``.
        sha256: of the file.
        dataset: that the metrics are of.
        metrics: ``AP`` and ``AP50``, in percent.
        licence: of the weights.
        note: how they were made.
    """

    name: str
    path: str
    sha256: str
    dataset: str
    metrics: Mapping[str, Metric]
    licence: str = "Apache-2.0"
    note: str = ""


@functools.cache
def detector_records() -> tuple[DetectorRecord, ...]:
    """Returns every record."""
    text = resources.files("fbnetv3.weights").joinpath("records", _FILE).read_text("utf-8")
    return tuple(_record(entry) for entry in parse_mapping(text)["detectors"])


def _record(entry: Mapping[str, object]) -> DetectorRecord:
    values = dict(entry)
    metrics = values.pop("metrics")
    assert isinstance(metrics, Mapping)
    return DetectorRecord(metrics={k: Metric(**m) for k, m in metrics.items()}, **values)  # type: ignore[arg-type]


def is_detector_name(name: str) -> bool:
    """Whether a name of the zoo is a detector's: ``retinanet_...`` or ``faster_rcnn_...``."""
    return name.startswith(("retinanet_", "faster_rcnn_"))


def find_detector(name: str) -> DetectorRecord:
    """Returns the record of a name.

    Raises:
        RecordError: there is no such detector.
    """
    known = {record.name: record for record in detector_records()}
    if name not in known:
        there = ", ".join(known) or "none yet"
        raise RecordError(f"no detector {name!r}{did_you_mean(name, known)}; there are: {there}")
    return known[name]


def packaged_file(record: DetectorRecord) -> Path:
    """Returns where a record's weights lie."""
    return package_dir() / record.path


def checked_file(record: DetectorRecord) -> Path:
    """Returns the file of a record's weights.

    Raises:
        DownloadError: The file is damaged or missing.
    """
    path = packaged_file(record)
    if not path.is_file():
        raise DownloadError(missing_weights(path))
    if sha256_of(path) != record.sha256:
        raise DownloadError(f"weights {path} are damaged; install fbnetv3 again")
    return path
