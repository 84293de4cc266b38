"""The evaluation of a classifier, on images with one class each or with several classes.

CONTRIBUTING.md ("Where to add") lists what has to be changed so that an evaluation writes another
file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3.data import ImageDataset
from fbnetv3.data.contact_sheet import contact_sheet, save_sheet
from fbnetv3.evaluation.calibration import Calibration, calibration_of
from fbnetv3.evaluation.figures import draw_confusion, draw_reliability
from fbnetv3.evaluation.metrics import (
    ClassScores,
    accuracies,
    average_precisions,
    averages,
    class_scores,
    confusion,
)
from fbnetv3.evaluation.outcomes import Outcomes
from fbnetv3.evaluation.tables import write_table
from fbnetv3.weights.classes import distinct_names

THRESHOLD = 0.5
"""Smallest probability of a predicted class, if images may have several classes."""
_SEPARATOR = " | "


@dataclass(frozen=True)
class Report:
    """The scores of an evaluation, and the files that were written.

    Attributes:
        scores: Scores by name, in percent except for ``loss`` and counts. With test-time
            augmentation, ``tta`` is a mapping with its scores.
        files: Files that were written.
        remarks: Lines for people, such as the classes that are confused most.
    """

    scores: dict[str, Any]
    files: list[Path]
    remarks: tuple[str, ...] = ()


def report_classes(
    outcomes: Outcomes, dataset: ImageDataset, folder: Path, *, bins: int, worst: int
) -> Report:
    """Writes the tables and pictures of a classifier with one class per image.

    Args:
        outcomes: Predictions for the data set.
        dataset: Data set, for the names and pixels of the worst images.
        folder: Folder of the files.
        bins: Number of bins of the calibration.
        worst: Number of images with the highest loss on the contact sheet; 0 writes none.

    Raises:
        FBNetError: A file cannot be written, or an image cannot be read.
    """
    classes = distinct_names(outcomes.classes, range(len(outcomes.classes)))
    predicted = outcomes.probabilities.argmax(1)
    confidence = outcomes.probabilities.max(1)
    matrix = confusion(outcomes.targets, predicted, len(classes))
    by_class = class_scores(outcomes.targets, predicted, len(classes))
    calibration = calibration_of(confidence, predicted == outcomes.targets, bins)
    scores: dict[str, Any] = {
        "images": len(outcomes.losses),
        **accuracies(outcomes.probabilities, outcomes.targets),
        "loss": float(outcomes.losses.mean()),
        **averages(by_class),
        **_calibration_scores(calibration, float(confidence.mean())),
    }
    if outcomes.augmented is not None:
        scores["tta"] = accuracies(outcomes.augmented, outcomes.targets)
    files = _write_confusion(folder, classes, matrix, dataset.name)
    files += _write_classes(folder, classes, by_class)
    files += _write_calibration(calibration, folder, "accuracy", dataset.name)
    names = [[(classes[t],) for t in row] for row in (outcomes.targets, predicted)]
    files += _write_images(outcomes, dataset, folder, names, confidence, worst)
    return Report(scores, [folder / name for name in files], _confused(matrix, classes))


def _write_confusion(
    folder: Path, classes: Sequence[str], matrix: npt.NDArray[np.int64], source: str
) -> list[str]:
    write_table(
        folder / "confusion_matrix.csv",
        ["true \\ predicted", *classes],
        ([name, *map(int, row)] for name, row in zip(classes, matrix, strict=True)),
    )
    draw_confusion(matrix, classes, folder / "confusion_matrix.png", source)
    return ["confusion_matrix.csv", "confusion_matrix.png"]


def _calibration_scores(calibration: Calibration, confidence: float) -> dict[str, float]:
    return {
        "ece": 100 * calibration.expected_error,
        "mce": 100 * calibration.maximum_error,
        "confidence": 100 * confidence,
    }


def _write_classes(
    folder: Path,
    classes: Sequence[str],
    scores: ClassScores,
    more: dict[str, npt.NDArray[np.float64]] | None = None,
) -> list[str]:
    more = more or {}
    shares = [scores.precision, scores.recall, scores.f1, *more.values()]
    names = ["class", "images", "precision", "recall", "f1", *more]
    percents = [(100 * share).tolist() for share in shares]
    rows = zip(classes, scores.counts.tolist(), *percents, strict=True)
    write_table(folder / "per_class.csv", names, rows)
    return ["per_class.csv"]


def _write_calibration(calibration: Calibration, folder: Path, what: str, source: str) -> list[str]:
    edges = calibration.edges.tolist()
    rows = zip(
        edges[:-1],
        edges[1:],
        calibration.counts.tolist(),
        calibration.confidence.tolist(),
        calibration.accuracy.tolist(),
        strict=True,
    )
    columns = ["above", "up_to", "predictions", "confidence", "accuracy"]
    write_table(folder / "calibration.csv", columns, rows)
    draw_reliability(calibration, folder / "reliability.png", what, source)
    return ["calibration.csv", "reliability.png"]


def _write_images(
    outcomes: Outcomes,
    dataset: ImageDataset,
    folder: Path,
    names: Sequence[Sequence[Sequence[str]]],
    confidence: npt.NDArray[np.float64],
    worst: int,
) -> list[str]:
    """Writes the predictions by descending loss, and a contact sheet of the first ``worst``."""
    truth, predicted = names
    order = np.argsort(-outcomes.losses, kind="stable").tolist()
    rows = (
        (
            dataset.file_name(i),
            _SEPARATOR.join(truth[i]),
            _SEPARATOR.join(predicted[i]),
            float(confidence[i]),
            float(outcomes.losses[i]),
        )
        for i in order
    )
    columns = ["path", "true", "predicted", "probability", "loss"]
    write_table(folder / "predictions.csv", columns, rows)
    tiles = []
    for i in order[:worst]:
        lines = (
            f"true: {', '.join(truth[i]) or 'none'}",
            f"predicted: {', '.join(predicted[i]) or 'none'} {100 * confidence[i]:.0f}%",
            f"loss {outcomes.losses[i]:.2f}",
        )
        tiles.append((dataset.image(i), "\n".join(lines), ()))
    if not tiles:
        return ["predictions.csv"]
    title = f"{dataset.name}: of {len(order)} images, the {len(tiles)} with the highest loss"
    save_sheet(contact_sheet(tiles, title), folder / "worst.png")
    return ["predictions.csv", "worst.png"]


def _confused(
    matrix: npt.NDArray[np.int64], classes: Sequence[str], count: int = 3
) -> tuple[str, ...]:
    """Describes up to ``count`` of the largest nonzero entries off the diagonal."""
    wrong = matrix - np.diag(np.diag(matrix))
    largest = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [divmod(int(index), len(classes)) for index in largest]
    return tuple(
        f"{classes[true]} taken for {classes[other]}: {wrong[true, other]} of "
        f"{matrix[true].sum()} images"
        for true, other in pairs
        if wrong[true, other]
    )


def report_labels(
    outcomes: Outcomes, dataset: ImageDataset, folder: Path, *, bins: int, worst: int
) -> Report:
    """Writes the tables and pictures of a classifier with several classes per image.

    A class is predicted if its probability is 0.5 or more. In the calibration, a prediction is a
    pair of an image and a class. There is no confusion matrix: classes do not exclude each other.

    Args:
        outcomes: Predictions for the data set.
        dataset: Data set, for the names and pixels of the worst images.
        folder: Folder of the files.
        bins: Number of bins of the calibration.
        worst: Number of images with the highest loss on the contact sheet; 0 writes none.

    Raises:
        FBNetError: A file cannot be written, or an image cannot be read.
    """
    classes = distinct_names(outcomes.classes, range(len(outcomes.classes)))
    probabilities, targets = outcomes.probabilities, outcomes.targets
    predicted = (probabilities >= THRESHOLD).astype(np.int64)
    by_class = class_scores(targets, predicted, len(classes))
    ap = average_precisions(targets, probabilities)
    calibration = calibration_of(probabilities.ravel(), targets.ravel() == 1, bins)
    scores: dict[str, Any] = {
        "images": len(outcomes.losses),
        "mAP": _mean_percent(ap),
        "loss": float(outcomes.losses.mean()),
        **averages(by_class),
        **_calibration_scores(calibration, float(probabilities.mean())),
    }
    if outcomes.augmented is not None:
        scores["tta"] = {"mAP": _mean_percent(average_precisions(targets, outcomes.augmented))}
    files = _write_classes(folder, classes, by_class, {"average_precision": ap})
    files += _write_calibration(calibration, folder, "images with the class", dataset.name)
    names = [
        [[classes[c] for c in np.flatnonzero(r)] for r in rows] for rows in (targets, predicted)
    ]
    files += _write_images(outcomes, dataset, folder, names, probabilities.max(1), worst)
    return Report(scores, [folder / name for name in files])


def _mean_percent(values: npt.NDArray[np.float64]) -> float:
    return 0.0 if np.isnan(values).all() else 100 * float(np.nanmean(values))
