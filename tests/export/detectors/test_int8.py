"""Detectors with 8-bit integers: which nodes compute with them, and what the file finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from fbnetv3.detection.detector import Detector
from fbnetv3.export.calibration import MIN_IMAGES
from fbnetv3.export.detectors.job import DetectorJob
from fbnetv3.export.detectors.network import DetectorNetwork
from fbnetv3.export.detectors.onnx import load, write_int8
from fbnetv3.export.errors import ExportError
from tests.export.detectors.conftest import RESNET_18, make_detector

pytestmark = pytest.mark.slow


def job(detector: Detector, images: int) -> DetectorJob:
    """Returns a detector with calibration images of several sizes."""
    network = DetectorNetwork(detector, "float")
    generator = np.random.default_rng(0)
    sizes = [(1, 3, 80, 80 + 16 * (i % 3)) for i in range(images)]
    calibration = [generator.random(size, np.float32) for size in sizes]
    return DetectorJob(network, network.example(80, 96, 0), {"x": "1"}, calibration)


@pytest.fixture(scope="module")
def file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "net.int8.onnx"
    write_int8(job(detector, MIN_IMAGES), path)
    return path


def test_all_but_the_last_layers_compute_with_integers(file: Path) -> None:
    nodes = onnx.load(str(file)).graph.node
    weights = {node.name: node.input[1] for node in nodes if node.op_type == "Conv"}
    constants = {
        name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output
    }
    in_float = {name for name, weight in weights.items() if weight not in constants}
    assert in_float
    assert all("/cls_score" in name or "/bbox_pred" in name for name in in_float)
    assert len(weights) > 2 * len(in_float)
    assert "HardSwish" not in {node.op_type for node in nodes}


def test_a_resnet_computes_with_integers(tmp_path: Path) -> None:
    write_int8(job(make_detector(tmp_path, **RESNET_18), MIN_IMAGES), tmp_path / "net.int8.onnx")
    nodes = onnx.load(str(tmp_path / "net.int8.onnx")).graph.node
    constants = {n for node in nodes if node.op_type == "DequantizeLinear" for n in node.output}
    backbone = [n.input[1] for n in nodes if n.op_type == "Conv" and "/bottom_up/" in n.name]
    assert len(backbone) >= 20
    assert constants.issuperset(backbone)


def test_the_file_finds_objects_in_images_of_any_size(file: Path) -> None:
    run = load(file)
    for height, width in ((80, 112), (96, 80)):
        boxes = run(np.random.default_rng(1).random((1, 3, height, width), np.float32))
        assert len(boxes.scores) > 5
        assert (np.diff(boxes.scores) <= 0).all()


def test_too_few_images_are_an_error(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"got {MIN_IMAGES - 1}; allowed: {MIN_IMAGES} or more"):
        write_int8(job(detector, MIN_IMAGES - 1), tmp_path / "net.int8.onnx")
