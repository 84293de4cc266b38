"""COCO's average precision (AP) of boxes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fbnetv3.errors import FBNetError
from fbnetv3.weights.classes import distinct_names

BACKENDS = ("faster", "pycocotools")
"""Names of the COCO evaluators."""
SCORES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""Names of the scores over all classes."""


@dataclass(frozen=True)
class BoxScores:
    """Average precisions in percent.

    Attributes:
        overall: ``AP`` (mean over IoU thresholds from 0.50 to 0.95), ``AP50``, ``AP75``, and
            ``APs``, ``APm`` and ``APl`` of small, medium and large boxes. Scores for which the
            data have no box are left out; crowds do not count as boxes.
        per_class: Mapping from class to (AP, AP50). Classes without a box are left out.
    """

    overall: dict[str, float]
    per_class: dict[str, tuple[float, float]]


def evaluate_boxes(
    ground_truth: dict[str, Any], results: Sequence[dict[str, Any]], backend: str = "faster"
) -> BoxScores:
    """Returns the average precisions of detections.

    Args:
        ground_truth: Ground truth as COCO JSON.
        results: Detections as COCO results: mappings with ``image_id``, ``category_id``, ``bbox``
            (x, y, width, height in pixels) and ``score``.
        backend: Evaluator: ``faster`` (faster-coco-eval) or ``pycocotools``, whose scores are the
            same.

    Raises:
        FBNetError: The evaluator is unknown.
    """
    if backend not in BACKENDS:
        raise FBNetError(f"unknown COCO evaluator {backend!r}; allowed: {', '.join(BACKENDS)}")
    if not count_scored_boxes(ground_truth["annotations"]):
        return BoxScores({}, {})
    results = results or [_detection_of_no_box(ground_truth)]
    with contextlib.redirect_stdout(io.StringIO()):  # the evaluators print tables
        evaluator = _evaluator(ground_truth, results, backend)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    # A score is -1 if the data have no such box.
    stats = zip(SCORES, evaluator.stats[: len(SCORES)], strict=True)
    overall = {name: 100 * float(value) for name, value in stats if value >= 0}
    # Axes: IoU thresholds, recalls, classes, areas (index 0: all), limits of detections per image
    # (the last limit is 100).
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    names = [category["name"] for category in _sorted_categories(ground_truth)]
    per_class = {name: _class_ap(precision[:, :, k]) for k, name in enumerate(names)}
    return BoxScores(overall, {k: v for k, v in per_class.items() if v is not None})


def coco_copies(
    ground_truth: Mapping[str, Any], results: Iterable[Mapping[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns copies of ground truth and results for an evaluator, which adds keys to their boxes.

    Args:
        ground_truth: Ground truth as COCO JSON.
        results: Detections as COCO results.
    """
    annotations = [dict(item) for item in ground_truth["annotations"]]
    return {**ground_truth, "annotations": annotations}, [dict(result) for result in results]


def _evaluator(ground_truth: dict[str, Any], results: Sequence[dict[str, Any]], name: str) -> Any:
    ground_truth, results = coco_copies(ground_truth, results)
    if name == "faster":
        from faster_coco_eval import COCO, COCOeval_faster

        truth = COCO(ground_truth)
        return COCOeval_faster(truth, truth.loadRes(results), "bbox")
    from pycocotools.coco import COCO as SlowCOCO
    from pycocotools.cocoeval import COCOeval

    slow = SlowCOCO()
    slow.dataset = ground_truth
    slow.createIndex()
    return COCOeval(slow, slow.loadRes(results), "bbox")


def _sorted_categories(ground_truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the categories, sorted by id; repeated names get their id, as in ``cell (7)``."""
    categories = sorted(ground_truth["categories"], key=lambda category: category["id"])
    ids = [category["id"] for category in categories]
    names = distinct_names([category["name"] for category in categories], ids)
    return [{"id": number, "name": name} for number, name in zip(ids, names, strict=True)]


def _class_ap(precision: np.ndarray) -> tuple[float, float] | None:
    """Returns (AP, AP50) in percent for precisions (IoUs, recalls); None if there is no box."""
    if (precision <= -1).all():
        return None
    return 100 * float(precision.mean()), 100 * float(precision[0].mean())


def count_scored_boxes(annotations: Iterable[Mapping[str, Any]]) -> int:
    """Returns the number of boxes that an evaluation counts: those that are not crowds."""
    return sum(not item["iscrowd"] for item in annotations)


def _detection_of_no_box(ground_truth: dict[str, Any]) -> dict[str, Any]:
    """Returns a detection that overlaps no box: the evaluators do not accept an empty list.

    The scores are those of a detector without detections: precision is 0 at each recall.
    """
    return {
        "image_id": ground_truth["images"][0]["id"],
        "category_id": ground_truth["categories"][0]["id"],
        "bbox": [-1e6, -1e6, 1.0, 1.0],
        "score": 0.0,
    }
