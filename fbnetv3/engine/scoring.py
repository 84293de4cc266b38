"""The weights that an evaluation scores, with their classes in the order of the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.engine.checkpoint import Checkpointer
from fbnetv3.engine.experiment import MATCHED_BY_NAME, Experiment
from fbnetv3.io import read_text
from fbnetv3.plain_yaml import YamlError, parse_yaml
from fbnetv3.weights.classes import class_names, class_order
from fbnetv3.weights.load import refusal
from fbnetv3.weights.run_folder import BEST, EXPORTED, is_checkpoint

_log = logging.getLogger("fbnetv3")
_CONFIG = "config.yaml"


def holds_run(folder: Path) -> bool:
    """Returns whether a training has started in a folder."""
    return (folder / _CONFIG).is_file() or has_weights(folder)


def has_weights(folder: Path) -> bool:
    """Returns whether a folder has checkpoints or exported weights of a run."""
    checkpoints = folder.glob("checkpoint_*.pt")
    return _exported(folder) is not None or any(is_checkpoint(path.name) for path in checkpoints)


def _exported(folder: Path) -> Path | None:
    """Returns the exported weights in a folder, the averaged ones first; None without any."""
    return next((folder / name for name in EXPORTED if (folder / name).is_file()), None)


def weights_to_score(cfg: CfgNode, weights: str | None) -> str | dict[str, Any]:
    """Returns what an evaluation scores: the address of weights, or the state of a checkpoint.

    Args:
        cfg: Config of the evaluation.
        weights: Address or file; "" means the newest checkpoint of the run in OUTPUT_DIR, else its
            exported weights, else its best checkpoint. None means the same if MODEL.WEIGHTS is
            empty or names the weights that the run in OUTPUT_DIR started from, and otherwise
            MODEL.WEIGHTS.

    Raises:
        ConfigError: There are no weights to score.
        CheckpointError: The checkpoint of the run cannot be loaded.
    """
    configured, folder = str(cfg.MODEL.WEIGHTS), Path(cfg.OUTPUT_DIR)
    means_run = weights == "" or not configured or configured == _initial_weights(folder)
    if weights or not means_run:
        return weights or configured
    checkpointer = Checkpointer(folder)
    newest, exported = checkpointer.newest(), _exported(folder)
    if newest is not None and (newest.name != BEST or exported is None):
        _log.info("evaluating %s", newest)
        return checkpointer.load(newest)
    if exported is not None:
        _log.info("evaluating %s", exported)
        return str(exported)
    raise ConfigError(
        f"nothing to evaluate: OUTPUT_DIR {cfg.OUTPUT_DIR} has no checkpoint or exported "
        "weights; train first, or set MODEL.WEIGHTS to zoo://NAME or a file on the command line"
    )


def _initial_weights(folder: Path) -> str | None:
    """Returns MODEL.WEIGHTS of the run in a folder; None if its config cannot be read."""
    try:
        tree = parse_yaml(read_text(folder / _CONFIG, "config"))
    except (OSError, YamlError, ValueError):
        return None
    model = tree.get("MODEL") if isinstance(tree, Mapping) else None
    return str(model.get("WEIGHTS", "")) if isinstance(model, Mapping) else ""


def state_in_data_order(
    state: dict[str, Any], experiment: Experiment, ignore_class_names: bool = False
) -> dict[str, Any]:
    """Returns the state of a checkpoint with its classes in the order of the data.

    Args:
        state: State of a checkpoint.
        experiment: Experiment whose network the state is for.
        ignore_class_names: Whether classes with other names are accepted if their number is the
            same. The network's outputs then keep their order, and get the names of the data.

    Raises:
        LoadError: The checkpoint was trained on other classes.
    """
    saved, data = class_names(state) or (), experiment.classes
    if ignore_class_names and len(saved) == len(data):
        return {**state, "classes": list(data)}
    order = class_order(saved, data)
    if order is None:
        raise refusal("the checkpoint", saved, data)
    if order != sorted(order):
        _log.warning("%s", MATCHED_BY_NAME)
    reordered = {**state, "classes": list(data)}
    reordered["model"] = experiment.reorder(state["model"], order)
    if state["ema"] is not None:
        tensors = experiment.reorder(state["ema"]["tensors"], order)
        reordered["ema"] = {**state["ema"], "tensors": tensors}
    return reordered
