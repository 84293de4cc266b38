"""The recipe that a config describes, and the configs of the model zoo."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fbnetv3.config import (
    get_cfg,
    recipe_from_config,
    recipe_to_config,
)
from fbnetv3.recipe import AMP_DTYPES, AUGMENTATIONS, OPTIMIZERS, SCHEDULES, Recipe
from fbnetv3.resources import find_config, list_configs
from tests.config.helpers import error_of

ZOO = [name for name in list_configs() if not name.startswith("search/")]


@pytest.mark.parametrize("name", ZOO)
def test_configs_of_the_model_zoo_are_valid(name: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config(name)))
    # detectron2's schedules are in iterations; with 16 images each, 7,330 are an epoch of COCO
    recipe = recipe_from_config(cfg, iters_per_epoch=7330)
    assert recipe.epochs > recipe.warmup_epochs


def test_the_model_zoo_has_a_config_of_every_network() -> None:
    assert {f"fbnetv3_{x}.yaml" for x in ["a0", *"abcdefg"]} <= set(ZOO)


def test_the_papers_recipe_is_in_the_configs() -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config("fbnetv3_g.yaml")))
    recipe = recipe_from_config(cfg)
    # Table 7 and A.3
    assert (recipe.optimizer, recipe.lr, recipe.reference_batch) == ("rmsprop", 0.026, 256)
    assert (recipe.epochs, recipe.decay, recipe.warmup_epochs) == (400, 0.9875, 5)
    assert (recipe.ema_decay, recipe.weight_decay, recipe.weight_decay_norm) == (0.99985, 7e-6, 0)
    assert (recipe.dropout, recipe.drop_path, recipe.mixup) == (0.17, 0.2, 0.19)


share = st.floats(0, 0.99)
RECIPES = st.builds(
    Recipe,
    optimizer=st.sampled_from(list(OPTIMIZERS)),
    lr=st.floats(1e-9, 1e3),
    reference_batch=st.integers(1, 4096),
    batch_size=st.integers(1, 4096),
    epochs=st.floats(11, 1000),
    schedule=st.sampled_from(list(SCHEDULES)),
    decay=st.floats(0.1, 1),
    warmup_epochs=st.floats(0, 10),
    warmup_factor=st.floats(0, 1),
    momentum=share,
    weight_decay=st.floats(0, 1),
    weight_decay_norm=st.floats(0, 1),
    ema=st.booleans(),
    ema_decay=share,
    ema_warmup=st.booleans(),
    dropout=share,
    drop_path=share,
    mixup=st.floats(0, 2),
    label_smoothing=share,
    auto_augment=st.sampled_from(AUGMENTATIONS),
    clip_grad_norm=st.sampled_from([0.0, 0.5, 10.0]),
    amp=st.booleans(),
    amp_dtype=st.sampled_from(AMP_DTYPES),
    accumulate_steps=st.integers(1, 64),
    weight_decay_bias=st.none() | st.floats(0, 1),
)


@settings(deadline=None, max_examples=40)
@given(recipe=RECIPES)
def test_recipes_survive_the_way_through_a_config(recipe: Recipe) -> None:
    if recipe.schedule == "steps":
        recipe = dataclasses.replace(recipe, steps=(2.5, 10.0))
    if recipe.optimizer == "sgd":
        recipe = dataclasses.replace(recipe, nesterov=recipe.ema)
    cfg = get_cfg()
    cfg.merge_from_list([x for pair in recipe_to_config(recipe).items() for x in pair])
    assert recipe_from_config(cfg) == recipe
    again = get_cfg()
    again.merge_from_other_cfg(yaml.safe_load(cfg.dump()))
    assert recipe_from_config(again) == recipe


def test_a_bad_value_names_the_config_key() -> None:
    for key, value in [
        ("SOLVER.BASE_LR", -1.0),
        ("SOLVER.BASE_LR", math.nan),
        ("SOLVER.OPTIMIZER", "adam"),
        ("SOLVER.IMS_PER_BATCH", 0),
        ("MODEL_EMA.DECAY", 1.0),
        ("SOLVER.WARMUP_EPOCHS", 500.0),
    ]:
        cfg = get_cfg()
        cfg.merge_from_list([key, value])
        assert f"{key}=" in error_of(recipe_from_config, cfg)


def test_length_in_iterations() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.MAX_EPOCHS", 0, "SOLVER.MAX_ITER", 70, "SOLVER.WARMUP_EPOCHS", 0])
    assert recipe_from_config(cfg, 7).epochs == 10
    assert "SOLVER.MAX_EPOCHS" in error_of(recipe_from_config, cfg)


@pytest.mark.parametrize("change", [["CLIP_TYPE", "value"], ["NORM_TYPE", 1.0]])
def test_only_clipping_by_the_2_norm_is_allowed(change: list[Any]) -> None:
    cfg = get_cfg()
    clip = "SOLVER.CLIP_GRADIENTS"
    cfg.merge_from_list([f"{clip}.ENABLED", True, f"{clip}.{change[0]}", change[1]])
    assert clip in error_of(recipe_from_config, cfg)


def recipe_of(*pairs: Any, iters_per_epoch: int | None = None) -> Recipe:
    cfg = get_cfg()
    cfg.merge_from_list(list(pairs))
    return recipe_from_config(cfg, iters_per_epoch)


STEPPED = ["SOLVER.LR_SCHEDULER_NAME", "steps"]


def test_the_stepped_schedule_of_a_classifier() -> None:
    recipe = recipe_of(*STEPPED, "SOLVER.STEPS", "(30, 60)", "SOLVER.GAMMA", 0.2)
    assert (recipe.steps, recipe.decay) == ((30, 60), 0.2)
    in_iterations = ["SOLVER.MAX_ITER", 70, "SOLVER.WARMUP_EPOCHS", 0, "SOLVER.STEPS", "(21, 42)"]
    assert recipe_of(*STEPPED, *in_iterations, iters_per_epoch=7).steps == (3, 6)
    assert recipe_of("SOLVER.STEPS", "(30, 60)", "SOLVER.GAMMA", 0.2).steps == ()
    assert recipe_of("SOLVER.GAMMA", 0.2).decay == 0.9875


def test_steps_that_never_come_are_refused() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(STEPPED)  # detectron2's default is 30,000
    assert "SOLVER.STEPS=(30000,) are not below SOLVER.MAX_EPOCHS=400" in error_of(
        recipe_from_config, cfg
    )


def test_momentum_and_the_decay_of_biases_of_a_classifier() -> None:
    assert recipe_of().nesterov is True
    assert recipe_of().weight_decay_bias is None
    assert recipe_of("SOLVER.NESTEROV", False).nesterov is False
    assert recipe_of("SOLVER.NESTEROV", "True").nesterov is True
    assert recipe_of("SOLVER.WEIGHT_DECAY_BIAS", 0.25).weight_decay_bias == 0.25


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SOLVER.NESTEROV", 1),
        ("SOLVER.NESTEROV", "maybe"),
        ("SOLVER.WEIGHT_DECAY_BIAS", True),
        ("SOLVER.WEIGHT_DECAY_BIAS", "no"),
        ("SOLVER.WEIGHT_DECAY_BIAS", -0.1),
        ("SOLVER.ACCUMULATE_STEPS", 0),
        ("SOLVER.AMP.DTYPE", "float64"),
    ],
)
def test_values_that_are_refused(key: str, value: Any) -> None:
    cfg = get_cfg()
    cfg.merge_from_list([key, value])
    assert f"{key}={value!r}" in error_of(recipe_from_config, cfg)
