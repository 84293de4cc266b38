"""Files of detectors give the boxes of the detector, and a wrong file is caught."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.detector import Detector
from fbnetv3.export.detectors import formats
from fbnetv3.export.detectors.check import (
    average_precision,
    compare,
    compare_quantized,
    in_image,
    in_torch,
)
from fbnetv3.export.detectors.data import pixels_of
from fbnetv3.export.detectors.formats import DETECTOR_FORMATS, check_formats
from fbnetv3.export.detectors.job import Boxes, RunDetector
from fbnetv3.export.detectors.metadata import detector_metadata
from fbnetv3.export.detectors.network import DetectorNetwork
from fbnetv3.export.detectors.run import DetectorOptions, ExportedDetector, export_detector
from fbnetv3.export.errors import ExportError
from tests.export.detectors.conftest import RESNET_18, make_detector

Pictures = list[Image.Image]


def export(detector: Detector, folder: Path, *names: str, **options: Any) -> list[ExportedDetector]:
    calibrated = "calibration" in options
    chosen = check_formats(names, calibrated=calibrated)
    return list(export_detector(detector, chosen, folder, "net", DetectorOptions(**options)))


def closest(actual: Boxes, expected: dict[str, torch.Tensor]) -> list[int]:
    """Returns the index of the file's object for each one of torch; equal scores may be swapped."""
    distances = np.abs(actual.boxes[None] - expected["boxes"].numpy()[:, None]).max(2)
    distances[actual.classes[None] != expected["labels"].numpy()[:, None]] = np.inf
    order: list[int] = distances.argmin(1).tolist()
    assert sorted(order) == list(range(len(actual.scores)))
    return order


def check_file(
    exported: ExportedDetector, detector: Detector, pictures: Pictures, kind: str = "float"
) -> Any:
    """Returns the loaded file, as a pt2 file takes long to load."""
    network = DetectorNetwork(detector, kind)
    loaded = DETECTOR_FORMATS[exported.format].load(exported.path)
    run = in_image(loaded, detector, network)
    for picture in pictures:
        (expected,) = detector([picture])
        assert len(expected["boxes"]) > 5
        actual = run(picture)
        assert (np.diff(actual.scores) <= 0).all()
        order = closest(actual, expected)
        boxes, scores, classes = (values[order] for values in actual)
        np.testing.assert_allclose(boxes, expected["boxes"].numpy(), atol=0.01)
        np.testing.assert_allclose(scores, expected["scores"].numpy(), atol=1e-4)
        assert classes.tolist() == expected["labels"].tolist()
    assert exported.box_difference < 0.01
    assert exported.milliseconds > 0
    return loaded


@pytest.fixture(scope="module")
def network(detector: Detector) -> DetectorNetwork:
    return DetectorNetwork(detector)


@pytest.fixture(scope="module")
def onnx_file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> ExportedDetector:
    (exported,) = export(detector, tmp_path_factory.mktemp("exported"), "onnx")
    return exported


def test_an_onnx_file_gives_the_boxes_of_the_detector(
    onnx_file: ExportedDetector, detector: Detector, pictures: Pictures
) -> None:
    check_file(onnx_file, detector, pictures)


@pytest.mark.slow
def test_other_files_give_the_boxes_of_the_detector(pictures: Pictures, tmp_path: Path) -> None:
    detector = make_detector(tmp_path, INPUT__MIN_SIZE_TEST=140, INPUT__MAX_SIZE_TEST=400)
    for exported in export(detector, tmp_path / "out", "pt2", "torchscript"):
        run, network = check_file(exported, detector, pictures), DetectorNetwork(detector)
        for height, width in ((40, 400), (300, 33)):  # elongated images
            pixels = network.example(height, width)
            expected = network(pixels)
            for actual, output in zip(run(pixels.numpy()), expected, strict=True):
                np.testing.assert_allclose(actual, output.numpy(), atol=0.01)
    (exported,) = export(detector, tmp_path / "out", "onnx", input_type="uint8")
    check_file(exported, detector, pictures, "uint8")


@pytest.mark.slow
def test_a_file_of_a_detector_with_a_resnet(pictures: Pictures, tmp_path: Path) -> None:
    detector = make_detector(tmp_path, **RESNET_18)
    (exported,) = export(detector, tmp_path / "out", "onnx")
    check_file(exported, detector, pictures)


