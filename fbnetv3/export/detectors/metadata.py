"""The metadata of an exported detector: preprocessing, classes, version, hash of the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fbnetv3.detection.detector import Detector
from fbnetv3.export.detectors.network import DetectorNetwork
from fbnetv3.export.metadata import weights_hash
from fbnetv3.version import package_version


def detector_metadata(detector: Detector, network: DetectorNetwork) -> dict[str, str]:
    """Returns the metadata of an exported detector.

    Returns:
        Text by key. The texts of eight keys are JSON: ``classes``, ``short_edge`` and ``max_size``
        (pixels: images are resized, keeping their aspect ratio, such that the shorter side has
        ``short_edge`` pixels, or fewer if the longer side would exceed ``max_size``; images are not
        resized if ``short_edge`` is 0), ``mean`` and ``std`` (RGB, of pixels in [0, 1]; the graph
        normalises by them), ``score_threshold``, ``nms_threshold`` and ``max_detections`` (which
        the graph applies). The others are plain: ``task`` (detection), ``source`` (origin of the
        weights), ``input`` and ``output`` (layout and type of the tensors), ``interpolation``,
        ``fbnetv3`` (version of this package) and ``weights_sha256``.
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
