"""Average precision: both evaluators, and cases worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fbnetv3.detection.evaluation import BACKENDS, evaluate_boxes
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
def test_both_evaluators_give_equal_numbers(seed: int) -> None:
    truth, results = _random_case(seed)
    fast, slow = (evaluate_boxes(truth, results, backend) for backend in BACKENDS)
    assert fast.overall == pytest.approx(slow.overall, abs=1e-9)
    assert fast.per_class.keys() == slow.per_class.keys()
    for name, both in fast.per_class.items():
        assert both == pytest.approx(slow.per_class[name], abs=1e-9)
    assert 5 < fast.overall["AP"] < 95
    assert list(fast.per_class) == ["class 2", "class 3", "class 9"]


def _one(*boxes: list[float], crowd: int = 0) -> dict[str, Any]:
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": b, "area": 2500, "iscrowd": crowd}
        for i, b in enumerate(boxes)
    ]
    return {
        "images": [{"id": 1, "width": 99, "height": 99}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }


def _found(box: list[float], score: float = 0.9) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": box, "score": score}


@pytest.mark.parametrize("backend", BACKENDS)
def test_known_cases(backend: str) -> None:
    truth, box = _one([10, 10, 50, 50]), [10.0, 10.0, 50.0, 50.0]
    assert evaluate_boxes(truth, [_found(box)], backend).overall["AP"] == pytest.approx(100)
    # IoU 0.8: six of the ten thresholds from 0.50 to 0.75, and 0.80 itself
    low = evaluate_boxes(truth, [_found([10, 10, 50, 40])], backend).overall
    assert low["AP"] == pytest.approx(70)
    assert (low["AP50"], low["AP75"]) == pytest.approx((100, 100))
    assert evaluate_boxes(truth, [], backend).overall == {"AP": 0, "AP50": 0, "AP75": 0}
    # one of two found: recall 0.5 covers 51 of 101 points
    two = _one(box, [0, 0, 5, 5])
    assert evaluate_boxes(two, [_found(box)], backend).overall["AP"] == pytest.approx(
        100 * 51 / 101
    )
    # found in a crowd: neither right nor wrong
    crowded = _one(box, [60, 60, 30, 30])
    crowded["annotations"][1]["iscrowd"] = 1
    found = [_found(box), _found([62, 62, 9, 9], 0.95)]
    assert evaluate_boxes(crowded, found, backend).overall["AP"] == pytest.approx(100)


def test_an_unknown_evaluator() -> None:
    with pytest.raises(FBNetError, match="faster, pycocotools"):
        evaluate_boxes(_one(), [], "quick")
