"""COCO JSON files and images, valid and broken."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fbnetv3.data import DataError
from fbnetv3.detection.coco import CocoDataset, read_coco
from fbnetv3.detection.formats.opening import open_boxes
from fbnetv3.detection.images import check_images

from .conftest import Tree, coco_tree, paint


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Any], CocoDataset]:
    def from_tree(tree: Any) -> CocoDataset:
        path = tmp_path / "broken.json"
        path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
        return read_coco("custom", path, tmp_path / "images")

    return from_tree


def test_a_valid_file(read: Callable[[Any], CocoDataset]) -> None:
    dataset = read(coco_tree())
    assert dataset.classes == ["disc", "square"]  # in the order of their ids, 3 and 7
    assert [a["category_id"] for a in dataset.records[0]["annotations"]] == [1, 0]
    assert dataset.notes == (
        "1 images have no box",
        "2 crowd boxes are not trained on and do not count as misses in evaluation",
    )
    truth = dataset.ground_truth()
    assert len(truth["annotations"]) == 30
    assert truth["annotations"][0]["category_id"] == 7


def _change(where: str, index: int, **values: Any) -> Callable[[Tree], None]:
    return lambda tree: tree[where][index].update(values)


BROKEN: list[tuple[Callable[[Tree], Any], str]] = [
    (_change("annotations", 0, bbox=[70, 0, 5, 5]), r"annotation 1 \(image 1, .*1\.png\).*outside"),
    (_change("annotations", 0, bbox=[-9, 0, 5, 5]), "annotation 1 .*outside"),
    (_change("annotations", 0, bbox=[1, 1, -5, 5]), "annotation 1 .*negative"),
    (_change("annotations", 0, bbox=[1, 1, 5]), "annotation 1 .*x, y, width, height"),
    (_change("annotations", 0, bbox=[1, 1, float("nan"), 5]), "annotation 1 .*x, y, width"),
    (_change("annotations", 0, bbox=None), "annotation 1 .*bbox None"),
    (_change("annotations", 0, category_id=8), "annotation 1 .*category_id 8; allowed: 3, 7"),
    (_change("annotations", 1, id=1), "annotation id 1 is used more than once"),
    (_change("annotations", 0, image_id=99), "annotation 1 has image_id 99"),
    (_change("annotations", 0, iscrowd=2), "annotation 1 .*iscrowd"),
    (_change("annotations", 0, area="big"), "annotation 1 .*area"),
    (_change("annotations", 0, id="x"), r"annotations\[0\] has id 'x'"),
    (_change("images", 1, id=1), "image id 1 is used more than once"),
    (_change("images", 1, width=0), r"image 2 \(2.png\) has width"),
    (_change("images", 1, file_name=""), "image 2 has no file_name"),
    (_change("categories", 1, id=7), "category id 7 is used more than once"),
    (_change("categories", 1, name=3), "category 3 has no name"),
    (lambda tree: tree.pop("images"), "no list 'images'"),
    (lambda tree: tree["images"].clear(), "no images"),
    (lambda tree: tree["annotations"].append(7), r"annotations\[30\] is not a mapping"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_the_error_of_a_wrong_entry_is_one_line_with_file_and_id(
    read: Callable[[Any], CocoDataset], change: Callable[[Tree], Any], message: str
) -> None:
    tree = coco_tree()
    change(tree)
    with pytest.raises(DataError, match=message) as caught:
        read(tree)
    assert "broken.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\x00\xff", "[" * 100_000])
def test_files_that_are_not_json(read: Callable[[Any], CocoDataset], text: str) -> None:
    with pytest.raises(DataError, match=r"broken\.json"):
        read(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><folder>x</folder></annotation>", "XML of Pascal VOC.*fbnetv3-data convert"),
        ('\ufeff<?xml version="1.0"?>\n<annotation/>', "XML of Pascal VOC"),
        ("<svg/>", "it is XML, but not of Pascal VOC"),
        ("<!DOCTYPE html><html></html>", "it is a web page"),
        ("PK\x03\x04", "it is an archive"),
        ("", "it is empty"),
        ("0 0.5 0.5 0.1 0.1\n", "labels of YOLO.*fbnetv3-data convert data.yaml"),
        ("1 0 0 1 0 1 1\n0 0.5 0.5 0.1 0.", "labels of YOLO"),
        ("0 0.5\n", "Extra data"),
        ("0 0.5 0.5 0.1 one\n", "Extra data"),
        ("path: .\ntrain: a\nnames: [b]\n", "yaml of a data set of YOLO; convert it with"),
        ("ImageID,LabelName,XMin,XMax,YMin,YMax\n", "CSV of Open Images; convert it with"),
        ("ImageID,LabelName\n", "Expecting value"),
        ('[{"image_id": 1}]', "holds a list of results"),
    ],
)
def test_other_formats_are_named(
    read: Callable[[Any], CocoDataset], text: str, message: str
) -> None:
    with pytest.raises(DataError, match=rf"broken\.json .*{message}") as caught:
        read(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["Annotations/1.xml"], "folder of Pascal VOC; .* convert SET boxes.json"),
        (["1.xml"], "folder of Pascal VOC; .* convert SET boxes.json"),
        (["a.yaml", "data.yaml", "labels/1.txt"], "folder of YOLO; .* convert SET/data.yaml boxes"),
        (["coco8.yaml"], "folder of YOLO; .* convert SET/coco8.yaml boxes.json"),
        (["1.txt"], "labels of YOLO"),
        (["1.jpg"], "cannot read SET: Is a directory"),
    ],
)
def test_folders_of_other_formats_are_named(files: list[str], message: str, tmp_path: Path) -> None:
    for name in files:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    with pytest.raises(DataError, match=message.replace("SET", str(tmp_path / "set"))):
        read_coco("custom", tmp_path / "set", tmp_path)


@pytest.mark.parametrize("place", ["", "Annotations/"])
def test_the_conversion_that_is_advised_for_an_xml_works(tmp_path: Path, place: str) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "1.jpg")
    box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>"
    xml = tmp_path / place / "1.xml"
    xml.parent.mkdir(exist_ok=True)
    xml.write_text(
        f"<annotation><filename>1.jpg</filename><object><name>cat</name>{box}</object></annotation>"
    )
    with pytest.raises(DataError) as caught:
        read_coco("custom", xml, tmp_path)
    folder = str(caught.value).split("fbnetv3-data convert ")[1].split(" boxes.json")[0]
    assert len(open_boxes(Path(folder), tmp_path).to_coco()["annotations"]) == 1


def test_several_problems_are_counted_and_named(read: Callable[[Any], CocoDataset]) -> None:
    tree = coco_tree()
    for item in tree["annotations"][:8]:
        item["bbox"] = None
    with pytest.raises(DataError, match=r"8 problems: annotation 1 .* \| annotation 5 .*3 more"):
        read(tree)


def test_a_summary_counts_boxes_by_class(read: Callable[[Any], CocoDataset]) -> None:
    assert (
        read(coco_tree()).summary() == "custom: 16 images, 30 boxes, 2 classes: disc 15, square 15"
    )


def test_unusual_entries_that_coco_allows(read: Callable[[Any], CocoDataset]) -> None:
    tree = coco_tree()
    tree["annotations"][0]["bbox"] = [10, 10, 5, 0]  # official COCO has such boxes
    tree["annotations"][2]["bbox"] = [50, 50, 40, 40]
    del tree["annotations"][3]["iscrowd"], tree["annotations"][3]["area"]
    dataset = read(tree)
    assert "1 boxes without area are left out: annotations 1" in dataset.notes[0]
    assert "1 boxes extend beyond their image" in dataset.notes[1]
    assert len(dataset.records[0]["annotations"]) == 1


def _mutated(text: str, generator: random.Random) -> str:
    """Returns JSON text with random errors, in its characters or in its entries."""
    if generator.random() < 0.3:
        i = generator.randrange(len(text))
        return text[:i] + generator.choice(["", "}", '"', "-", "\u0000", "1e999"]) + text[i + 1 :]
    tree = json.loads(text)
    for _ in range(generator.randrange(1, 4)):
        where = generator.choice(["images", "annotations", "categories"])
        entry = generator.choice(tree[where])
        key = generator.choice(list(entry))
        wrong_values: list[Any] = [
            None, -1, 0, 1e400, "x", [], {}, True, 2**70, [1, 2], ["a"] * 4, [1e308] * 4, [-5] * 4,
        ]  # fmt: skip
        if generator.random() < 0.3:
            del entry[key]
            if not entry:
                entry["x"] = 1
        else:
            entry[key] = copy.deepcopy(generator.choice(wrong_values))
    return json.dumps(tree)


@pytest.mark.parametrize("seed", range(100))
def test_random_errors_in_a_file(read: Callable[[Any], CocoDataset], seed: int) -> None:
    text = _mutated(json.dumps(coco_tree(4)), random.Random(seed))
    message = ""
    try:
        dataset = read(text)
    except DataError as error:
        message = str(error)
    if message:
        assert "broken.json" in message
        return
    for record in dataset.records:  # the accepted entries are valid
        assert record["width"] > 0
        assert all(min(item["bbox"][2:]) > 0 for item in record["annotations"])


@pytest.fixture
def painted(tmp_path: Path, read: Callable[[Any], CocoDataset]) -> CocoDataset:
    tree = coco_tree(5)
    paint(tree, tmp_path / "images")
    for number, mode in ((4, "L"), (5, "CMYK")):
        path = tmp_path / "images" / f"{number}.png"
        image = Image.open(path).convert(mode)
        image.save(path, "JPEG")
    return read(tree)


def test_grey_and_cmyk_images_are_accepted(painted: CocoDataset) -> None:
    assert check_images(painted, decode=True, skip_broken=False) is painted


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), "image 4: cannot read .*4.png: No such file"),
        (lambda p: p.write_bytes(p.read_bytes()[:-300]), "image 4: .*4.png: cannot decode"),
        (lambda p: p.write_text("hello"), "image 4: .*4.png: not an image"),
        (
            lambda p: Image.new("RGB", (64, 32)).save(p, "PNG"),
            "image 4: .*64 x 32 pixels, but the JSON file says 64 x 64",
        ),
    ],
)
def test_broken_images(painted: CocoDataset, damage: Callable[[Path], Any], message: str) -> None:
    damage(Path(painted.records[3]["file_name"]))
    with pytest.raises(DataError, match=message):
        check_images(painted, decode=True, skip_broken=False)
    kept = check_images(painted, decode=True, skip_broken=True)
    assert [r["image_id"] for r in kept.records] == [1, 2, 3, 5]


def test_all_of_several_broken_images_are_named(painted: CocoDataset) -> None:
    for number in (0, 2, 4):
        Path(painted.records[number]["file_name"]).write_text("hello")
    with pytest.raises(DataError, match=r"3 problems: image 1: .* \| image 3: .* \| image 5: "):
        check_images(painted, decode=True, skip_broken=False)
