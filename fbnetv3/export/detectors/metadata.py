"""What an exported detector says about itself: preprocessing, classes, version, hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fbnetv3.detection.detector import Detector
from fbnetv3.export.detectors.network import DetectorNetwork
from fbnetv3.export.metadata import weights_hash
from fbnetv3.version import package_version


def detector_metadata(detector: Detector, network: DetectorNetwork) -> dict[str, str]:
    """Returns the metadata of an exported detector; every value is a string, most are JSON.

    The keys are ``task`` (detection), ``source``, ``classes``, ``short_edge`` and ``max_size``
    (pixels: images are resized, keeping their shape, such that the shorter side has ``short_edge``,
    or fewer if the longer one would exceed ``max_size``; 0: no resizing), ``interpolation``,
    ``input`` and ``output`` (what the file takes and returns), ``mean`` and ``std`` (RGB, which the
    graph applies), ``score_threshold``, ``nms_threshold`` and ``max_detections`` (of the graph),
    ``fbnetv3`` (version) and ``weights_sha256``.
    """
    unit = 255.0 if network.input_type == "uint8" else 1.0
    pixels = "uint8 in 0..255" if network.input_type == "uint8" else "float32 in 0..1"
    mean, std = ((values.flatten() / unit).tolist() for values in (network.mean, network.std))
    values: Mapping[str, Any] = {
        "classes": list(detector.classes),
        "short_edge": detector.short_edge,
        "max_size": detector.max_size,
        "mean": mean[::-1] if network.is_bgr else mean,
        "std": std[::-1] if network.is_bgr else std,
        "score_threshold": network.score_threshold,
        "nms_threshold": network.nms_threshold,
        "max_detections": network.max_detections,
    }
    return {
        "task": "detection",
        "source": detector.source,
        "input": f"RGB, 1 x 3 x H x W, {pixels}; normalised and padded in the graph",
        "output": "boxes (N x 4: left, top, right, bottom in pixels of the input), scores (N), "
        "classes (N)",
        "interpolation": "bilinear",
        "fbnetv3": package_version(),
        "weights_sha256": weights_hash(detector.model),
        **{key: json.dumps(value) for key, value in values.items()},
    }
