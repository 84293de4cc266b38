"""Untrusted annotations and weights: mutated values are refused in one line, or read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fbnetv3.arch import get_arch
from fbnetv3.arch.scaling import low_resolution, with_num_classes
from fbnetv3.modeling import build_model
from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.files import decode_metadata
from fbnetv3.weights.metadata import check_metadata
from fbnetv3.zoo.classifier import from_file
from tests.mutations import ODD, assert_refused_or_read, mutations

ARCH = with_num_classes(low_resolution(get_arch("fbnetv3_nano_a"), 32), 3)
METADATA = {
    "arch": ARCH.to_dict(),
    "classes": ["cat", "dog", "fox"],
    "resolution": 32,
    "resize": 36,
    "interpolation": "bilinear",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
}


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    state = build_model(ARCH, num_classes=3).state_dict()
    return {key: value.contiguous() for key, value in state.items()}


def _classify(path: Path) -> None:
    from_file(path).top(Image.new("RGB", (40, 32)))


def test_metadata_of_any_type(
    tensors: dict[str, torch.Tensor], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "x.safetensors"
    for metadata in mutations(METADATA, request.config.getoption("--mutations") // 2):
        texts = {key: json.dumps(value) for key, value in metadata.items()}
        save_file(tensors, path, texts)
        assert_refused_or_read(lambda: _classify(path), metadata)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *(("classes", text) for text in ("5", '"x"', "[[1]]", "[null]", "[true]", '{"a": 1}')),
        *(("resolution", text) for text in ('"x"', "1e400", "[1]", "-1", "1e9", "NaN", "32.5")),
        ("resize", "1e400"),
        *(("mean", text) for text in ("[[1],[2],[3]]", "[1,2]", "[1,2,NaN]", "[1,2,1e400]", "5")),
        *(("interpolation", text) for text in ("[1]", "5", '"bilinear2"', "{}", "true")),
        *(("config", text) for text in ("INPUT: [1]\n", "INPUT: 5", "INPUT: {MEAN: x}", "a: [")),
        ("config", "INPUT: {RESOLUTION: 1:59:59:59}"),
        ("config", f"SEED: 0x{'f' * 6000}"),
    ],
)
def test_values_that_no_training_exports(key: str, text: str) -> None:
    metadata = decode_metadata({key: text})
    with pytest.raises(WeightsFileError, match=f"{key}|INPUT") as caught:
        check_metadata(metadata, "x.safetensors")
    assert "x.safetensors" in str(caught.value)


@pytest.mark.parametrize("value", ODD)
def test_odd_values_of_each_key(value: Any) -> None:
    for key in (*METADATA, "config", "task"):
        metadata = {**METADATA, key: value}
        assert_refused_or_read(lambda m=metadata: check_metadata(m, "x"), metadata)


def _coco() -> dict[str, Any]:
    boxes = [[1, 2, 3, 4], [0, 0, 10.5, 20], [5, 5, 1, 1]]
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(1, 4)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": 12.0, "iscrowd": 0}
            for i, box in enumerate(boxes, 1)
        ],
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "platelet"}],
    }


def _read_coco(tree: Any, folder: Path) -> None:
    pytest.importorskip("detectron2")
    from fbnetv3.detection.coco import read_coco

    (folder / "x.json").write_text(json.dumps(tree))
    dataset = read_coco("custom", folder / "x.json", folder)
    json.dumps(dataset.ground_truth(), allow_nan=False)


def test_annotations_with_odd_values(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    assert assert_refused_or_read(lambda: _read_coco(_coco(), tmp_path), "coco")
    for tree in mutations(_coco(), 5 * request.config.getoption("--mutations")):
        assert_refused_or_read(lambda tree=tree: _read_coco(tree, tmp_path), tree)


@pytest.mark.parametrize("value", ODD)
def test_every_key_of_annotations(value: Any, tmp_path: Path) -> None:
    for group, key in (
        *(("images", key) for key in ("id", "file_name", "width", "height")),
        *(("annotations", key) for key in ("id", "image_id", "category_id", "bbox", "area")),
        *(("annotations", "iscrowd"), ("categories", "id"), ("categories", "name")),
    ):
        tree = _coco()
        tree[group][0][key] = value
        assert_refused_or_read(lambda tree=tree: _read_coco(tree, tmp_path), tree)
