"""Fine-tuning to the classes of another data set."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fbnetv3.config import CfgNode
from fbnetv3.training import train
from fbnetv3.weights.files import read_tensors

Make = Callable[..., CfgNode]


@pytest.fixture(params=["folder", "zip"])
def other_images(request: Any, material: Path, tmp_path: Path) -> tuple[str, str]:
    """A training and a test set of three other classes, as folders or as zip files."""
    paths = []
    for part in ("train", "test"):
        root = tmp_path / f"other_{part}"
        for name, digit in (("ant", "3"), ("bee", "5"), ("cat", "8")):
            shutil.copytree(material / part / digit, root / name)
        paths.append(str(root))
        if request.param == "zip":
            paths[-1] = f"{root}.zip"
            with zipfile.ZipFile(paths[-1], "w") as archive:
                for path in sorted(root.rglob("*.png")):
                    archive.write(path, path.relative_to(root))
            shutil.rmtree(root)
    return paths[0], paths[1]


def test_fine_tuning_to_other_classes(
    tiny: Make, material: Path, trained: Any, tmp_path: Path, other_images: tuple[str, str]
) -> None:
    weights = trained[0] / "model_ema.safetensors"
    folder = tmp_path / "tuned"
    cfg = tiny(
        OUTPUT_DIR=str(folder),
        MODEL__WEIGHTS=str(weights),
        DATASETS__TRAIN=other_images[0],
        DATASETS__TEST=other_images[1],
        SOLVER__BASE_LR=1e-9,
        SOLVER__MAX_EPOCHS=1.0,
        SOLVER__WEIGHT_DECAY=0.0,
        MODEL_EMA__ENABLED=False,
    )
    scores = train(cfg)
    assert scores.keys() == {"val/top1", "val/loss"}  # no top-5 of three classes
    tuned, metadata = read_tensors(folder / "model.safetensors")
    before, _ = read_tensors(weights)
    assert metadata["classes"] == ["ant", "bee", "cat"]
    assert tuned["head.fc.weight"].shape[0] == 3
    # at so small a learning rate the weights hardly change
    name = "backbone.stages.1.0.pw.conv.weight"
    assert name in tuned, sorted(tuned)
    torch.testing.assert_close(tuned[name], before[name])
    # a resumed run does not need the file of initial weights
    shutil.move(weights, tmp_path / "gone")
    again = cfg.clone()
    again.defrost()
    again.SOLVER.MAX_EPOCHS = 2.0
    assert train(again, resume=True).keys() == scores.keys()
