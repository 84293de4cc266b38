"""Which images a detector is scored and calibrated on, and data that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fbnetv3.data.errors import DataError
from fbnetv3.evaluation.run import EvaluateOptions
from fbnetv3.evaluation.run import open_data as open_evaluated
from fbnetv3.export.detectors.data import open_calibration, open_data
from tests.export.detectors.conftest import make_detector

SIZE = (40, 20)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, "white").save(path)


def yolo(folder: Path, label: str = "0 0.5 0.5 0.5 0.5") -> Path:
    """Writes three images for training, and two for validation."""
    for split, count in (("train", 3), ("val", 2)):
        for number in range(count):
            name = f"{split}{number}"
            picture(folder / "images" / split / f"{name}.png")
            file = folder / "labels" / split / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(label)
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    return folder / "data.yaml"


def voc(folder: Path, box: str = "1 1 20 20") -> Path:
    """Writes two images with annotations."""
    (folder / "Annotations").mkdir(parents=True)
    edges = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
    bounds = "".join(f"<{name}>{edge}</{name}>" for name, edge in edges)
    for stem in "ab":
        picture(folder / "JPEGImages" / f"{stem}.png")
        item = f"<object><name>cat</name><bndbox>{bounds}</bndbox></object>"
        text = f"<annotation><filename>{stem}.png</filename>{item}</annotation>"
        (folder / "Annotations" / f"{stem}.xml").write_text(text)
    return folder


def coco(folder: Path) -> Path:
    """Writes two images with a box each, whose area is that of a segmentation."""
    images, annotations = [], []
    for number, stem in ((7, "a"), (9, "b")):
        picture(folder / "images" / f"{stem}.png")
        about = {"id": number, "file_name": f"{stem}.png", "width": 40, "height": 20}
        images.append(about)
        box = {"bbox": [30, 5, 20, 10], "area": 50, "iscrowd": 0, "category_id": 3}
        annotations.append({"id": number, "image_id": number, **box})
    tree = {"images": images, "annotations": annotations}
    tree["categories"] = [{"id": 3, "name": "cat"}]
    (folder / "boxes.json").write_text(json.dumps(tree))
    return folder / "boxes.json"


def test_yolo_is_scored_on_its_validation_images(tmp_path: Path) -> None:
    yaml = yolo(tmp_path)
    for path in (yaml, tmp_path):
        scored, calibrated = open_data(str(path)), open_calibration(str(path))
        names = [[Path(r["file_name"]).stem for r in d.records] for d in (scored, calibrated)]
        assert names == [["val0", "val1"], ["train0", "train1", "train2"]]


@pytest.mark.parametrize(
    ("splits", "scored", "calibrated"),
    [
        ({"train": "train"}, "train", ""),
        ({"train": "train", "test": "val"}, "test", ""),
        ({"test": "val"}, "test", "test"),
        ({"val": "val", "test": "train"}, "", "val"),
    ],
)
def test_another_split_of_a_yaml_stands_in_for_a_missing_one(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    splits: dict[str, str],
    scored: str,
    calibrated: str,
) -> None:
    yaml = yolo(tmp_path)
    lines = (f"{split}: images/{folder}\n" for split, folder in splits.items())
    yaml.write_text(f"{''.join(lines)}names: [cat]\n")
    for opened, wanted, used in (
        (open_data, "val", scored),
        (open_calibration, "train", calibrated),
    ):
        caplog.clear()
        data = opened(str(yaml))
        stems = {Path(record["file_name"]).stem[:-1] for record in data.records}
        assert stems == {splits[used or wanted]}
        warning = [f"{yaml} has no split {wanted}: the images of {used} are used"]
        assert [record.message for record in caplog.records] == (warning if used else [])


def test_a_yaml_without_a_split_is_refused(tmp_path: Path) -> None:
    yaml = yolo(tmp_path)
    yaml.write_text("names: [cat]\n")
    with pytest.raises(DataError, match="no folder of split 'val'; allowed: none"):
        open_data(str(yaml))


def test_a_json_is_read_as_in_an_evaluation(tmp_path: Path) -> None:
    path = coco(tmp_path)
    (tmp_path / "net").mkdir()
    detector = make_detector(tmp_path / "net")
    scored, evaluated = open_data(str(path)), open_evaluated(detector, str(path), EvaluateOptions())
    assert scored == evaluated
    assert [record["image_id"] for record in scored.records] == [7, 9]
    assert scored.records[0]["annotations"][0]["bbox"] == [30, 5, 20, 10]
    assert scored.records[0]["annotations"][0]["area"] == 50


def missing_image(folder: Path) -> None:
    next(folder.rglob("b.png")).unlink()


def other_size(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(next(folder.rglob("b.png")))


def empty_image(folder: Path) -> None:
    next(folder.rglob("val1.png")).write_bytes(b"")


@pytest.mark.parametrize(
    ("write", "change", "message"),
    [
        (coco, missing_image, r"boxes.json: image 9: cannot read .*b.png: No such file"),
        (coco, other_size, r"boxes.json: image 9: .*b.png has 8 x 8 pixels"),
        (voc, missing_image, r"'b.png' is not in .*fbnetv3-data convert .* --skip-broken"),
        (yolo, empty_image, r"val1.png.*convert .* boxes.json --split val --skip-broken"),
    ],
)
def test_a_faulty_image_is_refused(
    write: Callable[[Path], Path], change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path)
    assert len(open_data(str(path))) == 2
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        open_data(str(path))


@pytest.mark.parametrize(
    ("write", "text", "message"),
    [
        (
            yolo,
            "0 0.5 0.5 1.5 0.5",
            r" problems: .*(val|train)0.txt, line 1: the box leaves the image",
        ),
        (yolo, "7 0.5 0.5 0.5 0.5", "class 7 is unknown; allowed: 0 to 0"),
        (voc, "20 1 10 20", r"has no area.*convert .* boxes.json --skip-broken"),
    ],
)
def test_faulty_boxes_are_refused(
    write: Callable[[Path, str], Path], text: str, message: str, tmp_path: Path
) -> None:
    path = str(write(tmp_path, text))
    for opened in (open_data, open_calibration):
        with pytest.raises(DataError, match=message):
            opened(path)
