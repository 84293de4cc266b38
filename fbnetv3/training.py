"""One training or evaluation, from a config to the files in its folder."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from fbnetv3.classification.prepare import prepare_classifier, prepare_classifier_evaluation
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.config.ranges import check_numbers
from fbnetv3.engine.checkpoint import Checkpointer
from fbnetv3.engine.ema import ModelEMA
from fbnetv3.engine.export import export_run
from fbnetv3.engine.folder import start_folder, state_to_resume
from fbnetv3.engine.hooks import (
    OnEval,
    evaluate_both,
    format_scores,
)
from fbnetv3.engine.loop import Training
from fbnetv3.engine.metrics import last_scores
from fbnetv3.engine.plan import print_plan
from fbnetv3.engine.run import Run, load_model_state
from fbnetv3.engine.trainer import Task
from fbnetv3.recipe import Recipe
from fbnetv3.weights.load import load_weights

_log = logging.getLogger("fbnetv3")


def is_detector(cfg: CfgNode) -> bool:
    """Whether a config describes a detector."""
    return bool(cfg.MODEL.META_ARCHITECTURE != "ImageClassifier")


def prepare(cfg: CfgNode, *, initial_weights: bool = True) -> Run:
    """Opens data and builds the network that a config describes, for training.

    MODEL.META_ARCHITECTURE tells the task: ``ImageClassifier``, or a detector of detectron2.

    Args:
        cfg: a config.
        initial_weights: load MODEL.WEIGHTS, if given; a resumed run needs them no more.

    Raises:
        FBNetError: something in the config or the data does not fit; one line says what to do.
    """
    if is_detector(cfg):
        from fbnetv3.detection.prepare import prepare_detector

        return prepare_detector(cfg, initial_weights=initial_weights)
    return prepare_classifier(cfg, initial_weights=initial_weights)


def prepare_evaluation(cfg: CfgNode) -> tuple[nn.Module, Task, list[str], Recipe]:
    """Opens the validation set and builds the network; the training set is not needed."""
    if is_detector(cfg):
        from fbnetv3.detection.prepare import prepare_detector_evaluation

        return prepare_detector_evaluation(cfg)
    return prepare_classifier_evaluation(cfg)


def train(
    cfg: CfgNode,
    *,
    resume: bool = False,
    stop_after: float | None = None,
    on_eval: OnEval | None = None,
    on_save: Callable[[Path], None] | None = None,
    pictures: bool = True,
    raw_scores: bool = True,
) -> dict[str, float]:
    """Trains as the config says, or goes on from the folder's last checkpoint.

    OUTPUT_DIR gets config.yaml, log.txt, metrics.json, TensorBoard events, curves.png,
    checkpoints, and in the end model.safetensors and model_ema.safetensors.

    Args:
        cfg: a config.
        resume: go on from the last checkpoint, where there is one.
        stop_after: train so many epochs of the config's schedule only; None: all.
        on_eval: called at each evaluation with the epochs trained so far and the scores.
        on_save: called with each checkpoint that has been written.
        pictures: whether curves.png and TensorBoard events are written.
        raw_scores: whether the raw weights are scored too where there is an average.

    Returns:
        The last scores: ``val/top1``, ``val/top1_ema`` and the like.

    Raises:
        FBNetError: bad input, a non-finite loss, a full disk, a stop by signal.
    """
    check_numbers(cfg)
    folder = Path(cfg.OUTPUT_DIR)
    checkpointer = Checkpointer(folder, keep=cfg.SOLVER.KEEP_CHECKPOINTS, on_save=on_save)
    state = state_to_resume(checkpointer, resume)
    run = prepare(cfg, initial_weights=state is None)
    training = Training(run, checkpointer, stop_after, on_eval, pictures, raw_scores)
    if state is not None:
        training.load(state)
    if run.is_main:
        start_folder(folder, cfg, state)
        print_plan(run, training.start_iter)
    if training.start_iter < training.max_iter:
        training.run()
    if run.is_main:
        export_run(run, training.ema)
    return last_scores(folder / "metrics.json") if run.is_main else {}


def evaluate(cfg: CfgNode) -> dict[str, float]:
    """Scores MODEL.WEIGHTS, or the last checkpoint in OUTPUT_DIR, raw and averaged.

    Raises:
        FBNetError: there are no weights, they don't fit, or a number is out of range.
    """
    check_numbers(cfg)
    model, task, classes, recipe = prepare_evaluation(cfg)
    ema = None
    if cfg.MODEL.WEIGHTS:
        _log.info("%s", load_weights(model, cfg.MODEL.WEIGHTS))
    else:
        state = _last_state(cfg)
        load_model_state(model, state, classes)
        if state["ema"] is not None:
            ema = ModelEMA(model, recipe.ema_decay)
            ema.load_state_dict(state["ema"])
    scores = evaluate_both(task, model, ema)
    _log.info("%s", format_scores(scores))
    return scores


def _last_state(cfg: CfgNode) -> dict[str, Any]:
    checkpointer = Checkpointer(cfg.OUTPUT_DIR)
    latest = checkpointer.latest()
    if latest is None:
        raise ConfigError(
            f"nothing to evaluate: {cfg.OUTPUT_DIR} has no checkpoint; give MODEL.WEIGHTS, as "
            "zoo://NAME or a file"
        )
    _log.info("evaluating %s", latest)
    return checkpointer.load(latest)
