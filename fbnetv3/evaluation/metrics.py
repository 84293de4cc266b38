"""Scores of predictions over all images, and by class as scikit-learn defines them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassScores:
    """Number of images and scores of each class, (classes,).

    Scores are from 0 to 1, and NaN where they are not defined.

    Attributes:
        counts: Number of images of the class.
        precision: Share of the predictions of the class that are right.
        recall: Share of the images of the class that are predicted as it.
        f1: Harmonic mean of precision and recall; 0 if a class with images is never predicted.
    """

    counts: Ints
    precision: Floats
    recall: Floats
    f1: Floats


def class_scores(targets: Ints, predicted: Ints, num_classes: int) -> ClassScores:
    """Returns the scores of each class.

    Args:
        targets: (images,) true classes, or (images, classes) 1 for each class of an image.
        predicted: Predictions in the same form.
        num_classes: Number of classes, 1 or more.
    """
    # Imported late: scikit-learn imports pandas, which takes a second.
    from sklearn.metrics import precision_recall_fscore_support

    labels = range(num_classes)
    if targets.ndim == 2 and num_classes == 1:
        # scikit-learn reads a single column as classes 0 and 1, of which 1 is an image's class
        targets, predicted, labels = targets[:, 0], predicted[:, 0], range(1, 2)
    precision, recall, f1, counts = precision_recall_fscore_support(
        targets, predicted, labels=labels, average=None, zero_division=np.nan
    )
    return ClassScores(counts.astype(np.int64), precision, recall, f1)


def confusion(targets: Ints, predicted: Ints, num_classes: int) -> Ints:
    """Returns the number of images of each true class (rows) with each prediction (columns)."""
    from sklearn.metrics import confusion_matrix

    matrix: Ints = confusion_matrix(targets, predicted, labels=range(num_classes))
    return matrix


def accuracies(probabilities: Floats, targets: Ints) -> dict[str, float]:
    """Returns ``top1`` and, with more than 5 classes, ``top5`` in percent.

    Args:
        probabilities: (images, classes) probabilities.
        targets: (images,) true classes.
    """
    of_truth = probabilities[np.arange(len(targets)), targets][:, None]
    # among equal probabilities, the class with the smallest index comes first, as in argmax
    is_before = np.arange(probabilities.shape[1]) < targets[:, None]
    is_better = (probabilities > of_truth) | ((probabilities == of_truth) & is_before)
    rank = is_better.sum(1)
    ks = (1, 5) if probabilities.shape[1] > 5 else (1,)
    return {f"top{k}": 100 * float((rank < k).mean()) for k in ks}


def averages(scores: ClassScores) -> dict[str, float]:
    """Returns the means over classes of precision, recall and F1, in percent.

    A class whose score is NaN is left out of the mean; a mean over no class is 0.
    """
    return {
        f"{name}_macro": 100 * float(np.nanmean(values)) if not np.isnan(values).all() else 0.0
        for name, values in (
            ("precision", scores.precision),
            ("recall", scores.recall),
            ("f1", scores.f1),
        )
    }


def average_precisions(targets: Ints, probabilities: Floats) -> Floats:
    """Returns the average precision of each class, from 0 to 1; NaN for a class without images.

    Args:
        targets: (images, classes) 1 for each class of an image.
        probabilities: (images, classes) probabilities.
    """
    from sklearn.metrics import average_precision_score

    values: list[Any] = [
        average_precision_score(targets[:, c], probabilities[:, c])
        if targets[:, c].any()
        else np.nan
        for c in range(targets.shape[1])
    ]
    return np.asarray(values, np.float64)
