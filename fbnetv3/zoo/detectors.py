"""Records of packaged detectors: what there is and how well it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fbnetv3.detection.detector import Detector
from fbnetv3.weights.detector_records import checked_file, find_detector


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
