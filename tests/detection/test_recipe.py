"""Scaling of the recipe to the batch size, and the stepped schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.solver import build_lr_scheduler as detectron_scheduler

from fbnetv3.config import CfgNode, ConfigError, get_cfg
from fbnetv3.detection.recipe import detection_recipe, rule_text
from fbnetv3.engine.schedule import build_lr_scheduler, num_steps
from fbnetv3.resources import find_config


def config(**changes: Any) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config("detection/retinanet_R_50_FPN_3x.yaml")))
    cfg.merge_from_list([x for k, v in changes.items() for x in (k.replace("__", "."), v)])
    return cfg


def test_values_of_detectron2_at_the_reference_batch() -> None:
    recipe = detection_recipe(config(), 118_000)
    per_epoch = 118_000 // 16
    assert recipe.scaled_lr == 0.01
    assert round(recipe.epochs * per_epoch) == 270_000
    assert recipe.warmup_epochs * per_epoch == pytest.approx(1000)
    assert [s * per_epoch for s in recipe.steps] == pytest.approx([210_000, 250_000])
    assert (recipe.nesterov, recipe.weight_decay_bias, recipe.decay) == (False, 1e-4, 0.1)


def test_values_are_scaled_to_the_batch() -> None:
    changes = {"SOLVER__IMS_PER_BATCH": 2, "MODEL_EMA__ENABLED": True}
    recipe = detection_recipe(config(**changes), 118_000)
    per_epoch = 59_000
    assert recipe.scaled_lr == pytest.approx(0.01 / 8)
    assert round(recipe.epochs * per_epoch) == 8 * 270_000
    assert recipe.warmup_epochs * per_epoch == pytest.approx(8000)
    assert [s * per_epoch for s in recipe.steps] == pytest.approx([8 * 210_000, 8 * 250_000])
    assert recipe.ema_decay**8 == pytest.approx(0.9998)
    assert "0.125" in rule_text(config(**changes))


def test_scaling_can_be_switched_off() -> None:
    cfg = config(SOLVER__IMS_PER_BATCH=2, SOLVER__REFERENCE_BATCH=0)
    recipe = detection_recipe(cfg, 118_000)
    assert recipe.scaled_lr == 0.01
    assert round(recipe.epochs * 59_000) == 270_000
    assert rule_text(cfg).startswith("off")


def test_lengths_in_epochs_are_not_scaled() -> None:
    changes = {"SOLVER__MAX_EPOCHS": 12.0, "SOLVER__WARMUP_EPOCHS": 1.0, "SOLVER__STEPS": (8, 11)}
    recipe = detection_recipe(config(SOLVER__IMS_PER_BATCH=4, **changes), 400)
    assert (recipe.epochs, recipe.warmup_epochs, recipe.steps) == (12, 1, (8, 11))


@pytest.mark.parametrize(
    ("given", "batch", "reference", "steps", "rule"),
    [
        (10, 16, 16, 10, "MAX_ITER 10 / 1 = 10 steps, "),
        (10, 8, 16, 20, "MAX_ITER 10 / 0.5 = 20 steps, "),
        (10, 4, 0, 10, "off"),
        (10, 12, 16, 13, "MAX_ITER 10 / 0.75 = 13 steps, rounded from 13.33, "),
        (1, 8, 2, 1, "MAX_ITER 1 / 4 = 1 steps, rounded from 0.25, "),
        (270_000, 2, 16, 2_160_000, "MAX_ITER 270000 / 0.125 = 2,160,000 steps, "),
    ],
)
@pytest.mark.parametrize("images", [1, 100, 118_000])
def test_a_length_in_iterations(
    given: int, batch: int, reference: int, steps: int, rule: str, images: int
) -> None:
    sizes = {"SOLVER__IMS_PER_BATCH": batch, "SOLVER__REFERENCE_BATCH": reference}
    cfg = config(SOLVER__MAX_ITER=given, SOLVER__WARMUP_ITERS=0, **sizes)
    recipe = detection_recipe(cfg, images)
    assert num_steps(recipe.epochs, max(1, images // batch)) == steps
    assert rule in rule_text(cfg)


def test_no_iterations_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"SOLVER\.MAX_EPOCHS=0\.0 is out of range"):
        detection_recipe(config(SOLVER__MAX_ITER=0), 100)


def test_a_batch_out_of_range() -> None:
    with pytest.raises(ConfigError, match="IMS_PER_BATCH=0"):
        detection_recipe(config(SOLVER__IMS_PER_BATCH=0), 10)


def test_the_stepped_schedule_equals_detectron2s() -> None:
    changes = {"SOLVER__MAX_ITER": 60, "SOLVER__STEPS": (30, 45), "SOLVER__WARMUP_ITERS": 10}
    cfg = config(**changes)
    recipe = detection_recipe(cfg, 16 * 7)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizers = [torch.optim.SGD([parameter], 0.01) for _ in range(2)]
    scheduler = build_lr_scheduler(optimizers[0], recipe, 7)
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
    reference = detectron_scheduler(cfg, optimizers[1])
    for _ in range(60):
        lr, expected = (optimizer.param_groups[0]["lr"] for optimizer in optimizers)
        assert lr == pytest.approx(expected, rel=1e-9)
        for optimizer, schedule in zip(optimizers, (scheduler, reference), strict=True):
            optimizer.step()
            schedule.step()
