"""The evaluation of classifiers, against scikit-learn."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
)

from fbnetv3.data import ArrayDataset, ImageDataset
from fbnetv3.data.contact_sheet import TILE
from fbnetv3.evaluation.errors import EvaluationError
from fbnetv3.evaluation.metrics import accuracies, average_precisions, class_scores
from fbnetv3.evaluation.outcomes import order_of_classes, predict_dataset
from fbnetv3.evaluation.run import EvaluateOptions, evaluate_network
from fbnetv3.zoo.classifier import Classifier
from tests.fixtures.colours import CLASSES, colour_classifier


@pytest.fixture
def noise() -> ArrayDataset:
    """Images whose colours are often, but not always, those of their classes."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 1, 1, 3)).repeat(16, 1).repeat(16, 2)
    targets = np.where(generator.random(60) < 0.6, images[:, 0, 0].argmax(1), 0).tolist()
    names = ["red", "green", "blue"]
    return ArrayDataset("noise", names, images.astype(np.uint8), targets)


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _probabilities(classifier: Classifier, data: ImageDataset) -> np.ndarray:
    return classifier.scores([data.image(i) for i in range(len(data))]).double().numpy()


def test_the_tables_are_those_of_scikit_learn(noise: ArrayDataset, tmp_path: Path) -> None:
    classifier = colour_classifier()
    options = EvaluateOptions(batch_size=7, worst=5, bins=10)
    report = evaluate_network(classifier, noise, tmp_path, options)
    assert all(file.is_file() for file in report.files)
    probabilities = _probabilities(classifier, noise)
    predicted, truth = probabilities.argmax(1), np.array(noise.targets)
    expected = np.stack(precision_recall_fscore_support(truth, predicted))
    table = _rows(tmp_path / "per_class.csv")
    columns = ("precision", "recall", "f1")
    for row, name, values in zip(table, CLASSES, expected.T, strict=True):
        assert (row["class"], int(row["images"])) == (name, values[3])
        assert [float(row[key]) for key in columns] == pytest.approx(100 * values[:3], abs=1e-4)
    with open(tmp_path / "confusion_matrix.csv", newline="") as file:
        counts = [list(map(int, row[1:])) for row in list(csv.reader(file))[1:]]
    assert counts == confusion_matrix(truth, predicted).tolist()
    assert report.scores["top1"] == pytest.approx(100 * (predicted == truth).mean())
    assert report.scores["loss"] == pytest.approx(log_loss(truth, probabilities), rel=1e-5)
    saved = json.loads((tmp_path / "scores.json").read_text())
    assert saved == {"weights": "colours", "data": "noise", **report.scores}


def test_the_worst_images_have_the_highest_loss(noise: ArrayDataset, tmp_path: Path) -> None:
    classifier = colour_classifier()
    evaluate_network(classifier, noise, tmp_path, EvaluateOptions(worst=5))
    probabilities = _probabilities(classifier, noise)
    losses = -np.log(probabilities[np.arange(60), noise.targets])
    rows = _rows(tmp_path / "predictions.csv")
    worst = int(losses.argmax())
    assert rows[0]["path"] == noise.file_name(worst)
    assert rows[0]["true"] == CLASSES[noise.targets[worst]]
    assert rows[0]["predicted"] == CLASSES[int(probabilities[worst].argmax())]
    assert [float(row["loss"]) for row in rows] == pytest.approx(sorted(losses)[::-1], abs=1e-5)
    with Image.open(tmp_path / "worst.png") as sheet:
        assert sheet.width == 5 * TILE


def test_classes_in_another_order_are_matched_by_name(noise: ArrayDataset, tmp_path: Path) -> None:
    shuffled = ArrayDataset("shuffled", ["blue", "red", "green"], noise._images, [
        {0: 1, 1: 2, 2: 0}[target] for target in noise.targets
    ])  # fmt: skip
    scores = [
        evaluate_network(colour_classifier(), data, tmp_path, EvaluateOptions(worst=0)).scores
        for data in (noise, shuffled)
    ]
    assert scores[0] == pytest.approx(scores[1])
    assert not (tmp_path / "worst.png").exists()


def test_other_classes_are_refused(noise: ArrayDataset) -> None:
    other = colour_classifier(("red", "green", "cyan"))
    with pytest.raises(EvaluationError, match=r"cyan.*--ignore-class-names"):
        order_of_classes(other, noise)
    assert order_of_classes(other, noise, ignore_names=True) == [0, 1, 2]
    unnamed = colour_classifier(("class 0", "class 1", "class 2"))
    assert order_of_classes(unnamed, noise) == [0, 1, 2]


