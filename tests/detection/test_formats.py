"""Boxes in the formats of Pascal VOC, YOLO and Open Images, converted to COCO's."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fbnetv3.cli import run_main
from fbnetv3.cli.data import main
from fbnetv3.data.errors import DataError
from fbnetv3.detection.coco import read_coco
from fbnetv3.detection.formats.check import check_data
from fbnetv3.detection.formats.opening import open_boxes
from fbnetv3.detection.formats.voc import read_voc

# (class, x, y, width, height) in pixels of an image of 40 x 20
BOXES = {"a": [("cat", 0, 0, 10, 20), ("dog", 5.5, 2, 30, 8)], "b": [("dog", 20, 10, 20, 10)]}
CLASSES = ["cat", "dog"]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20), "white").save(path)


def voc(folder: Path) -> Path:
    (folder / "Annotations").mkdir(parents=True)
    for stem, boxes in BOXES.items():
        picture(folder / "JPEGImages" / f"{stem}.png")
        objects = "".join(
            f"<object><name>{c}</name><difficult>{int(stem == 'b')}</difficult><bndbox>"
            f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
            "</bndbox></object>"
            for c, x, y, w, h in boxes
        )
        text = f"<annotation><filename>{stem}.jpg</filename>{objects}</annotation>"
        (folder / "Annotations" / f"{stem}.xml").write_text(text)
    return folder


def yolo(folder: Path) -> Path:
    (folder / "labels" / "val").mkdir(parents=True)
    for stem, boxes in BOXES.items():
        picture(folder / "images" / "val" / f"{stem}.png")
        lines = [
            f"{CLASSES.index(c)} {(x + w / 2) / 40} {(y + h / 2) / 20} {w / 40} {h / 20}"
            for c, x, y, w, h in boxes
        ]
        (folder / "labels" / "val" / f"{stem}.txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text("train: images/val\nval: images/val\nnames: [cat, dog]\n")
    return folder / "data.yaml"


def open_images(folder: Path) -> Path:
    rows = ["ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf"]
    for stem, boxes in BOXES.items():
        picture(folder / "images" / f"{stem}.png")
        rows += [
            f"{stem},/m/{c},{x / 40},{(x + w) / 40},{y / 20},{(y + h) / 20},{int(stem == 'b')}"
            for c, x, y, w, h in boxes
        ]
    (folder / "class-descriptions.csv").write_text("/m/cat,cat\n/m/dog,dog\n")
    (folder / "boxes.csv").write_text("\n".join(rows))
    return folder / "boxes.csv"


@pytest.mark.parametrize("write", [voc, yolo, open_images])
def test_conversions_are_read_like_coco(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = write(tmp_path / "set"), tmp_path / "boxes.json"
    assert main(["convert", str(source), str(target)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("2 images, 3 boxes, 2 classes: cat 1, dog 2")
    ((name, path, root),) = json.loads(lines[1].split(maxsplit=1)[1].strip('"').replace("'", '"'))
    dataset = read_coco(name, Path(path), Path(root))
    assert dataset.classes == CLASSES
    found = {
        Path(record["file_name"]).stem: [
            (CLASSES[item["category_id"]], *item["bbox"]) for item in record["annotations"]
        ]
        for record in dataset.records
    }
    assert found == BOXES
    crowds = {item["iscrowd"] for r in dataset.records for item in r["annotations"]}
    assert crowds == ({0} if write is yolo else {0, 1})


def test_a_list_of_a_split_selects_images(tmp_path: Path) -> None:
    folder = voc(tmp_path / "set")
    split = folder / "ImageSets" / "Main" / "val.txt"
    split.parent.mkdir(parents=True)
    split.write_text("b\n")
    assert [image.file for image in open_boxes(split).images] == ["b.png"]


def test_polygons_become_their_boxes(tmp_path: Path) -> None:
    path = yolo(tmp_path)
    (tmp_path / "labels" / "val" / "b.txt").write_text("1 0.5 0.5 1.0 0.75 0.5 1.0")
    box = open_boxes(path).images[1].boxes[0]
    assert (box.left, box.top, box.right, box.bottom) == (20, 10, 40, 20)


def test_a_name_with_its_suffix_comes_before_its_stem(tmp_path: Path) -> None:
    path = voc(tmp_path)
    picture(path / "JPEGImages" / "a.jpg")  # beside a.png
    assert "a.jpg" in [image.file for image in open_boxes(path).images]


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
OUTSIDE = "train: ../../../etc\nnames: [cat]\n"


@pytest.mark.parametrize(
    ("write", "file", "text", "fault"),
    [
        (voc, "Annotations/a.xml", BOMB, "a document type (<!DOCTYPE ...>) is not allowed"),
        (voc, "Annotations/a.xml", "<annotation>", "not readable as XML"),
        (voc, "Annotations/a.xml", "<a>" * 40 + "</a>" * 40, "32 levels"),
        (voc, "Annotations/a.xml", "<a><filename>../../x</filename></a>", ""),
        (
            voc,
            "Annotations/a.xml",
            "<a><size><width>4</width><height>4</height></size></a>",
            "the size is 4 x 4, but a.png has 40 x 20",
        ),
        (voc, "Annotations/a.xml", "<a><object><name>x</name></object></a>", "object 1 has no"),
        (yolo, "labels/val/a.txt", "7 0.5 0.5 0.1 0.1", "class 7 is unknown; allowed: 0 to 1"),
        (yolo, "labels/val/a.txt", "0 5 5 1 1", "line 1: the box leaves the image"),
        (yolo, "labels/val/a.txt", "cat", "'cat' is not CLASS X Y WIDTH HEIGHT"),
        (yolo, "labels/val/a.txt", "0 0.5 0.5 0 0", "has no area"),
        (yolo, "images/val/a.png", "no image", "image images/val/a.png"),
        (open_images, "images/a.png", "no image", "image a.png"),
        (
            open_images,
            "boxes.csv",
            "ImageID,LabelName,XMin,XMax,YMin,YMax\na,cat,0,1,0,1\n\na,cat,x,1,0,1\n",
            "line 4: XMin, XMax, YMin and YMax are not all numbers",
        ),
    ],
)
def test_faults_are_named_and_left_out(
    write: Any, file: str, text: str, fault: str, tmp_path: Path, capsys: Any
) -> None:
    source, target = write(tmp_path / "set"), tmp_path / "boxes.json"
    (tmp_path / "set" / file).write_text(text)
    assert run_main(main, ["convert", str(source), str(target)]) == (2 if fault else 0)
    out, error = capsys.readouterr()
    assert fault in out
    if fault:
        assert out.count("fault: ") == 1 + (write is open_images) * 0
        assert "so that nothing was written" in error
        assert not target.exists()
        assert run_main(main, ["convert", str(source), str(target), "--skip-broken"]) == 0
        assert json.loads(target.read_text())["images"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OUTSIDE, "outside of the folder of the yaml"),
        ("train: images/val\nnames: {0: cat, 2: dog}\n", "names .* is not allowed"),
        ("names: [cat]\n", "no folder of split 'train'; allowed: none"),
        ("[1, 2]", "not a yaml of YOLO"),
        ("train: nowhere\nnames: [cat]\n", "is not a folder of images"),
    ],
)
def test_yamls_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = yolo(tmp_path)
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        open_boxes(path)


def test_image_folders_may_lie_beside_the_path_of_a_yaml(tmp_path: Path) -> None:
    path = yolo(tmp_path)
    path.write_text("path: labels\ntrain: ../images/val\nnames: [cat, dog]\n")
    files = [image.file for image in open_boxes(path).images]
    assert files == ["images/val/a.png", "images/val/b.png"]


def test_a_folder_named_like_a_csv_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*boxes\.csv: Is a directory"):
        check_data(str(tmp_path / "boxes.csv"))


def test_a_list_needs_its_folders() -> None:
    with pytest.raises(DataError, match=r"train.txt: give a list of Pascal VOC as FOLDER"):
        read_voc(Path("train.txt"))


@pytest.mark.parametrize("name", ["nowhere", "x.csv", "empty", "folder.yaml"])
def test_other_paths_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(DataError, match=r"no such file|no boxes in a format|cannot (be )?read"):
        open_boxes(tmp_path / name)


def test_a_check_draws_samples_and_counts(tmp_path: Path, capsys: Any) -> None:
    sheet = tmp_path / "sheet.png"
    assert main(["check", str(voc(tmp_path / "set")), "--picture", str(sheet)]) == 0
    assert "2 classes: cat 1, dog 2" in capsys.readouterr().out
    with Image.open(sheet) as image:
        colours = {pixel for _, pixel in image.convert("RGB").getcolors(1 << 20)}  # type: ignore
    assert (0, 90, 200) in colours  # the first class's boxes
    assert main(["check", "digits_test", "--picture", str(sheet)]) == 0
    assert "10 classes: 0 " in capsys.readouterr().out
    (tmp_path / "set" / "JPEGImages" / "a.png").unlink()
    assert main(["check", str(tmp_path / "set")]) == 1
    assert "fault: " in capsys.readouterr().out


def test_a_converted_json_is_checked_with_the_folder_of_its_images(
    tmp_path: Path, capsys: Any
) -> None:
    source, target = voc(tmp_path / "set"), tmp_path / "boxes.json"
    assert main(["convert", str(source), str(target)]) == 0
    printed = capsys.readouterr().out
    assert run_main(main, ["check", str(target)]) == 2
    assert f"no such file in {tmp_path} (--images DIR names" in capsys.readouterr().err
    (command,) = (line for line in printed.splitlines() if "fbnetv3-data check" in line)
    sheet = str(tmp_path / "samples.png")
    argv = shlex.split(command.partition("fbnetv3-data ")[2].replace("samples.png", sheet))
    assert argv[:4] == ["check", str(target), "--images", str(tmp_path / "set" / "JPEGImages")]
    assert run_main(main, argv) == 0


@pytest.mark.parametrize(("column", "faults"), [("label", 1), ("labels", 0)])
def test_one_class_teaches_nothing_unless_images_may_lack_it(
    column: str, faults: int, tmp_path: Path
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "table.csv").write_text(f"path,{column}\na.png,cat\n")
    assert len(check_data(str(tmp_path / "table.csv")).faults) == faults
