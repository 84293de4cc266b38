"""Records of detectors: their names, files and measured accuracy."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from fbnetv3.errors import did_you_mean
from fbnetv3.io import sha256_of
from fbnetv3.plain_yaml import parse_mapping
from fbnetv3.weights.errors import DownloadError, RecordError
from fbnetv3.weights.packaged import copy_weights, missing_weights, package_dir
from fbnetv3.weights.records import Metric

_FILE = "detectors.yaml"


@dataclass(frozen=True)
class DetectorRecord:
    """The weights of a detector. Their file contains its config and classes.

    Attributes:
        name: ``NAME.TAG``, such as ``retinanet_fbnetv3_a0.bccd``.
        path: Path of the file, relative to ``model_zoo/weights``.
        sha256: Hash of the file, 64 hexadecimal digits.
        dataset: Data set of the metrics.
        metrics: ``AP`` and ``AP50``, in percent.
        licence: Licence of the weights.
        note: How the weights were trained.
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
    """Returns the records of all detectors."""
    text = resources.files("fbnetv3.weights").joinpath("records", _FILE).read_text("utf-8")
    return tuple(_record(entry) for entry in parse_mapping(text)["detectors"])


def _record(entry: Mapping[str, object]) -> DetectorRecord:
    values = dict(entry)
    metrics = values.pop("metrics")
    assert isinstance(metrics, Mapping)
    return DetectorRecord(metrics={k: Metric(**m) for k, m in metrics.items()}, **values)  # type: ignore[arg-type]


def is_detector_name(name: str) -> bool:
    """Whether a name is that of a detector: it begins with ``retinanet_`` or ``faster_rcnn_``."""
    return name.startswith(("retinanet_", "faster_rcnn_"))


def find_detector(name: str) -> DetectorRecord:
    """Returns the record of a detector.

    Args:
        name: ``NAME.TAG``.

    Raises:
        RecordError: There is no such detector; the message lists those that exist.
    """
    known = {record.name: record for record in detector_records()}
    if name not in known:
        names = ", ".join(known) or "none"
        hint = did_you_mean(name, known)
        raise RecordError(f"unknown detector {name!r}{hint}; available: {names}")
    return known[name]


def packaged_file(record: DetectorRecord) -> Path:
    """Returns the path of a detector's weights, whether or not they are installed."""
    return package_dir() / record.path


def checked_file(record: DetectorRecord) -> Path:
    """Returns the path of a detector's weights after checking their sha256.

    Raises:
        DownloadError: The file is damaged or missing.
    """
    path = packaged_file(record)
    if not path.is_file():
        raise DownloadError(missing_weights(path))
    if sha256_of(path) != record.sha256:
        raise DownloadError(f"weights {path} are damaged; {copy_weights(path)}")
    return path
