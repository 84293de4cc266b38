"""The recipe that a config describes, and the config keys that describe a recipe."""

from __future__ import annotations

import re
from typing import Any

from fbnetv3.config.errors import ConfigError
from fbnetv3.config.node import CfgNode, get_value
from fbnetv3.recipe import Recipe, RecipeError

RECIPE_KEYS = {
    "optimizer": "SOLVER.OPTIMIZER",
    "nesterov": "SOLVER.NESTEROV",
    "lr": "SOLVER.BASE_LR",
    "reference_batch": "SOLVER.REFERENCE_BATCH",
    "batch_size": "SOLVER.IMS_PER_BATCH",
    "accumulate_steps": "SOLVER.ACCUMULATE_STEPS",
    "epochs": "SOLVER.MAX_EPOCHS",
    "schedule": "SOLVER.LR_SCHEDULER_NAME",
    "decay": "SOLVER.EPOCH_DECAY",
    "steps": "SOLVER.STEPS",
    "warmup_epochs": "SOLVER.WARMUP_EPOCHS",
    "warmup_factor": "SOLVER.WARMUP_FACTOR",
    "momentum": "SOLVER.MOMENTUM",
    "beta2": "SOLVER.BETA2",
    "layer_decay": "SOLVER.LAYER_DECAY",
    "head_lr_factor": "SOLVER.HEAD_LR_FACTOR",
    "freeze": "MODEL.FREEZE",
    "weight_decay": "SOLVER.WEIGHT_DECAY",
    "weight_decay_norm": "SOLVER.WEIGHT_DECAY_NORM",
    "weight_decay_bias": "SOLVER.WEIGHT_DECAY_BIAS",
    "ema": "MODEL_EMA.ENABLED",
    "ema_decay": "MODEL_EMA.DECAY",
    "ema_warmup": "MODEL_EMA.WARMUP",
    "dropout": "MODEL.DROP_RATE",
    "drop_path": "MODEL.DROP_PATH_RATE",
    "mixup": "INPUT.MIXUP",
    "label_smoothing": "SOLVER.LABEL_SMOOTHING",
    "class_weights": "SOLVER.CLASS_WEIGHTS",
    "class_balance": "SOLVER.CLASS_BALANCE",
    "balanced_sampling": "DATALOADER.BALANCED_SAMPLING",
    "repeated_augment": "INPUT.REPEATED_AUGMENT",
    "loss": "SOLVER.LOSS",
    "auto_augment": "INPUT.AUTO_AUGMENT",
    "randaugment_ops": "INPUT.RANDAUGMENT_OPS",
    "randaugment_magnitude": "INPUT.RANDAUGMENT_MAGNITUDE",
    "cutmix": "INPUT.CUTMIX",
    "random_erasing": "INPUT.RANDOM_ERASING",
    "distill_alpha": "SOLVER.DISTILL_ALPHA",
    "distill_temperature": "SOLVER.DISTILL_TEMPERATURE",
    "amp": "SOLVER.AMP.ENABLED",
    "amp_dtype": "SOLVER.AMP.DTYPE",
}
"""Config key of each field of Recipe, except ``clip_grad_norm``, which SOLVER.CLIP_GRADIENTS sets.

With the schedule ``steps``, the field ``decay`` is SOLVER.GAMMA.
"""
NESTEROV_OPTIMIZERS = ("sgd", "muon")
"""Built-in optimizers that read SOLVER.NESTEROV."""
BETA2_OPTIMIZERS = ("adamw", "lion", "muon")
"""Built-in optimizers that read SOLVER.BETA2."""


def recipe_from_config(
    cfg: CfgNode, iters_per_epoch: int | None = None, **overrides: Any
) -> Recipe:
    """Returns the recipe that a config describes.

    Args:
        cfg: Config of a training.
        iters_per_epoch: Steps per epoch. Required if SOLVER.MAX_EPOCHS is 0: the length of the
            training is then SOLVER.MAX_ITER, and SOLVER.STEPS are iterations, too.
        overrides: Values of the recipe's fields that replace the config's values.

    Raises:
        ConfigError: A value has another type or is not allowed, all of SOLVER.STEPS are at or after
            the end of the training, SOLVER.CLIP_GRADIENTS does not clip by the 2-norm, an override
            is not a field of the recipe, or ``iters_per_epoch`` is required and missing.
    """
    values = {field: get_value(cfg, key) for field, key in RECIPE_KEYS.items()}
    values["nesterov"] = nesterov_from_config(cfg, default=True)
    _check_type(cfg, "SOLVER.WEIGHT_DECAY_BIAS", (int, float), "a number")
    if cfg.SOLVER.MAX_EPOCHS == 0:
        if iters_per_epoch is None:
            raise ConfigError(
                "SOLVER.MAX_EPOCHS=0, but the steps per epoch are unknown here; set MAX_EPOCHS"
            )
        values["epochs"] = length = cfg.SOLVER.MAX_ITER / iters_per_epoch
        values["warmup_epochs"] = min(cfg.SOLVER.WARMUP_EPOCHS, length)
    if "steps" not in overrides:
        values |= _stepped_schedule(cfg, values["epochs"], iters_per_epoch)
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


