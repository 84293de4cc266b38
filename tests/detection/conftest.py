"""Fixtures of a detector's training that takes seconds: 16 images of 64 px, a tiny network."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.resources import find_config

Tree = dict[str, list[Any]]
ROOT = Path(__file__).resolve().parents[2]
BASE = "detection/bases/retinanet_small.yaml"
ARCH = """\
name: tiny
resolution: 64
num_classes: 3
width_divisor: 8
rows:
  - {stage: 0, op: conv, k: 3, c: 8, n: 1, s: 2, act: hswish}
  - {stage: 1, op: mbconv, k: 3, e: 1, c: 8, n: 1, s: 2, act: hswish}
  - {stage: 2, op: mbconv, k: 3, e: 2, c: 16, n: 1, s: 2, act: hswish, se: hsigmoid}
  - {stage: 3, op: mbconv, k: 3, e: 2, c: 16, n: 2, s: 2, act: hswish}
  - {stage: 4, op: mbconv, k: 3, e: 2, c: 24, n: 1, s: 2, act: hswish}
  - {stage: 5, op: mbpool, e: 2, c: 32, n: 1, s: 1, act: hswish}
"""


def coco_tree(images: int = 16) -> Tree:
    """Returns COCO JSON with a square (class 7) and a disc (class 3) per image.

    Image 2 has no objects, those of image 3 are crowds.
    """
    tree: Tree = {"images": [], "annotations": [], "categories": []}
    tree["categories"] = [{"id": 7, "name": "square"}, {"id": 3, "name": "disc"}]
    generator = np.random.default_rng(0)
    for number in range(1, images + 1):
        image = {"id": number, "file_name": f"{number}.png", "width": 64, "height": 64}
        tree["images"].append(image)
        for category in (7, 3) if number != 2 else ():
            x, y = (int(v) for v in generator.integers(0, 40, size=2))
            item = {"id": len(tree["annotations"]) + 1, "image_id": number}
            box = {"bbox": [x, y, 20, 24], "area": 480, "category_id": category}
            tree["annotations"].append({**item, **box, "iscrowd": int(number == 3)})
    return tree


def paint(tree: Tree, folder: Path) -> None:
    """Writes the images of a COCO tree into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for record in tree["images"]:
        image = Image.new("RGB", (64, 64), (40, 60, 80))
        pen = ImageDraw.Draw(image)
        for item in tree["annotations"]:
            if item["image_id"] == record["id"]:
                x, y, w, h = item["bbox"]
                draw = pen.rectangle if item["category_id"] == 7 else pen.ellipse
                draw((x, y, x + w, y + h), fill=(200, 200, 90))
        image.save(folder / record["file_name"])


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with shapes.json, images/ and the architecture tiny.yaml."""
    folder = tmp_path_factory.mktemp("shapes")
    tree = coco_tree()
    (folder / "shapes.json").write_text(json.dumps(tree))
    (folder / "tiny.yaml").write_text(ARCH)
    paint(tree, folder / "images")
    return folder


Options = Callable[..., dict[str, Any]]


@pytest.fixture
def options(shapes: Path, tmp_path: Path) -> Options:
    """Returns a function that makes the options of the tiny training, which override BASE."""

    def make(**changes: Any) -> dict[str, Any]:
        values = {
            "MODEL.DEVICE": "cpu",
            "MODEL.ARCH": str(shapes / "tiny.yaml"),
            "MODEL.FPN.OUT_CHANNELS": 16,
            "MODEL.RETINANET.NUM_CONVS": 1,
            "DATASETS.COCO": [["shapes", str(shapes / "shapes.json"), str(shapes / "images")]],
            "DATASETS.TRAIN": ("shapes",),
            "DATASETS.TEST": ("shapes",),
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
            "INPUT.MIN_SIZE_TRAIN": (48, 64),
            "INPUT.MIN_SIZE_TEST": 64,
            "SOLVER.IMS_PER_BATCH": 4,
            "SOLVER.REFERENCE_BATCH": 4,
            "SOLVER.MAX_EPOCHS": 2.0,
            "SOLVER.WARMUP_EPOCHS": 0.5,
            "SOLVER.LOG_PERIOD": 1,
            "TEST.EVAL_EPOCHS": 1.0,
            "OUTPUT_DIR": str(tmp_path / "out"),
        }
        return values | {key.replace("__", "."): value for key, value in changes.items()}

    return make


@pytest.fixture
def tiny(options: Options) -> Callable[..., CfgNode]:
    """Returns a function that makes the config of the tiny training.

    It takes changes such as ``SOLVER__BASE_LR=1.0``.
    """

    def make(**changes: Any) -> CfgNode:
        cfg = get_cfg()
        cfg.merge_from_file(str(find_config(BASE)))
        cfg.merge_from_list([x for pair in options(**changes).items() for x in pair])
        cfg.freeze()
        return cfg

    return make


@pytest.fixture
def command(options: Options) -> Callable[..., list[str]]:
    """Returns a function that makes the command line of the tiny training."""

    def make(
        *flags: str, launcher: tuple[str, ...] = (sys.executable,), **changes: Any
    ) -> list[str]:
        values = [str(x) for pair in options(**changes).items() for x in pair]
        script = str(ROOT / "tools" / "train_net.py")
        return [*launcher, script, "--config-file", str(find_config(BASE)), *flags, *values]

    return make
