"""Records of packaged detectors: what there is and how well it does."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import yaml

from fbnetv3.errors import did_you_mean
from fbnetv3.zoo.download import package_dir
from fbnetv3.zoo.errors import DownloadError, RecordError
from fbnetv3.zoo.files import sha256_of
from fbnetv3.zoo.records import Metric

if TYPE_CHECKING:
    from fbnetv3.detection.detector import Detector

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
    text = resources.files("fbnetv3.zoo").joinpath("records", _FILE).read_text("utf-8")
    return tuple(_record(entry) for entry in yaml.safe_load(text)["detectors"])


def _record(entry: Mapping[str, object]) -> DetectorRecord:
    values = dict(entry)
    metrics = values.pop("metrics")
    assert isinstance(metrics, Mapping)
    return DetectorRecord(metrics={k: Metric(**m) for k, m in metrics.items()}, **values)  # type: ignore[arg-type]


def is_detector_name(name: str) -> bool:
    """Whether a name of the zoo is a detector's: ``retinanet_...`` or ``faster_rcnn_...``."""
    return name.startswith(("retinanet_", "faster_rcnn_"))


def get_detector(name: str, pretrained: bool = True) -> Detector:
    """Makes a detector of the zoo. Needs detectron2.

    Args:
        name: ``NAME.TAG`` of a record.
        pretrained: load its weights.

    Raises:
        RecordError: there is no such detector.
        DownloadError: its file is damaged or missing.
    """
    from fbnetv3.detection.detector import detector_from_file

    known = {record.name: record for record in detector_records()}
    if name not in known:
        there = ", ".join(known) or "none yet"
        raise RecordError(f"no detector {name!r}{did_you_mean(name, known)}; there are: {there}")
    path = package_dir() / known[name].path
    if not path.is_file() or sha256_of(path) != known[name].sha256:
        raise DownloadError(f"{path} is missing or damaged; install fbnetv3 again")
    return detector_from_file(path, pretrained=pretrained)