def nesterov_from_config(cfg: CfgNode, *, default: bool) -> bool:
    """Returns SOLVER.NESTEROV, or the task's default if it is None.

    Raises:
        ConfigError: The value is neither True, False nor None.
    """
    _check_type(cfg, "SOLVER.NESTEROV", (bool,), "True, False")
    return default if cfg.SOLVER.NESTEROV is None else bool(cfg.SOLVER.NESTEROV)


def _check_type(cfg: CfgNode, key: str, types: tuple[type, ...], allowed: str) -> None:
    """Checks the type of a key whose default is None, for which the tree accepts every type."""
    value = get_value(cfg, key)
    is_flag = isinstance(value, bool) and bool not in types
    if value is not None and (is_flag or not isinstance(value, types)):
        raise ConfigError(f"{key}={value!r} is not allowed; allowed: {allowed}, or None")


def _stepped_schedule(cfg: CfgNode, epochs: float, iters_per_epoch: int | None) -> dict[str, Any]:
    """Returns the recipe's fields ``steps``, in epochs, and ``decay`` for the schedule ``steps``.

    For other schedules, ``steps`` alone is returned, which is empty.
    """
    if cfg.SOLVER.LR_SCHEDULER_NAME != "steps":
        return {"steps": ()}
    unit = 1 if cfg.SOLVER.MAX_EPOCHS > 0 or not iters_per_epoch else iters_per_epoch
    steps = tuple(step / unit for step in cfg.SOLVER.STEPS)
    if steps and min(steps) >= epochs:
        length = "SOLVER.MAX_EPOCHS" if cfg.SOLVER.MAX_EPOCHS > 0 else "SOLVER.MAX_ITER"
        raise ConfigError(
            f"SOLVER.STEPS={tuple(cfg.SOLVER.STEPS)} are not below {length}="
            f"{get_value(cfg, length):g}, so the learning rate would never change; give the "
            f"{'epochs' if unit == 1 else 'iterations'} at which it is multiplied by SOLVER.GAMMA"
        )
    return {"steps": steps, "decay": cfg.SOLVER.GAMMA}


def _in_config_keys(message: str) -> str:
    """Replaces the names of a recipe's fields in a message by config keys."""
    keys = {**RECIPE_KEYS, "clip_grad_norm": "SOLVER.CLIP_GRADIENTS.CLIP_VALUE"}
    return re.sub(r"(?:recipe )?\b(\w+)=", lambda m: f"{keys.get(m[1], m[1])}=", message)


def recipe_to_config(recipe: Recipe) -> dict[str, Any]:
    """Returns config keys and values, such as ``{"SOLVER.BASE_LR": 0.026}``, of a recipe.

    These keys are left out: SOLVER.NESTEROV of optimizers outside of :data:`NESTEROV_OPTIMIZERS`,
    SOLVER.WEIGHT_DECAY_BIAS if biases have the decay of norm weights, and CLIP_VALUE without
    clipping. With the schedule ``steps``, SOLVER.EPOCH_DECAY is left out; with another
    schedule, STEPS and GAMMA are left out.
    """
    values = {key: getattr(recipe, field) for field, key in RECIPE_KEYS.items()}
    if recipe.optimizer not in NESTEROV_OPTIMIZERS:
        del values["SOLVER.NESTEROV"]
    if recipe.weight_decay_bias is None:
        del values["SOLVER.WEIGHT_DECAY_BIAS"]
    if recipe.schedule == "steps":
        values["SOLVER.GAMMA"] = values.pop("SOLVER.EPOCH_DECAY")
    else:
        del values["SOLVER.STEPS"]
    values["SOLVER.CLIP_GRADIENTS.ENABLED"] = recipe.clip_grad_norm > 0
    if recipe.clip_grad_norm > 0:
        values["SOLVER.CLIP_GRADIENTS.CLIP_VALUE"] = recipe.clip_grad_norm
    return values
