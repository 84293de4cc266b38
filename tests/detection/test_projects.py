"""The scripts of projects/retinanet_ema on a tiny training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from fbnetv3.config import CfgNode
from fbnetv3.detection.datasets import build_detection_dataset
from fbnetv3.detection.detector import Detector
from fbnetv3.training import evaluate, train
from fbnetv3.weights import detector_records as detectors
from fbnetv3.weights.errors import DownloadError, RecordError
from fbnetv3.zoo import get
from projects.retinanet_ema import anchors, figures, package, step_time

Make = Callable[..., CfgNode]


def test_step_time_compares_equal_trainings(tiny: Make) -> None:
    found = step_time.compare(tiny(), 20, skip=2)
    assert found["equal losses of detectron2 and ours"] == 20
    assert found["equal losses with and without EMA"] == 20
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert 0 < found["EMA hook, % of a step"] < 100
    json.dumps(found)


def test_anchors_are_compared_with_every_box(tiny: Make) -> None:
    cfg = tiny()
    rows = anchors.measure(cfg, build_detection_dataset("shapes", cfg))
    assert [row[:2] for row in rows] == [["disc", 28], ["square", 28]]  # two training sizes
    sides = [float(side) for side in str(rows[0][2]).split()]
    # Boxes of 20 x 24 px in images of 64 px, which are resized to 48 and 64 px.
    assert sides[0] == pytest.approx(22 * 0.75, abs=1)
    assert sides[-1] == pytest.approx(22, abs=1)


def test_figures_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        rows = [
            {"iteration": i, "lr": 0.1, "total_loss": 1.0}
            | {f"bbox/{s}{e}": 10.0 * i + seed for s in ("AP", "AP50") for e in ("", "_ema")}
            for i in (9, 19)
        ]
        text = "\n".join(json.dumps(row) for row in [{"iteration": 0, "lr": 0.1}, *rows])
        (folder / "metrics.json").write_text(text)
    folders = [str(tmp_path / f"seed{seed}") for seed in (0, 1)]
    figures.main([*folders, "--name", str(tmp_path / "scores_lr0.1")])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.replace(" ", "") == "|mean||" + 4 * "190.5|"
    assert Image.open(tmp_path / "scores_lr0.1.png").size[0] > 600
    lines = (tmp_path / "scores_lr0.1.csv").read_text().splitlines()
    assert lines[:2] == [
        "run,iteration,lr,bbox/AP,bbox/AP_ema,bbox/AP50,bbox/AP50_ema",
        "seed0,10,0.1,90.00,90.00,90.00,90.00",
    ]


def test_a_packaged_detector_is_part_of_the_zoo(
    tiny: Make, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny(SOLVER__MAX_EPOCHS=3.0, MODEL__RETINANET__SCORE_THRESH_TEST=0.001)
    train(cfg, pictures=False)
    folder = tmp_path / "weights"
    folder.mkdir()
    for module in (package, detectors):
        monkeypatch.setattr(module, "package_dir", lambda: folder)
    file = tmp_path / "out" / "model_ema.safetensors"
    coco = ["DATASETS.COCO", str(cfg.DATASETS.COCO)]
    entry = package.package(file, "retinanet_tiny.shapes", "shapes", "a test", coco)
    # 16-bit weights change AP by less than 1.
    assert entry["metrics"]["AP"]["value"] == pytest.approx(evaluate(cfg)["bbox/AP_ema"], abs=1)
    assert (folder / entry["path"]).stat().st_size < 0.8 * file.stat().st_size
    record = detectors._record(entry)
    monkeypatch.setattr(detectors, "detector_records", lambda: (record,))
    detector = get("retinanet_tiny.shapes", pretrained=True)
    assert isinstance(detector, Detector)
    assert detector.classes == ("disc", "square")
    (output,) = detector([Image.open(shapes / "images" / "1.png")])
    assert output["boxes"].dtype == torch.float32
    with pytest.raises(RecordError, match="did you mean retinanet_tiny"):
        get("retinanet_tiny.shape")
    (folder / entry["path"]).write_bytes(b"")
    with pytest.raises(DownloadError, match="damaged"):
        get("retinanet_tiny.shapes")
