"""Detection sees the same pixels in training, evaluation, inference and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from PIL import Image
from torch import nn

from fbnetv3.config import CfgNode
from fbnetv3.data import DataError
from fbnetv3.detection.build import build_detector
from fbnetv3.detection.coco import CocoDataset, read_coco
from fbnetv3.detection.detector import Detector
from fbnetv3.detection.images import BatchMapper, ImageMapper, ShortestEdge, check_images
from fbnetv3.detection.visualization import LabelledBox, draw_boxes, write_contact_sheet
from tests.fixtures.pictures import SIDE, pictures

Make = Callable[..., CfgNode]


class _Network(nn.Module):
    """A network that keeps its input and finds nothing."""

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.inputs = inputs
        empty = Instances((1, 1))
        empty.pred_boxes, empty.scores = Boxes(torch.zeros(0, 4)), torch.zeros(0)
        empty.pred_classes = torch.zeros(0, dtype=torch.int64)
        return [{"instances": empty} for _ in inputs]


def _dataset(folder: Path, width: int, height: int) -> CocoDataset:
    image = {"id": 1, "file_name": "0.png", "width": width, "height": height}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0}
    tree = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "a"}]}
    (folder / "a.json").write_text(json.dumps(tree))
    return read_coco("x", folder / "a.json", folder)


@pytest.fixture
def cfg(tiny: Make) -> CfgNode:
    sides = {"INPUT__MIN_SIZE_TRAIN": (SIDE,), "INPUT__MIN_SIZE_TEST": SIDE}
    full: CfgNode = build_detector(tiny(INPUT__RANDOM_FLIP="none", **sides), ["a"], _CPU)[1]
    return full


_CPU = torch.device("cpu")


def _rgb(tensor: torch.Tensor, cfg: CfgNode) -> np.ndarray:
    pixels: np.ndarray = tensor.permute(1, 2, 0).numpy()
    return pixels[..., ::-1] if cfg.INPUT.FORMAT == "BGR" else pixels


def _mapped(cfg: CfgNode, dataset: CocoDataset, training: bool) -> np.ndarray:
    mapper = BatchMapper(dataset, ImageMapper(cfg, is_train=training))
    return _rgb(mapper([(0, 0)])[0]["image"], cfg)


def _detected(cfg: CfgNode, image: Any) -> np.ndarray:
    network = _Network()
    assert Detector(network, cfg, ["a"]).detect(image) == []
    return _rgb(network.inputs[0]["image"], cfg)


def test_entry_points_see_the_same_pixels(cfg: CfgNode, tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    dataset = _dataset(tmp_path, SIDE, SIDE)
    for picture in pictures():
        path.write_bytes(picture.content)
        assert check_images(dataset, decode=True, skip_broken=False) is dataset
        for shown in (
            _mapped(cfg, dataset, training=True),
            _mapped(cfg, dataset, training=False),
            _detected(cfg, path),
            _detected(cfg, Image.open(path)),
            np.asarray(Detector(_Network(), cfg, ["a"]).draw(path, [])),
        ):
            assert np.array_equal(shown, picture.shown), picture.name


@pytest.mark.parametrize("decode", [True, False])
def test_sizes_are_those_of_the_turned_image(decode: bool, tmp_path: Path) -> None:
    for picture in pictures(24, 16):
        (tmp_path / "0.png").write_bytes(picture.content)
        height, width = picture.shown.shape[:2]
        dataset = _dataset(tmp_path, width, height)
        assert check_images(dataset, decode=decode, skip_broken=False) is dataset
        wrong = _dataset(tmp_path, height, width)
        with pytest.raises(
            DataError, match=f"{width} x {height} pixels .*, but the JSON file says"
        ):
            check_images(wrong, decode=decode, skip_broken=False)


@pytest.mark.parametrize("training", [True, False])
def test_inputs_are_those_of_detectron2(tiny: Make, shapes: Path, training: bool) -> None:
    dataset = read_coco("x", shapes / "shapes.json", shapes / "images")
    full = build_detector(tiny(), dataset.classes, _CPU)[1]
    keys = [(index, index + 7) for index in range(len(dataset))]
    golden = BatchMapper(dataset, DatasetMapper(full, is_train=training))(keys)
    for item, other in zip(
        BatchMapper(dataset, ImageMapper(full, is_train=training))(keys), golden, strict=True
    ):
        assert item.keys() == other.keys()
        assert torch.equal(item["image"], other["image"])
        if training:
            boxes = item["instances"].gt_boxes.tensor
            assert torch.equal(boxes, other["instances"].gt_boxes.tensor)


# --- elongated images ---

LINES = [(1, 3000), (3000, 1), (1, 20_000), (20, 8000)]


@pytest.mark.parametrize(("width", "height"), LINES)
def test_a_resize_leaves_no_side_of_0_pixels(width: int, height: int) -> None:
    pixels = np.zeros((height, width, 3), np.uint8)
    resized = ShortestEdge(640, 1333).get_transform(pixels).apply_image(pixels)
    assert max(resized.shape) == 1333
    assert min(resized.shape[:2]) >= 1


@pytest.mark.parametrize(("width", "height"), LINES[:2])
def test_elongated_images_in_a_network(width: int, height: int, tiny: Make, tmp_path: Path) -> None:
    Image.new("RGB", (width, height)).save(tmp_path / "0.png")
    dataset = _dataset(tmp_path, width, height)
    assert check_images(dataset, decode=True, skip_broken=False) is dataset
    model, full = build_detector(tiny(), ["a"], _CPU)
    assert isinstance(Detector(model, full, ["a"]).detect(tmp_path / "0.png", 0.99), list)
    batch = BatchMapper(dataset, ImageMapper(full, is_train=True))([(0, 0)])
    with EventStorage():
        losses = model.train()(batch)
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize(("width", "height"), LINES)
def test_pictures_of_elongated_images_are_small(width: int, height: int, tmp_path: Path) -> None:
    Image.new("RGB", (width, height), "red").save(tmp_path / "0.png")
    write_contact_sheet(_dataset(tmp_path, width, height), [], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width * sheet.height < 2 << 20
    box = LabelledBox((0, 0, width, height), 0, "a")
    assert draw_boxes(tmp_path / "0.png", [box]).size == (width, height)
