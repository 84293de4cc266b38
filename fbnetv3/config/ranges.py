"""Allowed ranges of a config's numbers; the ranges of a recipe are in :mod:`fbnetv3.recipe`."""

from __future__ import annotations

import math

from fbnetv3.config import CfgNode, ConfigError, get_cfg, get_value

_LARGEST_SEED = 2**64 - 1  # limit of torch.manual_seed
RANGES: dict[str, tuple[float, float]] = {
    "MODEL.BN_MOMENTUM": (0, 1),
    "TEST.BATCH_SIZE": (1, math.inf),
    "TEST.EVAL_EPOCHS": (0, math.inf),
    "TEST.EVAL_PERIOD": (0, math.inf),
    "SOLVER.CHECKPOINT_EPOCHS": (0, math.inf),
    "SOLVER.CHECKPOINT_PERIOD": (0, math.inf),
    "SOLVER.KEEP_CHECKPOINTS": (1, math.inf),
    "SOLVER.LOG_PERIOD": (0, math.inf),
    "SOLVER.EARLY_STOP_PATIENCE": (0, math.inf),
    "SOLVER.MAX_ITER": (0, math.inf),
    "DATALOADER.NUM_WORKERS": (0, math.inf),
    "DATALOADER.PREFETCH": (1, math.inf),
    "SEED": (0, _LARGEST_SEED),
}
"""Key -> smallest and largest value, inclusive; numbers are finite."""


def check_numbers(cfg: CfgNode) -> None:
    """Checks the numbers of the training loop and the evaluation: periods, workers, seed etc.

    Raises:
        ConfigError: A number is out of its range, or :func:`check_supported` fails.
    """
    for key, (low, high) in RANGES.items():
        value = get_value(cfg, key)
        if not (low <= value <= high and math.isfinite(value)):
            allowed = f">= {low}" if high == math.inf else f"{low} to {high}"
            raise ConfigError(f"{key}={value!r} is out of range; allowed: {allowed}")
    check_supported(cfg)


def check_supported(cfg: CfgNode) -> None:
    """Refuses a value of a detectron2 key that this package does not support.

    Raises:
        ConfigError: TEST.PRECISE_BN.ENABLED is True.
    """
    if cfg.TEST.PRECISE_BN.ENABLED:
        raise ConfigError(
            "TEST.PRECISE_BN.ENABLED True is not supported; allowed: False. The averages of "
            "MODEL_EMA.ENABLED include the statistics of batch norm, and their scores end in _ema"
        )


def check_training(cfg: CfgNode) -> None:
    """Checks the numbers of a training, and that it has a length.

    Raises:
        ConfigError: See :func:`check_numbers` and :func:`check_length`.
    """
    check_numbers(cfg)
    check_length(cfg)


def check_length(cfg: CfgNode) -> None:
    """Checks that a training has a length: epochs, or iterations that were given.

    Raises:
        ConfigError: SOLVER.MAX_EPOCHS is 0, and nothing gives SOLVER.MAX_ITER.
    """
    is_default = cfg.SOLVER.MAX_ITER == get_cfg().SOLVER.MAX_ITER
    if cfg.SOLVER.MAX_EPOCHS == 0 and is_default and "SOLVER.MAX_ITER" not in cfg.given_keys():
        raise ConfigError(
            "SOLVER.MAX_EPOCHS=0 takes the length of the training from SOLVER.MAX_ITER, which is "
            "not given; give SOLVER.MAX_ITER, or a SOLVER.MAX_EPOCHS above 0"
        )
