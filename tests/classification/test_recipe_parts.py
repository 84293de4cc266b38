"""Class weights, distillation and labels of several classes, by hand and against libraries."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional as F

from fbnetv3.classification.class_weights import class_weights
from fbnetv3.classification.distillation import Distillation, Teacher, distillation_loss
from fbnetv3.classification.multi_label import MultiLabelTask, mean_average_precision
from fbnetv3.classification.task import ClassificationTask
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.recipe import Recipe
from fbnetv3.training import train
from tests.runs import assert_same_state


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    weights = class_weights(Recipe(class_balance=1.0), [60, 30, 10])
    assert weights is not None
    assert weights.tolist() == pytest.approx(expected.tolist())
    half = class_weights(Recipe(class_balance=0.5, class_weights=(1, 2, 1)), [60, 30, 10])
    assert half is not None
    assert (half[2] / half[0]).item() == pytest.approx(math.sqrt(6))
    assert (half[1] / half[0]).item() == pytest.approx(2 * math.sqrt(2))
    assert class_weights(Recipe(), [1, 2]) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"class_weights": (1.0, 2.0)}, "has 2 numbers, but the data has 3 classes"),
        ({"class_balance": 1.0, "loss": "mine"}, "SOLVER.LOSS mine has no weights of classes"),
    ],
)
def test_weights_that_do_not_fit(values: dict[str, Any], message: str, monkeypatch: Any) -> None:
    from fbnetv3.registries import LOSSES

    monkeypatch.setattr(LOSSES, "_entries", {**LOSSES._entries, "mine": F.mse_loss})
    with pytest.raises(ConfigError, match=message):
        class_weights(Recipe(**values), [1, 1, 1])


def test_a_rank_without_images_gets_the_scores_of_the_others(monkeypatch: Any) -> None:
    def gather(parts: list[Any], part: Any) -> None:
        parts[:] = [part, ([torch.tensor([[2.0, -2.0]])], [torch.tensor([[1.0, 0.0]])])]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    empty: Any = []
    several = MultiLabelTask(num_classes=2, eval_loader=empty, device=torch.device("cpu"))
    assert several.evaluate(nn.Identity())["val/mAP"] == 100.0


def task(**parts: Any) -> ClassificationTask:
    loader: Any = None
    return ClassificationTask(
        num_classes=3, eval_loader=loader, device=torch.device("cpu"), **parts
    )


def test_weights_multiply_the_loss_of_their_class() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 2])
    weights = torch.tensor([1.0, 2.0, 0.5])
    loss = task(class_weights=weights).losses(nn.Identity(), (logits, labels), 0)["loss"]
    each = F.cross_entropy(logits, labels, reduction="none")
    assert loss.item() == pytest.approx((each * weights[labels]).mean().item())


def test_distillation_by_hand() -> None:
    # softmax(log(1, 3) / 1) = (1/4, 3/4) and (1/2, 1/2): KL = 1/4 log 1/2 + 3/4 log 3/2
    teacher, student = torch.tensor([[0.0, math.log(3)]]), torch.zeros(1, 2)
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert distillation_loss(student, teacher, 1.0).item() == pytest.approx(expected)
    # logits 2 log 3 at temperature 2 are the same predictions, and the loss is 2^2 times as large
    softened = distillation_loss(student, 2 * teacher, 2.0).item()
    assert softened == pytest.approx(4 * expected)
    assert distillation_loss(teacher, teacher, 3.0).item() == pytest.approx(0.0, abs=1e-7)
    assert distillation_loss(teacher, teacher, 3.0, several=True).item() == pytest.approx(
        0, abs=1e-6
    )


def test_a_teacher_shares_the_loss_without_gradients() -> None:
    logits = torch.randn(4, 3, 1, 1, requires_grad=True)
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3, 3))
    teacher = Teacher(network, torch.tensor([2.0, 1.0, 1.0]), torch.zeros(3))
    assert not network.training
    parts = Distillation(teacher, 0.25, 1.0)
    labels = torch.tensor([0, 1, 2, 2])
    losses = task(distillation=parts).losses(nn.Flatten(), (logits, labels), 0)
    plain = F.cross_entropy(logits.flatten(1), labels).item()
    assert losses["loss_labels"].item() == pytest.approx(0.75 * plain)
    expected = network(logits.flatten(1) * torch.tensor([2.0, 1.0, 1.0]))
    divergence = distillation_loss(logits.flatten(1), expected, 1.0).item()
    assert losses["loss_teacher"].item() == pytest.approx(0.25 * divergence)
    assert not any(p.requires_grad for p in network.parameters())


def test_mean_average_precision_leaves_out_classes_without_images() -> None:
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], np.float32)
    scores = np.array([[0.9, 0.1, 0.5], [0.8, 0.2, 0.5], [0.1, 0.3, 0.5]], np.float32)
    # class 0: precisions 1 and 2/3 at its two images; class 1: its image is second, 1/2
    assert mean_average_precision(truth, scores) == pytest.approx((5 / 6 + 1 / 2) / 2)


RECIPES: dict[str, dict[str, Any]] = {
    "adamw": {"SOLVER__OPTIMIZER": "adamw", "SOLVER__LAYER_DECAY": 0.7, "INPUT__CUTMIX": 1.0},
    "lion": {
        "SOLVER__OPTIMIZER": "lion",
        "SOLVER__BASE_LR": 0.001,
        "INPUT__AUTO_AUGMENT": "randaugment",
        "INPUT__RANDOM_ERASING": 0.5,
        "SOLVER__CLASS_BALANCE": 1.0,
    },
    "muon": {
        "SOLVER__OPTIMIZER": "muon",
        "SOLVER__HEAD_LR_FACTOR": 2.0,
        "INPUT__AUTO_AUGMENT": "trivialaugment",
        "INPUT__REPEATED_AUGMENT": 2,
        "MODEL__FREEZE": "backbone.stages.0",
    },
    "teacher": {"DATALOADER__BALANCED_SAMPLING": 1.0, "SOLVER__LOSS": "binary_cross_entropy"},
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_in_parts_is_the_run_in_one(
    name: str, tiny: Callable[..., CfgNode], tmp_path: Path
) -> None:
    changes = {"SOLVER__MAX_EPOCHS": 1.0, "TEST__EVAL_EPOCHS": 0.5, **RECIPES[name]}
    if name == "teacher":
        first = tmp_path / "first"
        train(tiny(OUTPUT_DIR=str(first), SOLVER__MAX_EPOCHS=0.5), pictures=False)
        changes["MODEL__TEACHER"] = str(first / "model_ema.safetensors")
    one, parts = tmp_path / "one", tmp_path / "parts"
    train(tiny(OUTPUT_DIR=str(one), **changes), pictures=False)
    for epochs in (0.5, None):
        cfg = tiny(OUTPUT_DIR=str(parts), **changes)
        train(cfg, resume=True, stop_after=epochs, pictures=False)
    assert_same_state(one, parts)
    if name == "teacher":
        size = max(one.glob("checkpoint_*.pt")).stat().st_size
        assert size < 1.2 * max(first.glob("checkpoint_*.pt")).stat().st_size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MODEL__TEACHER": "zoo://fbnetv3_none"}, "MODEL.TEACHER: "),
        ({"MODEL__TEACHER": "nowhere.safetensors"}, "MODEL.TEACHER: .*nowhere"),
        ({"MODEL__FREEZE": "stem"}, "MODEL.FREEZE: 'stem' matches no parameter"),
        ({"SOLVER__CLASS_WEIGHTS": [1.0]}, "has 1 numbers, but the data has 10 classes"),
    ],
)
def test_bad_input_is_one_line(
    changes: dict[str, Any], message: str, tiny: Callable[..., CfgNode]
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        train(tiny(**changes), pictures=False)
    assert "\n" not in str(error.value)
