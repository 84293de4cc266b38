"""``fbnetv3-predict`` on files, folders and bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fbnetv3.arch import get_arch
from fbnetv3.arch.scaling import low_resolution, with_num_classes
from fbnetv3.cli import run_main
from fbnetv3.cli.predict import _check_effects, main, parse
from fbnetv3.modeling import build_model
from fbnetv3.predictions.errors import PredictError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that always predicts "dog"."""
    arch = with_num_classes(low_resolution(get_arch("fbnetv3_a0"), 32), 3)
    model = build_model(arch, num_classes=3)
    torch.nn.init.zeros_(model.head.fc.weight)
    with torch.no_grad():
        model.head.fc.bias.copy_(torch.tensor([0.0, 2.0, 1.0]))
    path = tmp_path_factory.mktemp("weights") / "dog.safetensors"
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, path, {"arch": arch.to_yaml(), "classes": json.dumps(["cat", "dog", "fox"])})
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    for name in ("b.png", "a.jpg", "inner/c.PNG"):
        Image.linear_gradient("L").resize((50, 40)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_a_folder(weights: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(images), "--weights", str(weights), "--top-k", "2", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::3] == [str(images / name) for name in ("a.jpg", "b.png", "inner/c.PNG")]
    total = 1 + 2.718281828 + 2.718281828**2
    assert lines[1] == f"   {100 * 2.718281828**2 / total:.2f}%  dog"
    assert lines[2] == f"   {100 * 2.718281828 / total:.2f}%  fox"


def test_topk_above_the_classes(
    weights: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(images / "a.jpg"), str(images / "b.png"), "--weights", str(weights)]
    assert main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * (1 + 3)
    scores = [float(score) for score in re.findall(r"([\d.]+)%", "\n".join(lines[1:4]))]
    assert sum(scores) == pytest.approx(100, abs=0.02)


def _error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run_main(main, argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def _unreadable(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run_main(main, argv) == 2
    line, end = capsys.readouterr().err.splitlines()
    assert line.startswith("unreadable: ")
    assert end == "error: 1 of 1 images cannot be read, see the lines above"
    return line


def test_bad_input_is_one_line(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use = ["--weights", str(weights)]
    assert "no such image" in _error([str(tmp_path / "none.jpg"), *use], capsys)
    text = images / "notes.doc"
    text.write_text("not an image")
    assert f"{text}: not an image" in _unreadable([str(text), *use], capsys)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes((images / "a.jpg").read_bytes()[:300])
    message = _unreadable([str(cut), *use], capsys)
    assert str(cut) in message
    assert "leave it out" in message  # there is no DATA.SKIP_BROKEN here
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no images in" in _error([str(empty), *use], capsys)
    image = str(images / "a.jpg")
    assert "fbnetv3_g" in _error([image, "--model", "fbnetv3-g"], capsys)
    assert "there are" in _error([image, "--model", "fbnetv3_g.none"], capsys)
    assert "No such file" in _error([image, "--weights", str(tmp_path / "none.pt")], capsys)
    assert "device" in _error([image, *use, "--device", "abacus"], capsys)


def test_weights_or_a_model_are_required(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(images)])
    assert "--model NAME[.TAG] and --weights FILE" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(images), "--model", "x", "--top-k", "0"])
    assert "must be an integer >= 1, not '0'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_tool_runs_from_anywhere(weights: Path, images: Path, tmp_path: Path) -> None:
    tool = ROOT / "tools" / "predict.py"
    command = [sys.executable, str(tool), str(images / "a.jpg"), "--weights", str(weights)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "dog" in run.stdout.splitlines()[1]


def test_the_old_name_of_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(FutureWarning, match="--topk is deprecated .*; use --top-k"):
        assert parse(["x.png", "--model", "fbnetv3_a", "--topk", "2"]).top_k == 2
    with pytest.warns(FutureWarning):
        arguments = parse(["x.png", "--model", "retinanet", "--topk", "2"])
    with pytest.raises(PredictError, match="--topk has no effect with a detector"):
        _check_effects(arguments, True, None)
    with pytest.raises(SystemExit):
        parse(["--help"])
    assert "--topk" not in capsys.readouterr().out
