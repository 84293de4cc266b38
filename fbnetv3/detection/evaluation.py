"""COCO's average precision of boxes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fbnetv3.errors import FBNetError

BACKENDS = ("faster", "pycocotools")
_STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True)
class BoxScores:
    """Average precisions, in percent.

    Attributes:
        overall: ``AP`` (mean over IoU 0.50 to 0.95), ``AP50``, ``AP75``, and AP of small, medium
            and large boxes; those that the data has no box for are left out.
        per_class: Class -> (AP, AP50); classes without a box are left out.
    """

    overall: dict[str, float]
    per_class: dict[str, tuple[float, float]]


def evaluate_boxes(
    ground_truth: dict[str, Any], results: Sequence[dict[str, Any]], backend: str = "faster"
) -> BoxScores:
    """Scores detections.

    Args:
        ground_truth: COCO json.
        results: COCO results: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height),
            ``score``.
        backend: ``faster`` (faster-coco-eval) or ``pycocotools``; their numbers are equal.

    Raises:
        FBNetError: The backend is unknown.
    """
    if backend not in BACKENDS:
        raise FBNetError(f"no COCO evaluator {backend!r}; allowed: {', '.join(BACKENDS)}")
    if not results:
        return _nothing_found(ground_truth)
    with contextlib.redirect_stdout(io.StringIO()):  # both print tables of their own
        evaluator = _evaluator(ground_truth, results, backend)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    stats = zip(_STATS, evaluator.stats[: len(_STATS)], strict=True)
    overall = {name: 100 * float(value) for name, value in stats if value >= 0}
    # IoU thresholds, recalls, classes, areas (all first), most detections (100 last)
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    names = [category["name"] for category in _sorted_categories(ground_truth)]
    per_class = {name: _class_ap(precision[:, :, k]) for k, name in enumerate(names)}
    return BoxScores(overall, {k: v for k, v in per_class.items() if v is not None})


def _evaluator(ground_truth: dict[str, Any], results: Sequence[dict[str, Any]], name: str) -> Any:
    if name == "faster":
        from faster_coco_eval import COCO, COCOeval_faster

        truth = COCO(ground_truth)
        return COCOeval_faster(truth, truth.loadRes(list(results)), "bbox")
    from pycocotools.coco import COCO as SlowCOCO
    from pycocotools.cocoeval import COCOeval

    slow = SlowCOCO()
    slow.dataset = ground_truth
    slow.createIndex()
    return COCOeval(slow, slow.loadRes(list(results)), "bbox")


def _sorted_categories(ground_truth: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(ground_truth["categories"], key=lambda category: category["id"])


def _class_ap(precision: np.ndarray) -> tuple[float, float] | None:
    """Returns (AP, AP50) in percent of precisions by IoU and recall; -1 stands for no box."""
    if (precision <= -1).all():
        return None
    return 100 * float(precision.mean()), 100 * float(precision[0].mean())


def _nothing_found(ground_truth: dict[str, Any]) -> BoxScores:
    """Evaluators can't take an empty list: every score that has boxes is 0."""
    counted = [item for item in ground_truth["annotations"] if not item["iscrowd"]]
    there = {item["category_id"] for item in counted}
    names = [c["name"] for c in _sorted_categories(ground_truth) if c["id"] in there]
    overall = dict.fromkeys(_STATS[:3], 0.0) if counted else {}
    return BoxScores(overall, dict.fromkeys(names, (0.0, 0.0)))
