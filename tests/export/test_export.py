"""Exported files compute what the network computes, and a wrong file is caught."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from fbnetv3.arch import get_arch
from fbnetv3.arch.scaling import scale
from fbnetv3.data import ArrayDataset
from fbnetv3.data.errors import DataError
from fbnetv3.data.transforms import EvalTransform
from fbnetv3.export import formats
from fbnetv3.export.calibration import MIN_IMAGES
from fbnetv3.export.check import compare, files_of, order_of_outputs
from fbnetv3.export.errors import ExportError
from fbnetv3.export.files import write_file
from fbnetv3.export.formats import FORMATS, get_format
from fbnetv3.export.job import Run
from fbnetv3.export.network import ExportNetwork
from fbnetv3.export.run import Exported, ExportOptions, check_formats, export_classifier
from fbnetv3.modeling import build_model
from fbnetv3.zoo.classifier import Classifier
from tests.modeling.networks import with_random_statistics

SIDE, CLASSES = 32, ("cat", "dog", "owl")
# Formats whose runtimes the tests install; the others are tested where they are installed.
FAST = ["onnx", "torchscript"]
SLOW = ["pt2", "openvino", "executorch", "litert", "coreml"]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    small = scale(get_arch("fbnetv3_a0"), 0.25, 0.3)
    model = with_random_statistics(build_model(small, len(CLASSES))).eval()
    transform = EvalTransform(SIDE, 36, "bicubic", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    return Classifier(model, transform, CLASSES, "small")


@pytest.fixture(scope="module")
def data() -> ArrayDataset:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (48, 40, 40, 3), dtype=np.uint8)
    return ArrayDataset("noise", list(CLASSES), images, targets=random.integers(0, 3, 48).tolist())


def export(classifier: Classifier, folder: Path, *names: str, **options: object) -> list[Exported]:
    chosen = ExportOptions(**options)  # type: ignore[arg-type]
    chosen_formats = check_formats(names, chosen)
    return list(export_classifier(classifier, chosen_formats, folder, "net", chosen))


def expected_logits(classifier: Classifier, data: ArrayDataset, count: int = 5) -> np.ndarray:
    with torch.no_grad():
        images = torch.stack([classifier.transform(data.image(i)) for i in range(count)])
        return classifier.model(images).numpy()


def pixels_of(classifier: Classifier, data: ArrayDataset, count: int = 5) -> np.ndarray:
    arrays = [classifier.transform.pixels(data.image(i)) for i in range(count)]
    return np.ascontiguousarray(np.stack(arrays).transpose(0, 3, 1, 2))


def check_file(
    name: str, classifier: Classifier, data: ArrayDataset, folder: Path, input_type: str
) -> None:
    (exported,) = export(classifier, folder, name, input_type=input_type)
    assert exported.path.exists()
    load = FORMATS[name].load
    if load is None:
        return
    pixels = pixels_of(classifier, data)
    images = pixels if input_type == "uint8" else (pixels / np.float32(255)).astype(np.float32)
    run = load(exported.path)
    expected = expected_logits(classifier, data)
    for batch in (5, 1, 3):
        np.testing.assert_allclose(run(images[:batch]), expected[:batch], rtol=1e-4, atol=1e-4)
    assert exported.difference is not None
    assert exported.difference < 1e-4
    assert exported.megabytes > 0.01


@pytest.mark.parametrize("input_type", ["float", "uint8"])
@pytest.mark.parametrize("name", FAST)
def test_a_file_computes_the_logits_from_raw_pixels(
    name: str, input_type: str, classifier: Classifier, data: ArrayDataset, tmp_path: Path
) -> None:
    check_file(name, classifier, data, tmp_path, input_type)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_file_of_an_optional_runtime_computes_the_logits(
    name: str, classifier: Classifier, data: ArrayDataset, tmp_path: Path
) -> None:
    missing = FORMATS[name].problem()
    if missing:
        pytest.skip(missing)
    check_file(name, classifier, data, tmp_path, "float")


def test_onnx_runtime_alone_reads_preprocessing_and_classes(
    classifier: Classifier, tmp_path: Path
) -> None:
    (exported,) = export(classifier, tmp_path, "onnx")
    session = onnxruntime.InferenceSession(str(exported.path))
    (source,), metadata = session.get_inputs(), session.get_modelmeta().custom_metadata_map
    assert (source.name, source.shape) == ("images", ["n", 3, SIDE, SIDE])
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert [json.loads(metadata[key]) for key in ("resolution", "resize")] == [SIDE, 36]
    assert metadata["interpolation"] == "bicubic"
    assert len(metadata["weights_sha256"]) == 64


def test_torchscript_holds_the_metadata(classifier: Classifier, tmp_path: Path) -> None:
    (exported,) = export(classifier, tmp_path, "torchscript")
    extra = {"fbnetv3.json": ""}
    torch.jit.load(str(exported.path), _extra_files=extra)
    assert json.loads(json.loads(extra["fbnetv3.json"])["classes"]) == list(CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "openvino", "executorch"])
def test_int8_keeps_most_classes_and_is_smaller(
    name: str, classifier: Classifier, data: ArrayDataset, tmp_path: Path
) -> None:
    missing = FORMATS[f"{name}-int8"].problem()
    if missing:
        pytest.skip(missing)
    names, options = (name, f"{name}-int8"), {"calibration": data, "calibration_images": 40}
    plain, small = export(classifier, tmp_path, *names, **options)
    assert small.megabytes < 0.6 * plain.megabytes
    if name == "onnx":
        graph = onnx.load(str(small.path)).graph
        assert any(t.data_type == onnx.TensorProto.INT8 for t in graph.initializer)
        assert "HardSigmoid" not in {node.op_type for node in graph.node}
    (again,) = export(classifier, tmp_path / "b", names[1], **options)
    assert again.difference == small.difference
    weights = [path for path in files_of(small.path) if path.suffix in (".onnx", ".bin", ".pte")]
    for file in weights:
        assert (tmp_path / "b" / file.name).read_bytes() == file.read_bytes()


def mutate(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Changes the largest tensor of an ONNX file."""
    model = onnx.load(str(path))
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    values = change(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    onnx.save(model, str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w * 1.1, "logits that differ by up to"),
        (lambda w: np.full_like(w, np.nan), "logits that differ by up to nan"),
    ],
)
def test_a_wrong_graph_is_caught(
    change: Callable[[np.ndarray], np.ndarray], message: str, classifier: Classifier, tmp_path: Path
) -> None:
    (exported,) = export(classifier, tmp_path, "onnx")
    rule = classifier.transform.rule
    network = ExportNetwork(classifier.model, rule["mean"], rule["std"])
    images = network.example(SIDE, 8).numpy()
    compare(FORMATS["onnx"].load(exported.path), network, images)  # type: ignore[misc]
    mutate(exported.path, change)
    with pytest.raises(ExportError, match=message):
        compare(FORMATS["onnx"].load(exported.path), network, images)  # type: ignore[misc]


