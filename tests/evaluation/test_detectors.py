"""The evaluation of detectors: agreement with COCO's scores, and mistakes counted by hand."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.evaluation import evaluate_boxes
from fbnetv3.evaluation.detectors import mistakes_by_image, precision_curves, report_boxes
from fbnetv3.evaluation.errors import EvaluationError


def _record(folder: Path, number: int, boxes: list[tuple[int, list[float], int]]) -> dict[str, Any]:
    path = folder / f"{number}.png"
    Image.new("RGB", (60, 40), (90, 120, 150)).save(path)
    annotations = [
        {"bbox": box, "category_id": label, "area": box[2] * box[3], "iscrowd": crowd}
        for label, box, crowd in boxes
    ]
    about = {"file_name": str(path), "image_id": number, "height": 40, "width": 60}
    return {**about, "annotations": annotations}


@pytest.fixture
def data(tmp_path: Path) -> CocoDataset:
    """Two images with boxes, one of them a crowd, and one without."""
    (tmp_path / "images").mkdir()
    records = [
        _record(tmp_path / "images", 3, [(0, [0, 0, 10, 10], 0), (1, [20, 20, 10, 10], 0)]),
        _record(tmp_path / "images", 5, [(0, [5, 5, 20, 20], 0), (1, [40, 0, 10, 10], 1)]),
        _record(tmp_path / "images", 8, []),
    ]
    return CocoDataset("made", tmp_path / "made.json", ["cat", "dog"], [4, 9], records)


def _result(image: int, category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


RESULTS = [
    _result(3, 4, [1, 0, 10, 10], 0.9),  # found
    _result(3, 4, [0, 1, 10, 10], 0.8),  # the same one again: wrong
    _result(3, 4, [20, 20, 10, 10], 0.7),  # a dog: wrong, and the dog is missed
    _result(5, 4, [5, 5, 10, 10], 0.6),  # too small: wrong, and the cat is missed
    _result(5, 9, [40, 0, 9, 9], 0.5),  # in a crowd: neither
    _result(8, 9, [0, 0, 5, 5], 0.2),  # wrong, if it counts
]


def test_mistakes_of_each_image(data: CocoDataset) -> None:
    truth, before = data.ground_truth(), copy.deepcopy((data.ground_truth(), RESULTS))
    assert mistakes_by_image(truth, RESULTS) == {3: (1, 2), 5: (1, 1), 8: (0, 1)}
    assert mistakes_by_image(truth, RESULTS[:1]) == {3: (1, 0), 5: (1, 0), 8: (0, 0)}
    assert mistakes_by_image(truth, []) == {3: (2, 0), 5: (1, 0), 8: (0, 0)}
    assert (truth, RESULTS) == before


def test_the_curves_have_the_average_precision_of_coco(data: CocoDataset) -> None:
    truth = data.ground_truth()
    curves, recalls = precision_curves(truth, RESULTS)
    scores = evaluate_boxes(truth, RESULTS, "pycocotools")
    assert len(recalls) == 101
    assert list(curves) == list(scores.per_class) == ["cat", "dog"]
    for name, curve in curves.items():
        assert 100 * curve.mean() == pytest.approx(scores.per_class[name][1])


def test_the_files(data: CocoDataset, tmp_path: Path) -> None:
    before = copy.deepcopy(RESULTS)
    report = report_boxes(RESULTS, data, tmp_path / "out", worst=2, threshold=0.3)
    assert before == RESULTS
    lines = (tmp_path / "out" / "results.json").read_text().splitlines()
    assert [json.loads(line.rstrip(",")) for line in lines[1:-1]] == RESULTS
    assert all(file.is_file() for file in report.files)
    expected = evaluate_boxes(data.ground_truth(), RESULTS).overall
    assert report.scores["AP50"] == pytest.approx(expected["AP50"])
    assert (report.scores["missed"], report.scores["wrong"]) == (2, 3)
    with open(tmp_path / "out" / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).stem for row in rows] == ["3", "5", "8"]
    assert [(row["missed"], row["wrong"]) for row in rows] == [("1", "2"), ("1", "1"), ("0", "0")]


def test_a_detector_that_finds_nothing(data: CocoDataset, tmp_path: Path) -> None:
    report = report_boxes([], data, tmp_path / "out", worst=1, threshold=0.3)
    assert (report.scores["AP"], report.scores["missed"]) == (0, 3)
    assert not (tmp_path / "out" / "precision_recall.png").exists()


def test_data_without_boxes_are_refused(data: CocoDataset, tmp_path: Path) -> None:
    empty = data.replace_records(data.records[2:])
    with pytest.raises(EvaluationError, match="no box to score"):
        report_boxes(RESULTS, empty, tmp_path, worst=1, threshold=0.3)
