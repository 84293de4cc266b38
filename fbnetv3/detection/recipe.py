"""The recipe of a detector's training: one rule that makes it follow the batch.

Configs state lr, iterations, warm-up and EMA decay for SOLVER.REFERENCE_BATCH images a step, as
detectron2's do for 16. For a batch k times as large, k below 1 on small machines:

- lr is multiplied by k (the linear rule; paper, A.3, for its nodes),
- MAX_ITER, WARMUP_ITERS and STEPS are divided by k: as many images are seen,
- EMA decay is raised to the power of k: it averages over as many images.

Lengths given in epochs (SOLVER.MAX_EPOCHS above 0) count images already. REFERENCE_BATCH 0
switches the rule off.
"""

from __future__ import annotations

from fbnetv3.config import CfgNode, ConfigError, recipe_from_config
from fbnetv3.recipe import Recipe


def batch_ratio(cfg: CfgNode) -> float:
    """Returns k, the batch as a multiple of the reference batch.

    Raises:
        ConfigError: One of them is not allowed.
    """
    batch, reference = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_BATCH
    if batch < 1 or reference < 0:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH={batch} and REFERENCE_BATCH={reference}: allowed are a batch "
            "from 1 and a reference from 0 (which lets nothing follow the batch)"
        )
    return batch / reference if reference else 1.0


def detection_recipe(cfg: CfgNode, num_images: int) -> Recipe:
    """Makes the recipe that a config describes on a data set.

    Args:
        cfg: A config.
        num_images: Of the training set.

    Raises:
        ConfigError: A value is out of its range.
    """
    k, solver = batch_ratio(cfg), cfg.SOLVER
    per_epoch = max(1, num_images // solver.IMS_PER_BATCH)
    in_epochs = solver.MAX_EPOCHS > 0
    # iterations of the config -> epochs of this training
    unit = 1.0 if in_epochs else 1 / (k * per_epoch)
    length = solver.MAX_EPOCHS if in_epochs else solver.MAX_ITER * unit
    warmup = solver.WARMUP_EPOCHS if in_epochs else solver.WARMUP_ITERS * unit
    steps = [step * unit for step in solver.STEPS] if solver.LR_SCHEDULER_NAME == "steps" else []
    bias = solver.WEIGHT_DECAY_BIAS
    return recipe_from_config(
        cfg,
        per_epoch,
        epochs=round(length * per_epoch) / per_epoch,
        warmup_epochs=min(warmup, length),
        steps=[step for step in steps if step < length],
        decay=solver.GAMMA if steps else solver.EPOCH_DECAY,
        reference_batch=solver.REFERENCE_BATCH or solver.IMS_PER_BATCH,
        ema_decay=cfg.MODEL_EMA.DECAY**k,
        nesterov=solver.NESTEROV,
        # detectron2 decays biases as weights
        weight_decay_bias=solver.WEIGHT_DECAY if bias is None else bias,
    )


def rule_text(cfg: CfgNode) -> str:
    """Says in one line how the numbers follow the batch."""
    k = batch_ratio(cfg)
    if not cfg.SOLVER.REFERENCE_BATCH:
        return "off (SOLVER.REFERENCE_BATCH 0)"
    ratio = f"batch {cfg.SOLVER.IMS_PER_BATCH} / {cfg.SOLVER.REFERENCE_BATCH} = {k:g}"
    return f"{ratio}: lr x {k:g}, iterations / {k:g}, EMA decay {cfg.MODEL_EMA.DECAY:g} ^ {k:g}"