def test_a_file_that_computes_something_else_is_removed(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = FORMATS["onnx"]

    def write(job: object, path: Path) -> None:
        plain.write(job, path)  # type: ignore[arg-type]
        mutate(path, lambda w: -w)

    wrong = formats.Format("onnx", ".onnx", write, plain.load, plain.problem)
    options = ExportOptions()
    with pytest.raises(ExportError, match=r"^format onnx: its runtime computes logits"):
        list(export_classifier(classifier, [wrong], tmp_path, "net", options))
    assert not list(tmp_path.iterdir())


def test_a_file_that_its_runtime_cannot_run_is_removed(
    classifier: Classifier, tmp_path: Path
) -> None:
    def fail(pixels: object) -> np.ndarray:
        raise RuntimeError("no kernel\nmore")

    plain = FORMATS["onnx"]
    wrong = formats.Format("onnx", ".onnx", plain.write, lambda path: fail, plain.problem)
    message = r"^format onnx: its runtime fails \(RuntimeError: no kernel\); the file was discarded"
    with pytest.raises(ExportError, match=message):
        list(export_classifier(classifier, [wrong], tmp_path, "net", ExportOptions()))
    assert not list(tmp_path.iterdir())


def test_scores_follow_the_names_of_classes(
    classifier: Classifier, data: ArrayDataset, tmp_path: Path
) -> None:
    (exported,) = export(classifier, tmp_path, "onnx", data=data)
    with torch.no_grad():
        predicted = expected_logits(classifier, data, len(data)).argmax(1)
    top1 = 100 * float((predicted == np.asarray(data.targets)).mean())
    assert exported.top1 == pytest.approx(top1)


@pytest.mark.parametrize("names", [("class 0", "class 1", "class 2"), CLASSES])
def test_a_file_is_scored_on_the_classes_that_an_evaluation_takes(
    names: tuple[str, ...], classifier: Classifier, data: ArrayDataset, tmp_path: Path
) -> None:
    other = Classifier(classifier.model, classifier.transform, names, "small")
    (exported,) = export(other, tmp_path, "onnx", data=data)
    predicted = expected_logits(classifier, data, len(data)).argmax(1)
    expected = 100 * float((predicted == np.asarray(data.targets)).mean())
    assert exported.top1 == pytest.approx(expected)


def test_wordnet_ids_fit_a_network_for_imagenet(classifier: Classifier) -> None:
    ids = [f"n{number:08d}" for number in range(1000)]
    folders = ArrayDataset("folders", ids, np.zeros((1, 8, 8, 3), np.uint8), [0])
    names = tuple(f"name {number}" for number in range(1000))
    network = Classifier(classifier.model, classifier.transform, names, "imagenet")
    assert order_of_outputs(network, folders) == list(range(1000))


def test_other_classes_are_refused_before_a_file_is_written(
    classifier: Classifier, tmp_path: Path
) -> None:
    images = np.zeros((3, 8, 8, 3), np.uint8)
    other = ArrayDataset("other", ["cat", "dog", "fox"], images, [0, 1, 2])

    def write(job: object, path: Path) -> None:
        raise AssertionError("written")

    unwritten = replace(FORMATS["onnx"], write=write)
    options = ExportOptions(data=other)
    with pytest.raises(ExportError, match=r"fox.*give --data with the classes of the weights"):
        list(export_classifier(classifier, [unwritten], tmp_path / "out", "net", options))
    assert not (tmp_path / "out").exists()


class Unreadable(ArrayDataset):
    """Images of which the last cannot be read."""

    def image(self, index: int) -> Image.Image:
        if index == len(self) - 1:
            raise DataError("last.png: broken")
        return super().image(index)


def test_a_file_stays_if_only_its_score_is_missing(
    classifier: Classifier, data: ArrayDataset, tmp_path: Path
) -> None:
    unreadable = Unreadable("photos", data.classes, data._images, data.targets)
    message = r"^format onnx: .*net.onnx passed the .* scored on photos \(last.png: broken\)"
    with pytest.raises(ExportError, match=message):
        export(classifier, tmp_path, "onnx", data=unreadable)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("step", ["write", "load", "run"])
def test_an_unchecked_file_never_takes_the_place_of_another(
    step: str, error: type[BaseException], classifier: Classifier, tmp_path: Path
) -> None:
    def stop(at: str) -> None:
        assert {p.name: p.read_text() for p in tmp_path.iterdir() if p.is_file()} == before
        if step == at:
            raise error("stopped")

    def write(job: object, path: Path) -> None:
        for file in (path, path.with_suffix(".bin")):
            file.write_text("new")
            stop("write")

    def load(path: Path) -> Run:
        assert path.with_suffix(".bin").exists()
        stop("load")

        def run(pixels: object) -> np.ndarray:
            stop("run")
            return np.zeros((64, 3), np.float32)

        return run

    before = {"net.xml": "old graph", "net.bin": "old weights", "net.xml.json": "old"}
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    pair = replace(FORMATS["openvino"], write=write, load=load)
    with pytest.raises(BaseException, match=r"stopped|cannot write"):
        list(export_classifier(classifier, [pair], tmp_path, "net", ExportOptions()))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("moves", range(7))
def test_files_that_belong_together_are_replaced_together(
    moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path) -> None:
        path.write_text("new graph")
        path.with_suffix(".bin").write_text("new weights")

    def interrupted(source: Path, target: Path) -> None:
        done.append(target)
        if len(done) == moves:
            raise KeyboardInterrupt
        plain(source, target)

    before = {"net.xml": "old graph", "net.bin": "old weights", "net.xml.json": "old"}
    for name, text in {**before, "other.bin": "x"}.items():
        (tmp_path / name).write_text(text)
    done: list[Path] = []
    plain = os.replace
    monkeypatch.setattr("fbnetv3.export.files.os.replace", interrupted)
    with contextlib.suppress(KeyboardInterrupt):
        write_file("openvino", write, tmp_path / "net.xml")
    after = {"net.xml": "new graph", "net.bin": "new weights"} if moves in (0, 6) else before
    expected = {**after, "other.bin": "x"}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == expected


def test_the_exported_network_leaves_the_original_alone(classifier: Classifier) -> None:
    before = {key: value.clone() for key, value in classifier.model.state_dict().items()}
    ExportNetwork(classifier.model, (0.5,) * 3, (0.2,) * 3)
    after = classifier.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_errors(classifier: Classifier, data: ArrayDataset, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"'onx' is unknown; allowed: onnx, .*did you mean onnx"):
        get_format("onx")
    with pytest.raises(ExportError, match="onnx-int8 needs images of the training set"):
        check_formats(["onnx-int8"], ExportOptions())
    several = ArrayDataset("tags", list(CLASSES), np.zeros((1, 8, 8, 3), np.uint8), [0])
    several.is_multi_label = True
    with pytest.raises(ExportError, match="tags: images have several classes each"):
        check_formats(["onnx"], ExportOptions(data=several))
    with pytest.raises(ExportError, match=f"got 8; allowed: {MIN_IMAGES} or more"):
        export(classifier, tmp_path, "onnx-int8", calibration=data, calibration_images=8)
    with pytest.raises(ExportError, match="input 'rgb' is unknown"):
        export(classifier, tmp_path, "onnx", input_type="rgb")
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".")]


def test_files_of_openvino_belong_together(tmp_path: Path) -> None:
    for name in ("net.xml", "net.bin", "net.xml.json", "other.bin"):
        (tmp_path / name).touch()
    assert {p.name for p in files_of(tmp_path / "net.xml")} == {
        "net.xml",
        "net.bin",
        "net.xml.json",
    }
