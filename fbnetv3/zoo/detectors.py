"""Detectors of the zoo, with their packaged weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3.requires import require_detectron2
from fbnetv3.weights.detector_records import checked_file, find_detector

if TYPE_CHECKING:
    from fbnetv3.detection.detector import Detector


def get_detector(name: str, pretrained: bool = True) -> Detector:
    """Builds a detector of the zoo. Needs detectron2.

    Args:
        name: ``NAME.TAG`` of a packaged detector, such as ``retinanet_fbnetv3_a0.bccd``.
        pretrained: Whether to load its weights.

    Raises:
        RecordError: The zoo has no such detector.
        DownloadError: The packaged file is missing or damaged.
        MissingPackageError: detectron2 is not installed.
    """
    return detector_of(checked_file(find_detector(name)), pretrained)


def detector_of(file: Path, pretrained: bool = True) -> Detector:
    """Builds the detector that a file of weights describes. Needs detectron2.

    Args:
        file: File of weights that a training exported.
        pretrained: Whether to load its weights.

    Raises:
        WeightsFileError: The file is damaged, or holds no detector.
        MissingPackageError: detectron2 is not installed.
    """
    require_detectron2()
    # detectron2 is optional
    from fbnetv3.detection.detector import detector_from_file

    return detector_from_file(file, pretrained=pretrained)
