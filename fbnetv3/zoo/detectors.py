"""Records of packaged detectors: what there is and how well it does."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3.errors import did_you_mean
from fbnetv3.plain_yaml import parse_mapping
from fbnetv3.zoo.download import package_dir
from fbnetv3.zoo.errors import DownloadError, RecordError
from fbnetv3.zoo.files import read_tensors, sha256_of
from fbnetv3.zoo.records import Metric

if TYPE_CHECKING:
    from fbnetv3.detection.detector import Detector

_FILE = "detectors.yaml"
_BATCH = 8


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
    return tuple(_record(entry) for entry in parse_mapping(text)["detectors"])


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

    return detector_from_file(checked_file(find_detector(name)), pretrained=pretrained)


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
        DownloadError: it is damaged or missing.
    """
    path = packaged_file(record)
    if not path.is_file() or sha256_of(path) != record.sha256:
        raise DownloadError(f"{path} is missing or damaged; install fbnetv3 again")
    return path


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
    from fbnetv3.detection.detector import told_config
    from fbnetv3.engine.train import evaluate

    cfg = get_cfg()
    cfg.merge_from_other_cfg(told_config(read_tensors(path)[1], path))
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = str(path), str(output)
    cfg.DATASETS.TEST, cfg.TEST.BATCH_SIZE = (dataset,), _BATCH
    cfg.merge_from_list(list(overrides))
    cfg.freeze()
    scores = evaluate(cfg)
    return {name: scores[f"bbox/{name}"] for name in ("AP", "AP50")}
