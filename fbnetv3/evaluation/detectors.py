"""The evaluation of a detector: COCO's average precision, curves, and the images it fails on."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fbnetv3.data.decode import read_image
from fbnetv3.errors import FBNetError
from fbnetv3.evaluation.classifiers import Report
from fbnetv3.evaluation.errors import EvaluationError
from fbnetv3.evaluation.figures import draw_precision_recall
from fbnetv3.evaluation.tables import write_table
from fbnetv3.predictions.batches import DETECTOR_BATCH, in_threads, memory_errors
from fbnetv3.predictions.outputs import write_records
from fbnetv3.weights.classes import class_order, distinct_names, other_classes

if TYPE_CHECKING:  # detectron2 is optional
    from fbnetv3.detection.coco import CocoDataset
    from fbnetv3.detection.detector import Detector

Result = dict[str, Any]
IOU = 0.5
"""Smallest IoU of a match, in precision-recall curves and in counts of missed and wrong boxes."""


def detect_dataset(
    detector: Detector,
    dataset: CocoDataset,
    *,
    batch_size: int = DETECTOR_BATCH,
    advance: Callable[[int], Any] = lambda count: None,
) -> list[Result]:
    """Returns the boxes that a detector predicts in a data set, as COCO results.

    Args:
        detector: Detector on its device.
        dataset: Data set with the classes of the detector; their order may differ.
        batch_size: Number of images that are read together; those of the same size are run
            together.
        advance: Function called after each batch with its number of images.

    Raises:
        EvaluationError: The detector and the data set have different classes.
        DataError: An image cannot be read.
        PredictError: The device has too little memory for a batch.
    """
    categories = _categories(detector, dataset)

    def load(record: dict[str, Any]) -> Any:
        try:
            return read_image(record["file_name"])
        except FBNetError as error:
            return error

    results: list[Result] = []
    batch: list[tuple[int, Any]] = []
    for number, (record, image) in enumerate(in_threads(load, dataset.records, 2 * batch_size), 1):
        if isinstance(image, FBNetError):
            raise image
        batch.append((record["image_id"], image))
        if len(batch) == batch_size or number == len(dataset):
            results += _results(detector, batch, categories)
            advance(len(batch))
            batch = []
    return results


def _categories(detector: Detector, dataset: CocoDataset) -> list[int]:
    """Returns the data's category id for each class of the detector, in the detector's order."""
    order = class_order(dataset.classes, detector.classes)
    if order is None:
        difference = other_classes(detector.classes, dataset.classes)
        raise EvaluationError(f"{dataset.name}: {difference}; use the data of the detector")
    return [dataset.category_ids[index] for index in order]


def _results(
    detector: Detector, batch: Sequence[tuple[int, Any]], categories: Sequence[int]
) -> list[Result]:
    with memory_errors(len(batch)):
        outputs = detector.outputs_of_all([image for _, image in batch])
    results = []
    for (image_id, _), output in zip(batch, outputs, strict=True):
        corners = output["boxes"].cpu().double()  # MPS has no float64
        # x, y, width, height
        boxes = torch.cat((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1)
        columns = (boxes.tolist(), output["scores"].tolist(), output["labels"].tolist())
        results += [
            {"image_id": image_id, "category_id": categories[label], "bbox": box, "score": score}
            for box, score, label in zip(*columns, strict=True)
        ]
    return results


def report_boxes(
    results: Sequence[Result], dataset: CocoDataset, folder: Path, *, worst: int, threshold: float
) -> Report:
    """Writes the tables and pictures of a detector.

    Args:
        results: Predicted boxes in all images, as COCO results.
        dataset: Data set with at least one box.
        folder: Folder of the files.
        worst: Number of images with the most mistakes on the contact sheet; 0 writes none.
        threshold: Minimum score of predicted boxes. Boxes with lower scores are left out of the
            counts of missed and wrong boxes, and of the contact sheet.

    Raises:
        FBNetError: The data have no box, a file cannot be written, or an image cannot be read.
    """
    from fbnetv3.detection.evaluation import evaluate_boxes

    truth = dataset.ground_truth()
    scores = evaluate_boxes(truth, results, "pycocotools")
    if not scores.overall:
        raise EvaluationError(f"{dataset.name} has no box to score; use data with boxes")
    write_records(folder / "results.json", results)
    columns = ["class", "AP", "AP50"]
    write_table(
        folder / "ap_per_class.csv", columns, ((n, *v) for n, v in scores.per_class.items())
    )
    files = ["results.json", "ap_per_class.csv"]
    curves, recalls = precision_curves(truth, results)
    if curves:
        _write_curves(folder, curves, recalls, dataset.name)
        files += ["precision_recall.csv", "precision_recall.png"]
    mistakes = mistakes_by_image(truth, [r for r in results if r["score"] >= threshold])
    files += _write_images(dataset, results, mistakes, folder, worst, threshold)
    missed, wrong = (sum(pair[i] for pair in mistakes.values()) for i in (0, 1))
    summary = {"images": len(dataset), **scores.overall, "missed": missed, "wrong": wrong}
    return Report(summary, [folder / name for name in files])


def _matched(
    truth: dict[str, Any], results: Sequence[Result], *, accumulate: bool
) -> COCOeval | None:
    """Returns pycocotools' matches at an IoU of 0.5; None if there are no results."""
    if not results:  # which pycocotools refuses
        return None
    from fbnetv3.detection.evaluation import coco_copies

    truth, copied = coco_copies(truth, results)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(copied), "bbox")
        evaluator.params.iouThrs = np.array([IOU])
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluator.evaluate()
        if accumulate:
            evaluator.accumulate()
    return evaluator


