"""Files of results: csv, json, COCO results for pycocotools, and none after an error."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pycocotools.coco import COCO

from fbnetv3.predictions.annotations import ids_without_json, read_ids
from fbnetv3.predictions.batches import Prediction
from fbnetv3.predictions.errors import PredictError
from fbnetv3.predictions.inputs import ImageFile
from fbnetv3.predictions.outputs import results_file

TREE: dict[str, Any] = {
    "images": [
        {"id": 70, "file_name": "b/1.jpg", "width": 30, "height": 20},
        {"id": 50, "file_name": "1.jpg", "width": 30, "height": 20},
    ],
    "annotations": [],
    "categories": [{"id": 9, "name": "cat"}, {"id": 4, "name": "dog"}],
}


class Box(NamedTuple):
    """What a detector returns, without detectron2."""

    name: str
    score: float
    box: tuple[float, float, float, float]


IMAGES = [ImageFile(Path(name)) for name in ("photos/b/1.jpg", "photos/a/1.jpg")]
DOG, CAT = Box("dog", 0.75, (1, 2, 11, 7)), Box("cat", 0.5, (0, 0, 3, 3))
BOXES = [
    Prediction(0, IMAGES[0], boxes=[DOG, CAT]),
    Prediction(1, IMAGES[1], boxes=[]),
]
CLASSES = [
    Prediction(0, IMAGES[0], classes=[("cat", 0.625), ('a "b", c', 0.25)]),
    Prediction(1, ImageFile(Path("caf\udce9.jpg")), classes=[("cat", 1.0)]),
]


def test_the_classes_of_images_as_csv(tmp_path: Path) -> None:
    with results_file(tmp_path / "r.csv", None, ["cat", "dog"]) as add:
        for prediction in CLASSES:
            add(prediction)
    with open(tmp_path / "r.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["path", "rank", "class", "probability"],
        ["photos/b/1.jpg", "1", "cat", "0.625000"],
        ["photos/b/1.jpg", "2", 'a "b", c', "0.250000"],
        ["caf\udce9.jpg", "1", "cat", "1.000000"],
    ]


def test_the_classes_of_images_as_json(tmp_path: Path) -> None:
    with results_file(tmp_path / "r.json", None, ["cat", "dog"]) as add:
        for prediction in CLASSES:
            add(prediction)
    first, second = json.loads((tmp_path / "r.json").read_text())
    assert first["image"] == "photos/b/1.jpg"
    assert first["classes"][0] == {"name": "cat", "score": 0.625}
    assert second["image"] == "caf\udce9.jpg"


def test_boxes_as_csv(tmp_path: Path) -> None:
    with results_file(tmp_path / "r.csv", ids_without_json(IMAGES), ["cat", "dog"]) as add:
        for prediction in BOXES:
            add(prediction)
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert lines == [
        "path,rank,class,score,left,top,right,bottom",
        "photos/b/1.jpg,1,dog,0.750000,1.00,2.00,11.00,7.00",
        "photos/b/1.jpg,2,cat,0.500000,0.00,0.00,3.00,3.00",
    ]


def test_pycocotools_loads_the_results_of_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(TREE))
    images, ids = read_ids(tmp_path / "truth.json", IMAGES)
    assert (images, list(ids.image_ids)) == (IMAGES, [70, 50])
    with results_file(tmp_path / "r.json", ids, ["cat", "dog"]) as add:
        for prediction in BOXES:
            add(prediction)
    loaded = COCO(str(tmp_path / "truth.json")).loadRes(str(tmp_path / "r.json"))
    boxes = [loaded.anns[number] for number in sorted(loaded.anns)]
    assert [(b["image_id"], b["category_id"], b["bbox"], b["score"]) for b in boxes] == [
        (70, 4, [1, 2, 10, 5], 0.75),
        (70, 9, [0, 0, 3, 3], 0.5),
    ]


def test_results_without_a_json_name_files_and_classes(tmp_path: Path) -> None:
    with results_file(tmp_path / "r.json", ids_without_json(IMAGES), ["cat", "dog"]) as add:
        add(BOXES[0])
    first = json.loads((tmp_path / "r.json").read_text())[0]
    assert (first["image_id"], first["category_id"]) == (1, 2)
    assert (first["file_name"], first["category_name"]) == ("photos/b/1.jpg", "dog")


def test_images_that_a_json_lacks_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(TREE))
    images, ids = read_ids(tmp_path / "truth.json", [ImageFile(Path("z/2.jpg")), *IMAGES])
    assert (images, list(ids.image_ids)) == (IMAGES, [70, 50])
    assert "1 of 3 images are not in it: left out" in capsys.readouterr().err
    with pytest.raises(PredictError, match=r"has none of the images, such as z/2\.jpg"):
        read_ids(tmp_path / "truth.json", [ImageFile(Path("z/2.jpg"))])


@pytest.mark.parametrize(
    ("names", "files", "message"),
    [
        ({1: "1.png"}, ["a/1.png", "b/1.png"], "a/1.png and b/1.png are both the image 1.png of "),
        ({1: "1.png"}, ["a/1.png", "a/1.png"], "a/1.png and a/1.png are both the image 1.png of "),
        ({1: "a/1.png"}, ["x/a/1.png", "z/2.png", "y/a/1.png"], "are both the image a/1.png of "),
        ({1: "1.png", 2: "1.png"}, ["1.png"], "images 1 and 2 have the same file_name 1.png; "),
        ({1: "1.png", 2: "./1.png"}, ["1.png"], "images 1 and 2 have the same file_name 1.png; "),
        ({1: "1.png", 1.5: "2.png"}, ["1.png"], "images 1.png and 2.png have the same id 1; each"),
        ({1: "1.png", 2: "b/1.png"}, ["a/1.png", "b/1.png"], ""),
        ({1: "1.png", 2: "2.png"}, ["a/1.png", "b/2.png"], ""),
    ],
)
def test_an_entry_of_a_json_is_one_image(
    tmp_path: Path, names: dict[float, str], files: list[str], message: str
) -> None:
    images = [{"id": number, "file_name": name} for number, name in names.items()]
    (tmp_path / "truth.json").write_text(json.dumps({**TREE, "images": images}))
    found = [ImageFile(Path(file)) for file in files]
    if not message:
        assert list(read_ids(tmp_path / "truth.json", found)[1].image_ids) == [1, 2]
        return
    with pytest.raises(PredictError, match=re.escape(message)) as caught:
        read_ids(tmp_path / "truth.json", found)
    assert str(tmp_path / "truth.json") in str(caught.value)


@pytest.mark.parametrize("text", ["no json", "[]", '{"images": [1]}', '{"images": []}', "[" * 9999])
def test_a_json_of_another_kind_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(PredictError, match="is not COCO json"):
        read_ids(tmp_path / "truth.json", IMAGES)


def test_a_class_that_the_json_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(TREE))
    _, ids = read_ids(tmp_path / "truth.json", IMAGES)
    with pytest.raises(PredictError, match=r"no category 'dogs'.*did you mean dog"):
        ids.of_classes(["cat", "dogs"])


@pytest.mark.parametrize("name", ["r.csv", "r.json"])
def test_after_an_error_there_is_no_file(tmp_path: Path, name: str) -> None:
    def interrupted() -> None:
        with results_file(tmp_path / name, None, ["cat"]) as add:
            add(CLASSES[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_no_result_is_an_empty_list(tmp_path: Path) -> None:
    with results_file(tmp_path / "r.json", None, ["cat"]):
        pass
    assert json.loads((tmp_path / "r.json").read_text()) == []
