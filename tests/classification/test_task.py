"""Loss and scores of the classification task."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fbnetv3.classification.task import ClassificationTask
from fbnetv3.data.batch_augment import BatchAugment


class Images:
    """An evaluation loader: batches of one-hot "images"."""

    def __init__(self, labels: list[int], classes: int, batch: int) -> None:
        self._labels, self._classes, self._batch = labels, classes, batch

    def __len__(self) -> int:
        return -(-len(self._labels) // self._batch)

    def __iter__(self) -> Any:
        for start in range(0, len(self._labels), self._batch):
            labels = torch.tensor(self._labels[start : start + self._batch])
            yield F.one_hot(labels, self._classes).float(), labels


class Shifted(nn.Module):
    """Scores class ``label + shift`` highest, and the following classes next."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.modes.append(self.training)
        scores = images.roll(self.shift, 1)
        return sum(scores.roll(-i, 1) * (10 - i) for i in range(5))  # type: ignore[return-value]


def task(loader: Any = None, classes: int = 10, **changes: Any) -> ClassificationTask:
    names = ("mixup", "label_smoothing", "seed")
    augment = BatchAugment(classes, **{k: changes.pop(k) for k in names if k in changes})
    return ClassificationTask(
        num_classes=classes,
        eval_loader=loader,
        device=torch.device("cpu"),
        augment=augment,
        **changes,
    )


@pytest.mark.parametrize(
    ("shift", "top1", "top5"), [(0, 100.0, 100.0), (1, 0.0, 100.0), (4, 0.0, 100.0), (5, 0.0, 0.0)]
)
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_scores(shift: int, top1: float, top5: float, batch: int) -> None:
    labels = [0, 1, 2, 3, 4, 5, 9]
    result = task(Images(labels, 10, batch)).evaluate(Shifted(shift))
    assert (result["val/top1"], result["val/top5"]) == (top1, top5)
    logits = Shifted(shift)(F.one_hot(torch.tensor(labels), 10).float())
    assert result["val/loss"] == pytest.approx(F.cross_entropy(logits, torch.tensor(labels)).item())


def test_few_classes_have_no_top5() -> None:
    assert task(Images([0, 1], 5, 2), classes=5).evaluate(Shifted(0)).keys() == {
        "val/top1",
        "val/loss",
    }


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_restores_the_mode(training: bool) -> None:
    model = Shifted(0).train(training)
    task(Images([0], 10, 1)).evaluate(model)
    assert model.modes == [False]
    assert model.training is training


def test_evaluation_restores_the_mode_after_an_error() -> None:
    class Broken(Images):
        def __iter__(self) -> Any:
            raise ValueError("no")

    model = Shifted(0).train()
    with pytest.raises(ValueError, match="no"):
        task(Broken([0], 10, 1)).evaluate(model)
    assert model.training


def images_and_labels() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 10), torch.tensor([0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_without_mixup_is_cross_entropy(smoothing: float) -> None:
    images, labels = images_and_labels()
    result = task(label_smoothing=smoothing).losses(nn.Identity(), (images, labels), 3)
    expected = F.cross_entropy(images, labels, label_smoothing=smoothing)
    torch.testing.assert_close(result["loss"], expected)


def test_mixup_follows_from_seed_and_iteration() -> None:
    batch = images_and_labels()

    def loss(iteration: int, seed: int = 0, alpha: float = 1.0) -> float:
        mixed = task(mixup=alpha, seed=seed)
        return mixed.losses(nn.Identity(), batch, iteration)["loss"].item()

    assert loss(3) == loss(3)
    assert len({loss(3), loss(4), loss(3, seed=1), loss(3, alpha=0.0)}) == 4