def precision_curves(
    truth: dict[str, Any], results: Sequence[Result]
) -> tuple[dict[str, npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    """Returns the precision of each class at each recall, from 0 to 1, at an IoU of 0.5.

    Args:
        truth: Ground truth as COCO json.
        results: Predicted boxes as COCO results.

    Returns:
        Precision (recalls,) of each class that has a true box other than crowds, by its name; and
        the recalls. The mapping and the array are empty without results.
    """
    evaluator = _matched(truth, results, accumulate=True)
    if evaluator is None:
        return {}, np.zeros(0)
    # axes: IoU thresholds, recalls, classes, areas, limits of detections (-1: 100)
    precision = evaluator.eval["precision"][0, :, :, 0, -1]
    ids = [category["id"] for category in truth["categories"]]
    distinct = distinct_names([category["name"] for category in truth["categories"]], ids)
    names = dict(zip(ids, distinct, strict=True))
    curves = {
        names[number]: precision[:, k]
        for k, number in enumerate(evaluator.params.catIds)
        if (precision[:, k] > -1).any()
    }
    return curves, evaluator.params.recThrs


def mistakes_by_image(
    truth: dict[str, Any], results: Sequence[Result]
) -> dict[int, tuple[int, int]]:
    """Returns the number of missed boxes and of wrong boxes in each image, by its id.

    Predicted boxes, by descending score, are matched with the true box of their class that they
    overlap most and that is still free, with an IoU of at least 0.5. True boxes without a match are
    missed, predicted boxes without a match are wrong. Crowds are never missed, and predicted boxes
    that match a crowd are not wrong.

    Args:
        truth: Ground truth as COCO json.
        results: Predicted boxes as COCO results. Of each class, an image's 100 boxes with the
            highest scores count.
    """
    missed = dict.fromkeys((image["id"] for image in truth["images"]), 0)
    wrong = dict(missed)
    evaluator = _matched(truth, results, accumulate=False)
    if evaluator is None:
        for item in truth["annotations"]:
            missed[item["image_id"]] += not item["iscrowd"]
        return {number: (missed[number], 0) for number in missed}
    for match in evaluator.evalImgs:
        if match is None:  # an image with neither true nor predicted boxes of a class
            continue
        number, ignored = match["image_id"], np.asarray(match["gtIgnore"], bool)
        missed[number] += int(((match["gtMatches"][0] == 0) & ~ignored).sum())
        detections = (match["dtMatches"][0] == 0) & ~match["dtIgnore"][0].astype(bool)
        wrong[number] += int(detections.sum())
    return {number: (missed[number], wrong[number]) for number in missed}


def _write_curves(
    folder: Path,
    curves: dict[str, npt.NDArray[np.float64]],
    recalls: npt.NDArray[np.float64],
    source: str,
) -> None:
    percents = [(100 * values).tolist() for values in (recalls, *curves.values())]
    rows = zip(*percents, strict=True)
    write_table(folder / "precision_recall.csv", ["recall", *curves], rows)
    draw_precision_recall(curves, recalls, folder / "precision_recall.png", source)


def _write_images(
    dataset: CocoDataset,
    results: Sequence[Result],
    mistakes: dict[int, tuple[int, int]],
    folder: Path,
    worst: int,
    threshold: float,
) -> list[str]:
    """Lists images by descending number of mistakes, and draws a sheet of the first ``worst``."""
    from fbnetv3.detection.visualization import write_contact_sheet

    records = sorted(dataset.records, key=lambda record: -sum(mistakes[record["image_id"]]))
    rows = ((str(r["file_name"]), len(r["annotations"]), *mistakes[r["image_id"]]) for r in records)
    write_table(folder / "images.csv", ["path", "boxes", "missed", "wrong"], rows)
    if not worst:
        return ["images.csv"]
    sheet = dataset.replace_records(records[:worst])
    which = "those with the most mistakes"
    write_contact_sheet(sheet, results, folder / "worst.png", worst, threshold, which)
    return ["images.csv", "worst.png"]
