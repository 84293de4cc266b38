"""The command ``fbnetv3-evaluate``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fbnetv3.cli import predict, run_main
from fbnetv3.cli.evaluate import main
from fbnetv3.config import CfgNode
from fbnetv3.training import evaluate
from tests.runs import train_steps

ROOT = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]
DATA = """
import numpy as np
from fbnetv3 import register_dataset
from fbnetv3.data import ArrayDataset

@register_dataset("test/one_of_each")
def one_of_each():
    images = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(16, 1).repeat(16, 2)
    return ArrayDataset("test/one_of_each", [str(i) for i in range(10)], images.repeat(3, 3),
                        list(range(10)))
"""


def test_the_scores_of_a_run_are_those_of_its_training(
    tiny: Callable[..., CfgNode], tmp_path: Path, material: Path, capsys: Capture
) -> None:
    cfg = tiny(OUTPUT_DIR=str(tmp_path / "run"))
    train_steps(tiny, 3, OUTPUT_DIR=str(tmp_path / "run"))
    expected = evaluate(cfg)
    argv = ["--weights", str(tmp_path / "run"), "--data", str(material / "test")]
    argv += ["--tta", "flip", "--device", "cpu", "--output", str(tmp_path / "report")]
    assert run_main(main, argv) == 0
    scores = json.loads((tmp_path / "report" / "scores.json").read_text())
    key = "_ema" if "val/top1_ema" in expected else ""
    assert scores["top1"] == pytest.approx(expected[f"val/top1{key}"])
    assert scores["loss"] == pytest.approx(expected[f"val/loss{key}"], rel=1e-4)
    printed = capsys.readouterr().out
    assert f"top1: {scores['top1']:.2f}%" in printed
    assert f"tta/top1: {scores['tta']['top1']:.2f}%" in printed
    for line in printed.splitlines():
        if line.startswith("wrote "):
            assert Path(line.removeprefix("wrote ")).stat().st_size > 0


def test_data_of_an_import(tiny: Callable[..., CfgNode], tmp_path: Path, capsys: Capture) -> None:
    train_steps(tiny, 1, OUTPUT_DIR=str(tmp_path / "run"))
    (tmp_path / "my_data.py").write_text(DATA)
    argv = ["--weights", str(tmp_path / "run"), "--data", "test/one_of_each", "--worst", "0"]
    argv += ["--output", str(tmp_path / "report"), "--device", "cpu", "--ignore-class-names"]
    assert run_main(main, argv) == 2
    assert "'test/one_of_each' is neither a registered name" in capsys.readouterr().err
    assert run_main(main, [*argv, "--import", str(tmp_path / "my_data.py")]) == 0
    assert json.loads((tmp_path / "report" / "scores.json").read_text())["images"] == 10
    for option, value in (("--threshold", "0.9"), ("--threshold", "0"), ("--images", "photos")):
        assert run_main(main, [*argv, option, value]) == 2
        error = capsys.readouterr().err
        assert error == f"error: {option} has no effect with a classifier; leave it out\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "fbnetv3-g", "--data", "x"], "did you mean fbnetv3_g"),
        (["--weights", "none.pt", "--data", "x"], "cannot read weights none.pt"),
        (["--model", "fbnetv3_g", "--data", "x", "--output", "/proc/none"], "cannot write"),
    ],
)
def test_mistakes_are_answered_before_torch_is_imported(argv: list[str], message: str) -> None:
    code = "import sys; sys.modules['torch'] = None; from fbnetv3.cli.evaluate import cli; cli()"
    command = [sys.executable, "-c", code, *argv]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr


def test_a_detector_on_images_of_its_kind(tmp_path: Path, capsys: Capture, data_root: Path) -> None:
    tree = json.loads((data_root / "bccd/annotations/instances_test.json").read_text())
    kept = {image["id"] for image in tree["images"][:3]}
    for key, name in (("images", "id"), ("annotations", "image_id")):
        tree[key] = [entry for entry in tree[key] if entry[name] in kept]
    (tmp_path / "few.json").write_text(json.dumps(tree))
    argv = ["--model", "retinanet_fbnetv3_a0.bccd", "--data", str(tmp_path / "few.json")]
    argv += ["--images", str(data_root / "bccd/images"), "--output", str(tmp_path / "report")]
    assert run_main(main, [*argv, "--tta", "flip"]) == 2
    assert "--tta is for classifiers" in capsys.readouterr().err
    for options, message in (
        (["--bins", "9"], "--bins has no effect with a detector; leave it out"),
        (["--ignore-class-names"], "--ignore-class-names has no effect with a detector; leave it"),
        (["--data", "bccd_test"], "--images has no effect with --data bccd_test, which is no COCO"),
    ):
        assert run_main(main, [*argv, *options]) == 2
        assert message in capsys.readouterr().err
    assert not any((tmp_path / "report").iterdir())
    assert run_main(main, [*argv, "--device", "cpu", "--worst", "2"]) == 0
    scores = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert 30 < scores["AP"] < 90
    assert scores["AP50"] > scores["AP75"]
    images = [str(data_root / "bccd/images" / image["file_name"]) for image in tree["images"]]
    options = [
        "--annotations",
        str(tmp_path / "few.json"),
        "--output",
        str(tmp_path / "boxes.json"),
    ]
    assert run_main(predict.main, [*images, *argv[:2], *options, "--device", "cpu"]) == 0
    written = (tmp_path / "report" / "results.json").read_text()
    assert written == (tmp_path / "boxes.json").read_text()
