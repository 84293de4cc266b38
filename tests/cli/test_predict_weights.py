"""``fbnetv3-predict --weights``: exported files, checkpoints and folders of runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from fbnetv3.cli.predict import main
from fbnetv3.config import CfgNode
from fbnetv3.engine.checkpoint import Checkpointer
from fbnetv3.errors import FBNetError
from fbnetv3.resources import model_zoo_path
from fbnetv3.weights.files import read_tensors
from tests.runs import train_steps

Make = Callable[..., CfgNode]


@pytest.fixture
def run(tiny: Make, tmp_path: Path) -> Path:
    """The folder of a short training of a classifier."""
    train_steps(tiny, 1, OUTPUT_DIR=str(tmp_path / "run"))
    return tmp_path / "run"


def test_a_classifier(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    Image.linear_gradient("L").save(image)
    shutil.copytree(run, tmp_path / "interrupted", ignore=shutil.ignore_patterns("*.safetensors"))
    printed = set()
    for path in (
        run,
        run / "model_ema.safetensors",
        run / "checkpoint_00000001.pt",
        tmp_path / "interrupted",
    ):
        main([str(image), "--weights", str(path), "--device", "cpu"])
        printed.add(capsys.readouterr().out)
    assert len(printed) == 1  # the averaged weights each time


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """A folder with the checkpoint of a detector, whose config is text as in a training's."""
    path = model_zoo_path() / "weights" / "retinanet_fbnetv3_a0.bccd.safetensors"
    tensors, metadata = read_tensors(path)
    groups = {key: value for key, value in metadata["config"].items() if key != "TEST"}
    cfg = CfgNode(groups)
    cfg.MODEL.NUM_CLASSES, cfg.MODEL.DEVICE = 0, "cuda"  # neither is that of the prediction
    full = {key: value.float() for key, value in tensors.items()}
    raw = {key: torch.zeros_like(value) for key, value in full.items()}
    state = {"model": raw, "ema": {"decay": 0.9, "warmup": False, "tensors": full}}
    more = {"config": cfg.dump(), "classes": metadata["classes"], "arch": "RetinaNet on fbnetv3_a0"}
    Checkpointer(tmp_path / "run").save({**state, **more, "task": {}}, 7)
    return tmp_path / "run"


def test_a_detector(detector: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    Image.new("RGB", (300, 240), (235, 225, 215)).save(image)
    printed = set()
    weights = ["--model", "retinanet_fbnetv3_a0.bccd"]
    output = ["--output", str(tmp_path / "drawn"), "--device", "cpu", "--threshold", "0.01"]
    for source in (
        weights,
        ["--weights", str(detector)],
        ["--weights", str(detector / "checkpoint_00000007.pt")],
    ):
        main([str(image), *source, *output])
        printed.add(capsys.readouterr().out)
    assert len(printed) == 1
    assert "RBC" in printed.pop()
    main([str(image), *weights, *output, "--threshold", "0.999"])
    assert "no box with a score of 0.999 or more" in capsys.readouterr().out
    with pytest.raises(FBNetError, match="leave out --model"):
        main([str(image), "--weights", str(detector), *weights])


def test_a_folder_without_weights(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "image.png")
    with pytest.raises(FBNetError, match="is a directory without weights"):
        main([str(tmp_path / "image.png"), "--weights", str(tmp_path)])
