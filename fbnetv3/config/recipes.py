"""The recipe that a config describes, and the config keys that describe a recipe."""

from __future__ import annotations

import re
from typing import Any

from fbnetv3.config.errors import ConfigError
from fbnetv3.config.node import CfgNode, get_value
from fbnetv3.recipe import Recipe, RecipeError

RECIPE_KEYS = {
    "optimizer": "SOLVER.OPTIMIZER",
    "lr": "SOLVER.BASE_LR",
    "reference_batch": "SOLVER.REFERENCE_BATCH",
    "batch_size": "SOLVER.IMS_PER_BATCH",
    "accumulate_steps": "SOLVER.ACCUMULATE_STEPS",
    "epochs": "SOLVER.MAX_EPOCHS",
    "schedule": "SOLVER.LR_SCHEDULER_NAME",
    "decay": "SOLVER.EPOCH_DECAY",
    "warmup_epochs": "SOLVER.WARMUP_EPOCHS",
    "warmup_factor": "SOLVER.WARMUP_FACTOR",
    "momentum": "SOLVER.MOMENTUM",
    "weight_decay": "SOLVER.WEIGHT_DECAY",
    "weight_decay_norm": "SOLVER.WEIGHT_DECAY_NORM",
    "ema": "MODEL_EMA.ENABLED",
    "ema_decay": "MODEL_EMA.DECAY",
    "ema_warmup": "MODEL_EMA.WARMUP",
    "dropout": "MODEL.DROP_RATE",
    "drop_path": "MODEL.DROP_PATH_RATE",
    "mixup": "INPUT.MIXUP",
    "label_smoothing": "SOLVER.LABEL_SMOOTHING",
    "auto_augment": "INPUT.AUTO_AUGMENT",
    "amp": "SOLVER.AMP.ENABLED",
    "amp_dtype": "SOLVER.AMP.DTYPE",
}
"""Field of Recipe -> config key."""


def recipe_from_config(
    cfg: CfgNode, iters_per_epoch: int | None = None, **overrides: Any
) -> Recipe:
    """Returns the recipe that a config describes.

    Args:
        cfg: Config of a training.
        iters_per_epoch: Steps per epoch; only needed where SOLVER.MAX_EPOCHS is 0, so that the
            length is SOLVER.MAX_ITER.
        overrides: Fields of the recipe to set to other values than the config's.

    Raises:
        ConfigError: A value is out of its range, ``iters_per_epoch`` is missing, or
            SOLVER.CLIP_GRADIENTS does not clip by the 2-norm.
    """
    values = {field: get_value(cfg, key) for field, key in RECIPE_KEYS.items()}
    if cfg.SOLVER.MAX_EPOCHS == 0:
        if iters_per_epoch is None:
            raise ConfigError(
                "SOLVER.MAX_EPOCHS is 0, but the steps per epoch are unknown here; set it"
            )
        values["epochs"] = length = cfg.SOLVER.MAX_ITER / iters_per_epoch
        values["warmup_epochs"] = min(cfg.SOLVER.WARMUP_EPOCHS, length)
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.ENABLED:
        if clip.CLIP_TYPE != "norm" or clip.NORM_TYPE != 2.0:
            raise ConfigError(
                "SOLVER.CLIP_GRADIENTS can only clip by the 2-norm: set CLIP_TYPE norm and "
                "NORM_TYPE 2.0"
            )
        values["clip_grad_norm"] = clip.CLIP_VALUE
    try:
        return Recipe.from_dict(values | overrides)
    except RecipeError as error:
        raise ConfigError(_in_config_keys(str(error))) from error


def _in_config_keys(message: str) -> str:
    """Replaces the names of a recipe's fields in a message by config keys."""
    keys = {**RECIPE_KEYS, "clip_grad_norm": "SOLVER.CLIP_GRADIENTS.CLIP_VALUE"}
    return re.sub(r"(?:recipe )?\b(\w+)=", lambda m: f"{keys.get(m[1], m[1])}=", message)


def recipe_to_config(recipe: Recipe) -> dict[str, Any]:
    """Returns config keys and values, such as ``{"SOLVER.BASE_LR": 0.026}``, of a recipe."""
    values = {key: getattr(recipe, field) for field, key in RECIPE_KEYS.items()}
    values["SOLVER.CLIP_GRADIENTS.ENABLED"] = recipe.clip_grad_norm > 0
    if recipe.clip_grad_norm > 0:
        values["SOLVER.CLIP_GRADIENTS.CLIP_VALUE"] = recipe.clip_grad_norm
    return values