def test_augmentation_is_the_mean_probability_of_the_views(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (10, 16, 16, 3)).astype(np.uint8)
    data = ArrayDataset("noise", list(CLASSES), images, [0] * 10)
    classifier = colour_classifier()

    class Left(torch.nn.Module):
        """Sees the left half of an image only."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = classifier.model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x[..., :8])

    left = Classifier(Left(), classifier.transform, classifier.classes, "left")
    outcomes = predict_dataset(left, data, [0, 1, 2], augmentations=["flip"])
    halves = [images, images[:, :, ::-1].copy()]
    expected = np.mean([left.scores(half).double().numpy() for half in halves], axis=0)
    assert outcomes.views == 2
    assert outcomes.augmented == pytest.approx(expected, abs=1e-6)
    assert outcomes.probabilities == pytest.approx(left.scores(images).numpy(), abs=1e-6)
    report = evaluate_network(
        left, data, tmp_path, EvaluateOptions(augmentations=["flip"], worst=0)
    )
    assert report.scores["tta"] == {
        "augmentations": ["flip"],
        "views": 2,
        "top1": pytest.approx(100 * (expected.argmax(1) == 0).mean()),
    }


class Labelled(ArrayDataset):
    """Images with several labels each."""

    is_multi_label = True


def test_several_labels(noise: ArrayDataset, tmp_path: Path) -> None:
    labels = [tuple(c for c in range(3) if noise._images[i, 0, 0, c] > 90) for i in range(60)]
    data = Labelled("several", list(CLASSES), noise._images, labels)
    classifier = colour_classifier(several_labels=True)
    options = EvaluateOptions(worst=4, augmentations=["flip"])
    report = evaluate_network(classifier, data, tmp_path, options)
    probabilities = _probabilities(classifier, data)
    truth = np.array([[c in row for c in range(3)] for row in labels], int)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, probabilities >= 0.5)
    aps = [average_precision_score(truth[:, c], probabilities[:, c]) for c in range(3)]
    for c, row in enumerate(_rows(tmp_path / "per_class.csv")):
        values = [float(row[key]) for key in ("precision", "recall", "f1", "average_precision")]
        expected = [precision[c], recall[c], f1[c], aps[c]]
        assert values == pytest.approx(100 * np.array(expected), abs=1e-4)
    assert report.scores["mAP"] == pytest.approx(100 * np.mean(aps))
    assert report.scores["tta"]["mAP"] == pytest.approx(100 * np.mean(aps))
    assert not (tmp_path / "confusion_matrix.png").exists()
    with pytest.raises(EvaluationError, match="several classes each, but colours was trained on"):
        evaluate_network(colour_classifier(), data, tmp_path, options)


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        ([1, 1, 1, 0], [1, 1, 0, 0], (3, 1, 2 / 3, 0.8)),
        ([1, 0, 0, 0], [1, 1, 0, 0], (1, 0.5, 1, 2 / 3)),
        ([1, 1, 1, 1], [1, 1, 0, 0], (4, 1, 0.5, 2 / 3)),
        ([1, 1, 1, 0], [0, 0, 0, 0], (3, np.nan, 0, 0)),
        ([0, 0, 0, 0], [1, 0, 0, 0], (0, 0, np.nan, 0)),
        ([0, 0, 0, 0], [0, 0, 0, 0], (0, np.nan, np.nan, np.nan)),
    ],
)
def test_a_class_has_the_same_scores_alone_and_beside_another(
    truth: list[int], predicted: list[int], expected: tuple[float, ...]
) -> None:
    targets, chosen = (np.array(values)[:, None] for values in (truth, predicted))
    other = np.array([[1], [0], [1], [0]])
    alone = class_scores(targets, chosen, 1)
    pair = class_scores(np.hstack([targets, other]), np.hstack([chosen, other]), 2)
    for scores in (alone, pair):
        values = (scores.counts, scores.precision, scores.recall, scores.f1)
        assert [float(v[0]) for v in values] == pytest.approx(expected, nan_ok=True)
    assert len(alone.f1) == 1


def test_several_labels_of_a_single_class(tmp_path: Path) -> None:
    levels = (250, 200, 90, 10)  # three images with the class, the first two of them predicted
    images = np.stack([np.full((16, 16, 3), level, np.uint8) for level in levels])
    data = Labelled("single", ["defect"], images, [(0,), (0,), (0,), ()])
    colours = colour_classifier()

    class First(torch.nn.Module):
        """Returns the first logit only."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = colours.model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)[:, :1]

    classifier = Classifier(First(), colours.transform, ("defect",), "single", True)
    report = evaluate_network(classifier, data, tmp_path, EvaluateOptions(worst=0))
    (row,) = _rows(tmp_path / "per_class.csv")
    columns = ("images", "precision", "recall", "f1", "average_precision")
    expected = [3, 100, 200 / 3, 80, 100]
    assert [float(row[key]) for key in columns] == pytest.approx(expected, abs=1e-3)
    names = ("precision_macro", "recall_macro", "f1_macro", "mAP")
    assert [report.scores[name] for name in names] == pytest.approx(expected[1:])
    assert average_precisions(np.ones((4, 1), int), np.full((4, 1), 0.5)).tolist() == [1]
    counts = [int(row["predictions"]) for row in _rows(tmp_path / "calibration.csv")]
    assert sum(counts) == 4


def test_equal_probabilities_are_not_all_right() -> None:
    scores = accuracies(np.full((7, 7), 1 / 7), np.arange(7))
    assert scores == {"top1": pytest.approx(100 / 7), "top5": pytest.approx(500 / 7)}
