"""``fbnetv3-predict --output``: files of results, and the options that do not fit."""

from __future__ import annotations

import csv
import io
import json
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fbnetv3.arch import get_arch
from fbnetv3.arch.scaling import low_resolution, with_num_classes
from fbnetv3.cli import run_main
from fbnetv3.cli.predict import main
from fbnetv3.modeling import build_model

Capture = pytest.CaptureFixture[str]
DETECTOR = ("--model", "retinanet_fbnetv3_a0.bccd", "--device", "cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of two classes that always predicts "dog"."""
    arch = with_num_classes(low_resolution(get_arch("fbnetv3_a0"), 32), 2)
    model = build_model(arch, num_classes=2)
    torch.nn.init.zeros_(model.head.fc.weight)
    with torch.no_grad():
        model.head.fc.bias.copy_(torch.tensor([0.0, 2.0]))
    path = tmp_path_factory.mktemp("weights") / "dog.safetensors"
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, path, {"arch": arch.to_yaml(), "classes": json.dumps(["cat", "dog"])})
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A zip of two images, a folder with one that is damaged, and a list of both."""
    folder = tmp_path / "photos"
    folder.mkdir()
    content = io.BytesIO()
    Image.new("RGB", (300, 240), (235, 225, 215)).save(content, "PNG")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        for name in ("x/1.png", "x/2.png"):
            archive.writestr(name, content.getvalue())
    (folder / "a.png").write_bytes(content.getvalue())
    (folder / "b.png").write_text("no image")
    (tmp_path / "list.txt").write_text("more.zip\nphotos\n")
    return tmp_path


def test_a_list_with_a_damaged_image_as_csv(weights: Path, photos: Path, capsys: Capture) -> None:
    output = photos / "made" / "results.csv"
    argv = [str(photos / "list.txt"), "--weights", str(weights), "--output", str(output)]
    assert run_main(main, [*argv, "--top-k", "1", "--batch-size", "2", "--device", "cpu"]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{output}: 3 of 4 images\n"
    line, end = captured.err.splitlines()
    assert line.startswith(f"unreadable: {photos / 'photos' / 'b.png'}")
    assert end == "error: 1 of 4 images cannot be read, see the lines above"
    rows = list(csv.DictReader(output.read_text().splitlines()))
    names = ("more.zip/x/1.png", "more.zip/x/2.png", "photos/a.png")
    assert [row["path"] for row in rows] == [str(photos / name) for name in names]
    assert {(row["class"], row["probability"]) for row in rows} == {("dog", "0.880797")}


def test_a_terminal_sees_progress_and_a_pipe_does_not(
    weights: Path, photos: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [str(photos / "more.zip"), "--weights", str(weights), "--device", "cpu"]
    argv += ["--output", str(photos / "results.json")]
    assert run_main(main, argv) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run_main(main, argv) == 0
    assert "predicting" in capsys.readouterr().err
    assert len(json.loads((photos / "results.json").read_text())) == 2
    assert run_main(main, [*argv[:-2], "--json"]) == 0
    captured = capsys.readouterr()
    assert "predicting" in captured.err  # standard output is no terminal
    assert [json.loads(line)["classes"][0]["name"] for line in captured.out.splitlines()] == [
        "dog",
        "dog",
    ]


def test_boxes_as_coco_results_without_pictures(
    photos: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = enumerate(("RBC", "WBC", "Platelets"))
    tree = {
        "images": [{"id": 7, "file_name": "a.png", "width": 300, "height": 240}],
        "categories": [{"id": 10 + i, "name": name} for i, name in names],
    }
    (photos / "truth.json").write_text(json.dumps(tree))
    monkeypatch.chdir(photos)
    monkeypatch.setattr(sys, "stdin", io.StringIO("photos/a.png\n"))
    argv = ["-", *DETECTOR, "--annotations", "truth.json", "--output", "boxes.json"]
    assert run_main(main, argv) == 0
    results = json.loads(Path("boxes.json").read_text())
    assert results  # without --threshold, all boxes are written
    assert min(result["score"] for result in results) < 0.3
    assert {result["image_id"] for result in results} == {7}
    assert {result["category_id"] for result in results} <= {10, 11, 12}
    assert set(results[0]) == {"image_id", "category_id", "bbox", "score"}
    assert not Path("output").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "results.xml"], "unknown suffix; allowed: .csv, .json"),
        (["--output", "a", "--pictures", "b"], "both name a folder"),
        (["--output", "/proc/none/a.csv"], "cannot write /proc/none/a.csv"),
        (["--annotations", "x.json"], "--annotations applies to a json of COCO results"),
        (["--annotations", "x.json", "--output", "y.json"], "cannot read x.json"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    options: list[str], message: str, photos: Path, weights: Path, capsys: Capture
) -> None:
    argv = [str(photos / "more.zip"), "--weights", str(weights), *options]
    assert run_main(main, argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("value", ["-0.1", "1.5", "nan", "x"])
def test_a_threshold_outside_of_0_to_1(value: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["a.png", "--model", "fbnetv3_g", f"--threshold={value}"])
    assert "must be a number from 0 to 1" in capsys.readouterr().err


def test_a_detector_is_not_explained(
    photos: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbnetv3.cli.predict.require_installed", lambda package, extra: None)
    argv = [str(photos / "more.zip"), *DETECTOR, "--explain"]
    assert run_main(main, argv) == 2
    assert "--explain is for classifiers" in capsys.readouterr().err


NOT_CLASSIFIER = "has no effect with a classifier; leave it out"
NOT_DETECTOR = "has no effect with a detector; leave it out"


@pytest.mark.parametrize(
    ("is_detector", "options", "message"),
    [
        (False, ["--threshold", "0.99"], f"--threshold {NOT_CLASSIFIER}"),
        (False, ["--threshold", "0", "--json"], f"--threshold {NOT_CLASSIFIER}"),
        (
            False,
            ["--annotations", "all.json", "--output", "r.json"],
            f"--annotations {NOT_CLASSIFIER}",
        ),
        (False, ["--pictures", "drawn"], "--pictures has no effect with a classifier without --ex"),
        (False, ["--output", "results"], "--output results is read as a folder of pictures, which"),
        (False, ["--output", "photos"], "give a file such as results.csv or results.json, or add"),
        (True, ["--top-k", "3"], f"--top-k {NOT_DETECTOR}"),
        (True, ["--top-k", "1", "--output", "r.csv"], f"--top-k {NOT_DETECTOR}"),
    ],
)
def test_an_option_without_effect_is_refused(
    is_detector: bool, options: list[str], message: str, photos: Path, weights: Path,
    capsys: Capture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(photos)
    names = {"images": [{"id": 1, "file_name": "1.png"}], "categories": []}
    Path("all.json").write_text(json.dumps(names))
    before = sorted(photos.rglob("*"))
    network = DETECTOR if is_detector else ("--weights", str(weights), "--device", "cpu")
    assert run_main(main, ["more.zip", *network, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.splitlines()[-1].startswith("error: ")
    assert sorted(photos.rglob("*")) == before


def test_options_with_their_default_values_are_accepted(
    photos: Path, weights: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    assert run_main(main, ["more.zip", *DETECTOR, "--top-k", "5", "--output", "r.csv"]) == 0
    assert run_main(main, ["more.zip", "--weights", str(weights), "--top-k", "1"]) == 0
    assert "dog" in capsys.readouterr().out
