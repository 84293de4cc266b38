"""A tiny RetinaNet with random weights that sees objects everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fbnetv3.config import get_cfg
from fbnetv3.detection.build import build_detector
from fbnetv3.detection.detector import Detector
from fbnetv3.resources import find_config
from tests.detection.conftest import ARCH, BASE
from tests.modeling.networks import with_random_statistics

CLASSES = ["square", "disc"]
RESNET_18: dict[str, Any] = {
    "base": "detection/bases/retinanet_resnet.yaml",
    "MODEL__RESNETS__DEPTH": 18,
    "MODEL__RESNETS__RES2_OUT_CHANNELS": 64,
    "MODEL__RESNETS__NORM": "BN",
    "MODEL__PIXEL_STD": [57.4, 57.1, 58.4],  # those of the base, 1, would saturate the scores
}
"""Options of ``make_detector`` for a small backbone of detectron2."""


def make_detector(folder: Path, bias: float = -8, base: str = BASE, **changes: Any) -> Detector:
    """Returns a detector; ``bias`` is the logit of all scores before weights are applied."""
    (folder / "tiny.yaml").write_text(ARCH)
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config(base)))
    values = {
        "MODEL.ARCH": str(folder / "tiny.yaml"),
        "MODEL.FPN.OUT_CHANNELS": 16,
        "MODEL.RETINANET.NUM_CONVS": 1,
        "INPUT.MIN_SIZE_TEST": 80,
        "INPUT.MAX_SIZE_TEST": 160,
        "TEST.DETECTIONS_PER_IMAGE": 30,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    cfg.merge_from_list([item for pair in values.items() for item in pair])
    torch.manual_seed(0)
    model, full = build_detector(cfg, CLASSES, torch.device("cpu"))
    with_random_statistics(model)
    with torch.no_grad():
        for layer, scale in ((model.head.cls_score, 3.0), (model.head.bbox_pred, 0.3)):
            layer.weight.normal_(0, scale)
        model.head.cls_score.bias.fill_(bias)
    return Detector(model, full, CLASSES, "tiny").eval()


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return make_detector(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Images of several sizes; the shorter sides are resized to 80 pixels."""
    generator = np.random.default_rng(0)
    sizes = ((120, 90), (70, 100), (80, 80))
    return [
        Image.fromarray(generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize(size)
        for size in sizes
    ]
