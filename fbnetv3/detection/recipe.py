"""The recipe of a detector's training, scaled to its batch size.

Configs state learning rate, iterations, warm-up and EMA decay for a batch of
SOLVER.REFERENCE_BATCH images (16 in detectron2's configs). For a batch k times as large, where k is
below 1 on small machines, they are scaled:

- The learning rate is multiplied by k (the linear rule, which the paper, A.3, applies to the number
  of machines).
- MAX_ITER, WARMUP_ITERS and STEPS are divided by k, so that training sees the same number of
  images. The length is rounded to whole steps, at least 1. Periods (TEST.EVAL_PERIOD,
  SOLVER.CHECKPOINT_PERIOD) count steps, and are not scaled.
- EMA decay is raised to the power of k, so that it averages over the same number of images.

Lengths in epochs (SOLVER.MAX_EPOCHS above 0) do not depend on the batch size and are not scaled.
REFERENCE_BATCH 0 switches all scaling off.
"""

from __future__ import annotations

from fbnetv3.config import CfgNode, ConfigError, recipe_from_config
from fbnetv3.config.recipes import nesterov_from_config
from fbnetv3.engine.schedule import num_steps
from fbnetv3.recipe import Recipe


def step_batch(cfg: CfgNode) -> int:
    """Returns the number of images per optimizer step over all processes."""
    return int(cfg.SOLVER.IMS_PER_BATCH * cfg.SOLVER.ACCUMULATE_STEPS)


def batch_ratio(cfg: CfgNode) -> float:
    """Returns k, the batch size divided by the reference batch, or 1 if scaling is off.

    Raises:
        ConfigError: SOLVER.IMS_PER_BATCH, ACCUMULATE_STEPS or REFERENCE_BATCH is out of range.
    """
    batch, reference = step_batch(cfg), cfg.SOLVER.REFERENCE_BATCH
    if batch < 1 or reference < 0:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH={cfg.SOLVER.IMS_PER_BATCH}, ACCUMULATE_STEPS="
            f"{cfg.SOLVER.ACCUMULATE_STEPS} (allowed: >= 1) or REFERENCE_BATCH={reference} "
            "(allowed: >= 0, where 0 switches scaling off) is out of range"
        )
    return batch / reference if reference else 1.0


def detection_recipe(cfg: CfgNode, num_images: int) -> Recipe:
    """Returns the recipe that a config describes for a training set, scaled to the batch size.

    Args:
        cfg: Config of a detector.
        num_images: Number of training images.

    Raises:
        ConfigError: A value is out of range.
    """
    k, solver = batch_ratio(cfg), cfg.SOLVER
    per_epoch = max(1, num_images // step_batch(cfg))
    in_epochs = solver.MAX_EPOCHS > 0
    # The factor that turns lengths in the config into epochs of this training.
    unit = 1.0 if in_epochs else 1 / (k * per_epoch)
    length = solver.MAX_EPOCHS if in_epochs else solver.MAX_ITER * unit
    warmup = solver.WARMUP_EPOCHS if in_epochs else solver.WARMUP_ITERS * unit
    steps = [step * unit for step in solver.STEPS] if solver.LR_SCHEDULER_NAME == "steps" else []
    bias = solver.WEIGHT_DECAY_BIAS
    return recipe_from_config(
        cfg,
        per_epoch,
        epochs=num_steps(length, per_epoch) / per_epoch if length > 0 else length,
        warmup_epochs=min(warmup, length),
        steps=[step for step in steps if step < length],
        decay=solver.GAMMA if steps else solver.EPOCH_DECAY,
        reference_batch=solver.REFERENCE_BATCH or step_batch(cfg),
        ema_decay=cfg.MODEL_EMA.DECAY**k,
        nesterov=nesterov_from_config(cfg, default=False),
        # detectron2 applies the weight decay to biases, too.
        weight_decay_bias=solver.WEIGHT_DECAY if bias is None else bias,
    )


def rule_text(cfg: CfgNode) -> str:
    """Returns one line on how lr, EMA decay and the number of steps follow the batch size."""
    k = batch_ratio(cfg)
    if not cfg.SOLVER.REFERENCE_BATCH:
        return "off (SOLVER.REFERENCE_BATCH 0)"
    ratio = f"batch {step_batch(cfg)} / {cfg.SOLVER.REFERENCE_BATCH} = {k:g}"
    return f"{ratio}: lr x {k:g}, {_length_rule(cfg, k)}EMA decay {cfg.MODEL_EMA.DECAY:g} ^ {k:g}"


def _length_rule(cfg: CfgNode, k: float) -> str:
    """Returns how SOLVER.MAX_ITER becomes steps; "" if the length is in epochs."""
    if cfg.SOLVER.MAX_EPOCHS > 0:
        return ""
    length, exact = cfg.SOLVER.MAX_ITER, cfg.SOLVER.MAX_ITER / k
    rounded = "" if exact == round(exact) else f", rounded from {exact:.4g}"
    return f"SOLVER.MAX_ITER {length} / {k:g} = {num_steps(exact, 1):,} steps{rounded}, "
