"""Folders of trainings become repositories of Hugging Face's hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from fbnetv3.cli import run_main
from fbnetv3.cli.zoo import main
from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.packaged import package_dir
from fbnetv3.zoo.repositories import write_repository

ROWS = (
    {"iteration": 9, "val/top1": 70.0, "val/top1_ema": 71.5, "val/loss": 1.0},
    {"iteration": 19, "val/top1": 80.25, "val/top1_ema": 82.39, "val/loss_ema": 0.9},
)
CONFIG = {"DATASETS": {"TRAIN": "cifar10_train", "TEST": "cifar10_test"}, "OUTPUT_DIR": "out"}


def _run(folder: Path, weights: str, file: str = "model_ema.safetensors") -> Path:
    folder.mkdir()
    shutil.copy(package_dir() / weights, folder / file)
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a training, with packaged weights as its result."""
    return _run(tmp_path / "nano", "fbnetv3_nano_a.cifar10.safetensors")


def test_a_repository(run: Path, tmp_path: Path) -> None:
    folder = write_repository(run, tmp_path / "hub", name="me/nano", licence="MIT")
    assert sorted(p.name for p in folder.iterdir()) == [
        *("README.md", "config.json", "model.safetensors")
    ]
    weights = (run / "model_ema.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == weights
    config = json.loads((folder / "config.json").read_text())
    assert config["resolution"] == 32
    assert config["classes"][0] == "airplane"
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert "hf://me/nano" in card
    assert "| top-1 accuracy | 82.39% | measured | last evaluation" in card
    assert "80.25" not in card  # the score of weights that are not in the repository
    assert "## Scores on `cifar10_test`" in card
    assert "fbnetv3-train --config-file config.yaml" in card
    assert "TRAIN: cifar10_train" in card


def test_a_card_shows_no_folders_of_its_author(run: Path, tmp_path: Path) -> None:
    config = {
        "DATASETS": {"TRAIN": ["/home/me/flowers"], "TEST": ["/home/me/flowers_test"]},
        "OUTPUT_DIR": "/home/me/runs/flowers",
        "MODEL": {"WEIGHTS": "zoo://fbnetv3_a0", "TEACHER": "~/teacher"},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    card = (write_repository(run, tmp_path / "hub") / "README.md").read_text()
    assert "/home" not in card
    assert "~/" not in card
    assert "OUTPUT_DIR: flowers\n" in card
    assert "WEIGHTS: zoo://fbnetv3_a0" in card


def test_the_raw_weights_have_their_own_scores(tmp_path: Path) -> None:
    run = _run(tmp_path / "raw", "fbnetv3_nano_a.cifar10.safetensors", "model.safetensors")
    card = (write_repository(run, tmp_path / "hub") / "README.md").read_text()
    assert "| 80.25% | measured |" in card
    assert "# raw\n" in card
    assert "hf://OWNER/NAME" in card


def test_a_detector(tmp_path: Path) -> None:
    run = _run(tmp_path / "cells", "retinanet_fbnetv3_a0.bccd.safetensors")
    row = {"iteration": 9, "bbox/AP": 54.0, "bbox/AP_ema": 55.03, "bbox/AP50_ema": 88.0}
    (run / "metrics.json").write_text(json.dumps(row) + "\n")
    folder = write_repository(run, tmp_path / "hub", name="me/cells")
    config = json.loads((folder / "config.json").read_text())
    assert config["classes"] == ["RBC", "WBC", "Platelets"]
    assert config["task"] == "object-detection"
    card = (folder / "README.md").read_text()
    assert "| AP | 55.03% | measured |" in card
    assert 'model.detect("photo.jpg"' in card


def test_an_unfinished_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsFileError, match="holds no finished training"):
        write_repository(tmp_path, tmp_path / "hub")


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(run), "--name", "me/nano"]) == 0
    assert (run / "hub" / "README.md").is_file()
    out = capsys.readouterr().out
    assert f"hf upload me/nano {run / 'hub'}" in out
    assert run_main(main, ["card", str(run / "hub" / "nothing")]) == 2
    assert "holds no finished training" in capsys.readouterr().err
