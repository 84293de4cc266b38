"""The detection configs of the model zoo: each can be built and states its command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fbnetv3.config import get_cfg
from fbnetv3.detection.build import build_detector
from fbnetv3.resources import model_zoo_path

CONFIGS = sorted((model_zoo_path() / "detection").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_can_be_built_and_states_its_command(path: Path) -> None:
    header = path.read_text().split("_BASE_")[0]
    launch = f"python tools/train_net.py --config-file model_zoo/detection/{path.name}"
    assert launch in header
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    cfg.freeze()
    model, _ = build_detector(cfg, ["a", "b"], torch.device("cpu"))
    levels = range(2, 7) if "faster" in path.stem else range(3, 8)
    assert list(model.backbone.output_shape()) == [f"p{i}" for i in levels]


def test_all_documented_configs_exist() -> None:
    names = {path.stem for path in CONFIGS}
    assert {f"retinanet_R_{d}_FPN_3x{t}" for d in (50, 101) for t in ("", "_ema")} <= names
    assert {f"retinanet_fbnetv3_{a}_FPN" for a in ("a0", "a", "g")} <= names
    assert {f"retinanet_fbnetv3_a0_{d}" for d in ("digits", "bccd", "coco_subset")} <= names
    assert "faster_rcnn_fbnetv3_g_FPN" in names
