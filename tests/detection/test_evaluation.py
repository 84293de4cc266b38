"""Average precision: agreement of the evaluators, and cases computed by hand."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from fbnetv3.detection.evaluation import BACKENDS, evaluate_boxes
from fbnetv3.detection.tables import class_table
from fbnetv3.errors import FBNetError


def _random_case(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    generator = np.random.default_rng(seed)
    images = [{"id": i, "width": 640, "height": 480} for i in range(1, 21)]
    categories = [{"id": i, "name": f"class {i}"} for i in (2, 3, 9, 20)]
    annotations, results = [], []
    for image in images:
        for _ in range(generator.integers(0, 12)):
            x, y = generator.uniform(0, 400, 2)
            w, h = np.exp(generator.uniform(2, 5.5, 2))
            category = int(generator.choice([2, 3, 9]))  # 20 has no box
            annotations.append({
                "id": len(annotations) + 1, "image_id": image["id"], "category_id": category,
                "bbox": [x, y, w, h], "area": w * h, "iscrowd": int(generator.random() < 0.1),
            })  # fmt: skip
            for _ in range(generator.integers(0, 4)):
                shift = generator.normal(0, 0.15, 4) * [w, h, w, h]
                box = np.array([x, y, w, h]) + shift
                guess = category if generator.random() < 0.8 else 3
                results.append({
                    "image_id": image["id"], "category_id": guess,
                    "bbox": np.maximum(box, 1.0).tolist(), "score": float(generator.random()),
                })  # fmt: skip
    return {"images": images, "annotations": annotations, "categories": categories}, results


@pytest.mark.parametrize("seed", range(5))
def test_the_evaluators_agree(seed: int) -> None:
    truth, results = _random_case(seed)
    fast, slow = (evaluate_boxes(truth, results, backend) for backend in BACKENDS)
    assert fast.overall == pytest.approx(slow.overall, abs=1e-9)
    assert fast.per_class.keys() == slow.per_class.keys()
    for name, numbers in fast.per_class.items():
        assert numbers == pytest.approx(slow.per_class[name], abs=1e-9)
    assert 5 < fast.overall["AP"] < 95
    assert list(fast.per_class) == ["class 2", "class 3", "class 9"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_evaluator_leaves_its_arguments_as_they_are(backend: str) -> None:
    arguments = _random_case(1)
    before = copy.deepcopy(arguments)
    evaluate_boxes(*arguments, backend)
    assert arguments == before


def _ground_truth(*boxes: list[float], crowd: int = 0) -> dict[str, Any]:
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": b, "area": 2500, "iscrowd": crowd}
        for i, b in enumerate(boxes)
    ]
    return {
        "images": [{"id": 1, "width": 99, "height": 99}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }


def _result(box: list[float], score: float = 0.9) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": box, "score": score}


@pytest.mark.parametrize("backend", BACKENDS)
def test_known_cases(backend: str) -> None:
    truth, box = _ground_truth([10, 10, 50, 50]), [10.0, 10.0, 50.0, 50.0]
    assert evaluate_boxes(truth, [_result(box)], backend).overall["AP"] == pytest.approx(100)
    # IoU 0.8: six of the ten thresholds from 0.50 to 0.75, and 0.80 itself
    low = evaluate_boxes(truth, [_result([10, 10, 50, 40])], backend).overall
    assert low["AP"] == pytest.approx(70)
    assert (low["AP50"], low["AP75"]) == pytest.approx((100, 100))
    assert evaluate_boxes(truth, [], backend).overall == {"AP": 0, "AP50": 0, "AP75": 0, "APm": 0}
    # one of two boxes is detected: a recall of 0.5 covers 51 of 101 points
    two = _ground_truth(box, [0, 0, 5, 5])
    assert evaluate_boxes(two, [_result(box)], backend).overall["AP"] == pytest.approx(
        100 * 51 / 101
    )
    # a detection inside a crowd counts neither as right nor as wrong
    crowded = _ground_truth(box, [60, 60, 30, 30])
    crowded["annotations"][1]["iscrowd"] = 1
    results = [_result(box), _result([62, 62, 9, 9], 0.95)]
    assert evaluate_boxes(crowded, results, backend).overall["AP"] == pytest.approx(100)


def test_an_unknown_evaluator() -> None:
    with pytest.raises(FBNetError, match="faster, pycocotools"):
        evaluate_boxes(_ground_truth(), [], "quick")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("detected", [True, False])
def test_classes_of_one_name_have_their_own_scores(backend: str, detected: bool) -> None:
    truth = _ground_truth([0, 0, 50, 50], [40, 40, 50, 50])
    truth["annotations"][1]["category_id"] = 4
    truth["categories"] += [{"id": 4, "name": "thing"}, {"id": 9, "name": "other"}]
    box = {"image_id": 1, "category_id": 4, "bbox": [40, 40, 50, 50], "score": 0.9}
    scores = evaluate_boxes(truth, [box] * detected, backend).per_class
    assert list(scores) == ["thing (1)", "thing (4)"]
    assert scores["thing (1)"] == (0, 0)
    assert scores["thing (4)"] == pytest.approx((100, 100) if detected else (0, 0))
    assert "thing (4)" in class_table({"raw": scores})


def _with_sizes(*sizes: float, crowd: int = 0) -> dict[str, Any]:
    truth = _ground_truth(*([0, 0, size, size] for size in sizes), crowd=crowd)
    for item, size in zip(truth["annotations"], sizes, strict=True):
        item["area"] = size * size
    truth["categories"].append({"id": 2, "name": "absent"})
    return truth


@pytest.mark.parametrize(
    ("truth", "names"),
    [
        (_with_sizes(), ()),
        (_with_sizes(20, crowd=1), ()),
        (_with_sizes(20), ("AP", "AP50", "AP75", "APs")),
        (_with_sizes(20, 50), ("AP", "AP50", "AP75", "APs", "APm")),
        (_with_sizes(20, 50, 97), ("AP", "AP50", "AP75", "APs", "APm", "APl")),
    ],
    ids=["no box", "crowds only", "small", "medium", "large"],
)
@pytest.mark.parametrize("results", [[], [_result([400, 400, 9, 9])]], ids=["none", "misses"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_exist_where_there_are_boxes(
    truth: dict[str, Any], names: tuple[str, ...], results: list[Any], backend: str
) -> None:
    scores = evaluate_boxes(truth, results, backend)
    assert scores.overall == dict.fromkeys(names, 0.0)
    assert scores.per_class == ({"thing": (0.0, 0.0)} if names else {})