@pytest.mark.parametrize(
    "changes",
    [
        {"INPUT__FORMAT": "BGR"},
        {"MODEL__PIXEL_MEAN": [100.0, 110.0, 120.0], "MODEL__PIXEL_STD": [1.0, 50.0, 60.0]},
        {"MODEL__ANCHOR_GENERATOR__OFFSET": 0.5},
        {"MODEL__RETINANET__BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0)},
        {"MODEL__RETINANET__NMS_THRESH_TEST": 0.3, "TEST__DETECTIONS_PER_IMAGE": 7},
        {"MODEL__RETINANET__TOPK_CANDIDATES_TEST": 20},
        {"MODEL__RETINANET__SCORE_THRESH_TEST": 0.55},
        {"MODEL__RETINANET__NORM": "", "MODEL__FPN__FUSE_TYPE": "avg", "MODEL__FPN__NORM": "GN"},
        {"INPUT__MIN_SIZE_TEST": 0},
    ],
)
def test_the_network_follows_the_config(
    changes: dict[str, Any], pictures: Pictures, tmp_path: Path
) -> None:
    if changes.get("MODEL__FPN__NORM") == "GN":
        changes = {**changes, "MODEL__FPN__OUT_CHANNELS": 32}
    other = make_detector(tmp_path, **changes)
    network = DetectorNetwork(other)
    difference = compare(eager(network, other), other, network, pictures)
    assert difference.objects > 5
    assert difference.box < 0.01


def eager(network: DetectorNetwork, detector: Detector) -> Callable[[Image.Image], Boxes]:
    def run(pixels: np.ndarray) -> Boxes:
        return Boxes(*(output.numpy() for output in network(torch.from_numpy(pixels))))

    return in_image(run, detector, network)


def set_buffer(name: str, change: Callable[[Any], Any]) -> Callable[[DetectorNetwork], None]:
    return lambda network: network.register_buffer(name, change(network.get_buffer(name)))


def set_value(name: str, value: object) -> Callable[[DetectorNetwork], None]:
    return lambda network: setattr(network, name, value)


@pytest.mark.parametrize(
    "mutate",
    [
        set_buffer("cells0", lambda cells: cells * 1.05),
        set_buffer("mean", lambda mean: mean + 0.1),
        set_buffer("std", lambda std: std * 1.1),
        set_value("is_bgr", True),
        set_value("offset", 0.5),
        set_value("strides", (9, 16, 32, 64, 128)),
        set_value("box_weights", (1.0, 1.0, 1.0, 1.2)),
        set_value("nms_threshold", 0.3),
        set_value("score_threshold", 0.55),
        set_value("max_detections", 5),
        set_value("topk_candidates", 3),
        set_value("divisor", 64),
    ],
)
def test_a_wrong_network_is_caught(
    mutate: Callable[[DetectorNetwork], None],
    network: DetectorNetwork,
    detector: Detector,
    pictures: Pictures,
) -> None:
    wrong = copy.deepcopy(network)
    mutate(wrong)
    with pytest.raises(ExportError):
        compare(eager(wrong, detector), detector, network, pictures)


def test_a_wrong_file_is_removed(
    onnx_file: ExportedDetector, detector: Detector, tmp_path: Path
) -> None:
    plain = DETECTOR_FORMATS["onnx"]

    def write(job: Any, path: Path) -> None:
        model = onnx.load(str(onnx_file.path))
        (tensor,) = (t for t in model.graph.initializer if t.name == "head.bbox_pred.weight")
        values = numpy_helper.to_array(tensor) * np.float32(1.5)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        onnx.save(model, str(path))

    wrong = formats.DetectorFormat("onnx", ".onnx", write, plain.load, plain.problem)
    message = r"^format onnx: its runtime computes (boxes that differ by [\d.]+ pixels|\d+ objects)"
    with pytest.raises(ExportError, match=message):
        list(export_detector(detector, [wrong], tmp_path, "net", DetectorOptions()))
    assert not list(tmp_path.iterdir())


def test_a_file_that_its_runtime_cannot_run_is_removed(detector: Detector, tmp_path: Path) -> None:
    def fail(pixels: object) -> Boxes:
        raise AssertionError("Guard failed: height\nmore")

    plain = DETECTOR_FORMATS["onnx"]
    wrong = formats.DetectorFormat(
        "onnx", ".onnx", lambda job, path: path.touch(), lambda path: fail, plain.problem
    )
    message = r"^format onnx: its runtime fails \(AssertionError: Guard failed: height\); the file"
    with pytest.raises(ExportError, match=message):
        list(export_detector(detector, [wrong], tmp_path, "net", DetectorOptions()))
    assert not list(tmp_path.iterdir())


def noise(folder: Path, sizes: Sequence[tuple[int, int]]) -> CocoDataset:
    """Writes images with a square each, and returns them as a data set."""
    generator, records = np.random.default_rng(0), []
    for number, (width, height) in enumerate(sizes, 1):
        pixels = generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        file = folder / f"{number}.png"
        Image.fromarray(pixels).resize((width, height)).save(file)
        item = {"bbox": [10, 10, 20, 30], "area": 600, "iscrowd": 0, "category_id": 0}
        record = {"file_name": str(file), "image_id": number, "height": height, "width": width}
        records.append({**record, "annotations": [item]})
    return CocoDataset("noise", folder, ["square", "disc"], [1, 2], records)


def test_a_file_stays_if_only_its_score_is_missing(detector: Detector, tmp_path: Path) -> None:
    plain = DETECTOR_FORMATS["onnx"]

    def load(path: Path) -> RunDetector:
        run = plain.load(path)

        def run_small(pixels: np.ndarray) -> Boxes:
            if pixels.shape[3] == 160:
                raise RuntimeError("no memory")
            return run(pixels)

        return run_small

    (tmp_path / "images").mkdir()
    # the last image is scored, but not among the eight that are compared
    data = noise(tmp_path / "images", [(80, 80)] * 12 + [(160, 80)])
    half = formats.DetectorFormat("onnx", ".onnx", plain.write, load, plain.problem)
    torch_itself, *_ = export_detector(detector, [], tmp_path, "net", DetectorOptions(data=data))
    assert torch_itself.ap is not None
    message = r"^format onnx: .*net.onnx passed the .* scored on noise \(RuntimeError: no memory\)"
    with pytest.raises(ExportError, match=message):
        list(export_detector(detector, [half], tmp_path, "net", DetectorOptions(data=data)))
    assert {path.name for path in tmp_path.iterdir()} == {"images", "net.onnx"}


def test_onnx_runtime_alone_reads_preprocessing_and_classes(onnx_file: ExportedDetector) -> None:
    session = onnxruntime.InferenceSession(str(onnx_file.path))
    (source,), about = session.get_inputs(), session.get_modelmeta().custom_metadata_map
    assert (source.name, source.shape) == ("images", [1, 3, "height", "width"])
    assert [output.name for output in session.get_outputs()] == ["boxes", "scores", "classes"]
    keys = ("classes", "short_edge", "max_size", "max_detections", "score_threshold")
    assert [json.loads(about[k]) for k in keys] == [["square", "disc"], 80, 160, 30, 0.05]
    assert len(about["weights_sha256"]) == 64


def test_metadata_are_those_of_rgb_pixels(tmp_path: Path) -> None:
    detector = make_detector(tmp_path, INPUT__FORMAT="BGR", MODEL__PIXEL_STD=[51.0, 52.0, 53.0])
    for kind in ("float", "uint8"):
        about = detector_metadata(detector, DetectorNetwork(detector, kind))
        std = np.asarray([53, 52, 51]) / 255
        np.testing.assert_allclose(json.loads(about["std"]), std, rtol=1e-6)


def moved(run: Callable[[Image.Image], Boxes], change: Callable[[Boxes], Boxes]) -> Any:
    return lambda image: change(run(image))


def swap_first_two(found: Boxes) -> Boxes:
    order = [1, 0, *range(2, len(found.scores))]
    return Boxes(*(values[order] for values in found))


def without(index: int) -> Callable[[Boxes], Boxes]:
    return lambda found: Boxes(*(np.delete(values, index, 0) for values in found))


def repeated(found: Boxes) -> Boxes:
    return Boxes(*(np.concatenate([values[:1], values]) for values in found))


def test_comparison_of_objects(
    network: DetectorNetwork, detector: Detector, pictures: Pictures
) -> None:
    same = in_torch(detector)
    assert compare(same, detector, network, pictures).box == 0
    compare(moved(same, swap_first_two), detector, network, pictures)  # order follows the scores
    near = moved(same, lambda f: Boxes(f.boxes + np.float32(0.05), f.scores, f.classes))
    assert compare(near, detector, network, pictures).box == pytest.approx(0.05, rel=1e-2)
    wrong: Sequence[tuple[Callable[[Boxes], Boxes], str]] = [
        (without(0), "objects instead of"),
        (repeated, "objects instead of"),
        (lambda f: Boxes(f.boxes + np.float32(0.5), *f[1:]), "boxes that differ by 0.5 pixels"),
        (lambda f: Boxes(f.boxes, f.scores * np.float32(0.9), f.classes), "scores that differ by"),
        (
            lambda f: Boxes(f.boxes, f.scores, 1 - f.classes),
            "boxes that differ|that torch does not have",
        ),
        (lambda f: Boxes(f.boxes * np.float32("nan"), *f[1:]), "not finite"),
        (lambda f: Boxes(f.boxes[:, :3], *f[1:]), r"shapes \[\(3,\)"),
        (lambda f: Boxes(f.boxes[:0], f.scores[:0], f.classes[:0]), "0 objects instead of"),
    ]
    for change, message in wrong:
        with pytest.raises(ExportError, match=message):
            compare(moved(same, change), detector, network, pictures)
    change = moved(same, lambda f: Boxes(f.boxes, f.scores, 1 - f.classes))
    with pytest.raises(
        ExportError,
        match=r"agree with torch's: 0% of the file's and torch's objects with a score of 0\.5",
    ):
        compare_quantized(change, detector, pictures)
    assert compare_quantized(same, detector, pictures) == 1


def test_classes_of_the_data_may_have_another_order(detector: Detector, tmp_path: Path) -> None:
    image = tmp_path / "1.png"
    Image.new("RGB", (80, 80)).save(image)

    def run(_: Image.Image) -> Boxes:
        box = np.asarray([[10, 10, 30, 40]], np.float32)
        return Boxes(box, np.ones(1, np.float32), np.zeros(1, np.int64))  # a square

    for classes, ap in ((["square", "disc"], 100), (["disc", "square"], 100)):
        item = {"bbox": [10, 10, 20, 30], "area": 600, "iscrowd": 0}
        item |= {"category_id": classes.index("square")}
        record = {"file_name": str(image), "image_id": 1, "height": 80, "width": 80}
        record |= {"annotations": [item]}
        data = CocoDataset("boxes", tmp_path, classes, [7, 3], [record])
        assert average_precision(run, detector, data) == pytest.approx(ap)
    other = CocoDataset("boxes", tmp_path, ["cat"], [1], [record])
    with pytest.raises(ExportError, match="cat"):
        average_precision(run, detector, other)


def test_errors(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"'onx' is unknown; allowed: onnx, .*did you mean onnx"):
        check_formats(["onx"], calibrated=True)
    with pytest.raises(ExportError, match="executorch cannot hold a detector; allowed: onnx, "):
        check_formats(["executorch"], calibrated=True)
    with pytest.raises(ExportError, match="onnx-int8 needs images of the training set"):
        check_formats(["onnx-int8"], calibrated=False)
    with pytest.raises(ExportError, match="input 'rgb' is unknown"):
        DetectorNetwork(detector, "rgb")
    with pytest.raises(ExportError, match="Linear cannot be exported; detectors that can: Retina"):
        DetectorNetwork(Detector(torch.nn.Linear(1, 1), detector._cfg, ["a"]))
    blind = make_detector(tmp_path, bias=-30)
    with pytest.raises(ExportError, match=r"the detector sees no object .*--data"):
        compare(in_torch(blind), blind, DetectorNetwork(blind), [Image.new("RGB", (99, 80))])
    with pytest.raises(ExportError, match=r"sees no object with a score of 0\.5 or more in"):
        compare_quantized(in_torch(blind), blind, [Image.new("RGB", (99, 80))])


def test_the_detector_stays_as_it_is(detector: Detector, pictures: Pictures) -> None:
    before = {key: value.clone() for key, value in detector.model.state_dict().items()}
    network = DetectorNetwork(detector)
    pixels = pixels_of(detector, network, pictures[0])
    assert pixels.shape == (1, 3, 80, 107)
    assert pixels.dtype == np.float32
    after = detector.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
