"""``fbnetv3-predict`` on folders with bad files, run folders, and paths that do not exist."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fbnetv3.arch import get_arch
from fbnetv3.arch.scaling import low_resolution, with_num_classes
from fbnetv3.cli import run_main
from fbnetv3.cli.predict import main
from fbnetv3.data import EvalTransform
from fbnetv3.modeling import build_model
from fbnetv3.predictions.batches import classify
from fbnetv3.predictions.errors import PredictError
from fbnetv3.predictions.inputs import find_images
from fbnetv3.predictions.networks import find_weights
from fbnetv3.zoo.classifier import from_file

ROOT = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the weights of a network that always predicts "dog"."""
    arch = with_num_classes(low_resolution(get_arch("fbnetv3_a0"), 32), 2)
    model = build_model(arch, num_classes=2)
    torch.nn.init.zeros_(model.head.fc.weight)
    with torch.no_grad():
        model.head.fc.bias.copy_(torch.tensor([0.0, 2.0]))
    folder = tmp_path_factory.mktemp("run")
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    metadata = {"arch": arch.to_yaml(), "classes": json.dumps(["cat", "dog"])}
    save_file(state, folder / "model_ema.safetensors", metadata)
    (folder / "model.safetensors").write_bytes(b"not read")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    for name in ("a.png", "d.png"):
        Image.new("RGB", (40, 30), "red").save(tmp_path / "set" / name)
    return tmp_path / "set"


def _run(run_folder: Path, capsys: Capture, *images: Path) -> tuple[int, list[str], str]:
    argv = [*map(str, images), "--weights", str(run_folder), "--top-k", "1", "--device", "cpu"]
    status = run_main(main, argv)
    captured = capsys.readouterr()
    return status, captured.out.splitlines(), captured.err


BAD: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("no image"),
    "empty": lambda path: path.touch(),
    "broken link": lambda path: path.symlink_to("nowhere"),
    "floating point": lambda path: Image.fromarray(np.ones((4, 4), np.float32)).save(path, "TIFF"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_in_a_folder_does_not_end_the_others(
    kind: str, run_folder: Path, folder: Path, capsys: Capture
) -> None:
    BAD[kind](folder / "b.png")
    status, out, err = _run(run_folder, capsys, folder)
    assert status == 2
    assert out[::2] == [str(folder / "a.png"), str(folder / "d.png")]
    line, end = err.splitlines()
    assert line.startswith("unreadable: ")
    assert str(folder / "b.png") in line
    assert end == "error: 1 of 3 images cannot be read, see the lines above"


def test_bad_files_are_a_line_each_and_counted(
    run_folder: Path, folder: Path, capsys: Capture
) -> None:
    for number in range(7):
        (folder / f"c{number}.png").write_text("no image")
    status, out, err = _run(run_folder, capsys, folder)
    assert (status, len(out)) == (2, 4)
    *lines, end = err.splitlines()
    assert [f"c{number}.png" in lines[number] for number in range(7)] == [True] * 7
    assert end == "error: 7 of 9 images cannot be read, see the lines above"


def test_files_without_the_suffix_of_an_image_are_reported(
    run_folder: Path, folder: Path, capsys: Capture
) -> None:
    for name in ("1.heic", "2.HEIC", "notes.txt", "._a.png", "Thumbs.db"):
        (folder / name).write_text("x")
    status, out, err = _run(run_folder, capsys, folder)
    assert (status, len(out)) == (0, 4)
    assert err == f"{folder}: files without the suffix of an image are left out: .heic 2, .txt 1\n"


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "a.heic").touch()
    with pytest.raises(PredictError, match=r"no images in .*other files \(\.heic 1\)"):
        find_images([tmp_path])


def test_exif_orientation_is_applied(tmp_path: Path, run_folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    classifier = from_file(run_folder / "model_ema.safetensors")

    class Recorder(EvalTransform):
        def image(self, image: Image.Image) -> Image.Image:
            seen.append(image.size)
            return super().image(image)

    recording = dataclasses.replace(classifier, transform=Recorder(32))
    list(classify(recording, find_images([tmp_path / "a.jpg"]), 1))
    assert seen == [(30, 40)]


def test_weights_of_a_run_folder(tmp_path: Path, run_folder: Path) -> None:
    assert find_weights(run_folder) == run_folder / "model_ema.safetensors"
    (tmp_path / "model.safetensors").touch()
    assert find_weights(tmp_path) == tmp_path / "model.safetensors"
    assert find_weights(tmp_path / "model.safetensors") == tmp_path / "model.safetensors"


def test_the_newest_checkpoint_of_an_unfinished_run(tmp_path: Path) -> None:
    for name in ("checkpoint_00000009.pt", "checkpoint_00000010.pt"):
        (tmp_path / name).touch()
    assert find_weights(tmp_path) == tmp_path / "checkpoint_00000010.pt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothere.png", "--model", "fbnetv3_g"], "no such image or folder: nothere.png"),
        (["{tmp}", "--model", "fbnetv3_g"], "no images in"),
        (["{tmp}/a.doc", "--weights", "nothere.pt"], "nothere.pt: No such file"),
        (["{tmp}/a.doc", "--weights", "{tmp}"], "is a directory without weights"),
        (["{tmp}/a.doc", "--model", "fbnetv3-g"], "did you mean fbnetv3_g"),
        (["{tmp}/a.doc", "--model", "retinanet_x"], "unknown detector 'retinanet_x'"),
        (["{tmp}/list.txt", "--model", "fbnetv3_g"], "list.txt, line 2: no such image"),
        (["{tmp}/a.doc", "--model", "fbnetv3_g", "--output", "x.xml"], "x.xml: unknown suffix"),
        (["{tmp}/a.zip", "--model", "fbnetv3_g"], "a.zip: not a zip archive"),
    ],
)
def test_a_mistyped_path_is_answered_before_torch_is_imported(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    for name in ("a.doc", "a.zip"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("# photos\nb.png\n")
    argv = [argument.format(tmp=tmp_path) for argument in arguments]
    code = "import sys; sys.modules['torch'] = None; from fbnetv3.cli.predict import cli; cli()"
    command = [sys.executable, "-c", code, *argv]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_classes_as_json(
    folder: Path, run_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    image = tmp_path / "a b.png"
    Image.new("RGB", (32, 32)).save(image)
    assert main([str(image), "--weights", str(run_folder), "--json", "--device", "cpu"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["image"] == str(image)
    assert [item["name"] for item in row["classes"]] == ["dog", "cat"]
    assert sum(item["score"] for item in row["classes"]) == pytest.approx(1.0)


def test_boxes_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    image, drawn = tmp_path / "cells.png", tmp_path / "drawn"
    Image.new("RGB", (300, 240), (235, 225, 215)).save(image)
    options = ["--model", "retinanet_fbnetv3_a0.bccd", "--threshold", "0.01", "--device", "cpu"]
    assert main([str(image), *options, "--output", str(drawn), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    row = json.loads(line)
    assert Path(row["drawn"]).is_file()
    assert row["boxes"]
    for box in row["boxes"]:
        assert set(box) == {"name", "score", "box"}
        assert len(box["box"]) == 4
