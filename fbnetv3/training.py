"""Training and evaluation: from a config to the files in OUTPUT_DIR, and to scores."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from fbnetv3.classification.own import OwnParts
from fbnetv3.classification.prepare import prepare_classifier
from fbnetv3.config import CfgNode, ConfigError, get_cfg
from fbnetv3.config.archs import is_detector
from fbnetv3.config.effects import unread_keys
from fbnetv3.config.ranges import check_numbers, check_training
from fbnetv3.data import build_dataset
from fbnetv3.engine.additions import Additions, check_names
from fbnetv3.engine.checkpoint import Checkpointer, load_model_state
from fbnetv3.engine.ema import ModelEMA
from fbnetv3.engine.experiment import Experiment
from fbnetv3.engine.export import export_model
from fbnetv3.engine.folder import (
    check_same_start,
    clear_run,
    refuse_own_weights,
    start_folder,
    state_to_resume,
)
from fbnetv3.engine.hooks import OnEval, evaluate_weights, format_scores
from fbnetv3.engine.logs import start_log_file
from fbnetv3.engine.loop import Training
from fbnetv3.engine.metrics import last_scores
from fbnetv3.engine.plan import print_plan
from fbnetv3.engine.process import RuntimeContext, runtime_context
from fbnetv3.engine.result import TrainingResult
from fbnetv3.engine.scoring import state_in_data_order, weights_to_score
from fbnetv3.engine.speed import cudnn_benchmark

_log = logging.getLogger("fbnetv3")


class Prepare(Protocol):
    """The function of a task that turns a config into an :class:`Experiment`."""

    def __call__(
        self,
        cfg: CfgNode,
        context: RuntimeContext,
        *,
        training: bool = True,
        weights: str = "",
        ignore_class_names: bool = False,
    ) -> Experiment:
        """Opens data sets and builds the network; see :func:`prepare_classifier`."""


def prepare_task(cfg: CfgNode) -> Prepare:
    """Returns the function that prepares the task of a config, a classifier's or a detector's."""
    if not is_detector(cfg):
        return prepare_classifier
    # Imported late: a classifier needs neither detectron2's networks nor COCO's evaluation.
    from fbnetv3.detection.prepare import prepare_detector

    return prepare_detector


def check_datasets(cfg: CfgNode, *, training: bool = True) -> None:
    """Opens the data sets of a config, to report a missing or invalid one early.

    Commands call it before they start processes, each of which would report the same error.

    Args:
        cfg: Config of a classifier or a detector.
        training: Whether DATASETS.TRAIN is needed, too.

    Raises:
        FBNetError: A data set is missing or invalid.
    """
    parts = ("TRAIN", "TEST") if training else ("TEST",)
    names = [name for part in parts for name in cfg.DATASETS[part]]
    if not is_detector(cfg):
        for name in names:
            build_dataset(name)
        return
    from fbnetv3.detection.datasets import build_detection_dataset  # as in prepare_task

    for name in names:
        build_detection_dataset(name, cfg)


def train(
    cfg: CfgNode,
    *,
    resume: bool = False,
    overwrite: bool = False,
    stop_after: float | None = None,
    on_eval: OnEval | None = None,
    on_save: Callable[[Path], None] | None = None,
    pictures: bool = True,
    raw_scores: bool = True,
    ignore_class_names: bool = False,
    profile: int = 0,
    own: OwnParts | None = None,
    additions: Additions | None = None,
) -> TrainingResult:
    """Trains the network of a config, from scratch or from the last checkpoint in OUTPUT_DIR.

    Args:
        cfg: Config of a classifier or a detector.
        resume: Whether to continue a run in OUTPUT_DIR; a run there otherwise needs ``overwrite``.
        overwrite: Whether to remove an earlier run in OUTPUT_DIR, once this one is prepared.
        stop_after: Epoch at which to stop, counted from the start of the schedule; None: its end.
        on_eval: Function called after each evaluation with the epochs so far and the scores.
        on_save: Function called with the path of each checkpoint that was written.
        pictures: Whether to write curves.png and TensorBoard events.
        raw_scores: Whether to score the raw weights even if an average of them is kept.
        ignore_class_names: Whether the classes of weights may have other names than the data's.
        profile: Number of steps to trace; 0 writes no trace.
        own: Network and data sets in place of those of the config; see ``fbnetv3.train``.
        additions: Hooks and writers in addition to those of the config.

    Raises:
        FBNetError: For example, config or data are invalid, a loss is not finite, a signal arrived.
    """
    check_training(cfg)
    checkpointer = Checkpointer(cfg.OUTPUT_DIR, cfg.SOLVER.KEEP_CHECKPOINTS, on_save=on_save)
    earlier = None if overwrite else checkpointer
    experiment, state = _prepare(cfg, earlier, resume, ignore_class_names, own or OwnParts())
    options = stop_after, on_eval, pictures, raw_scores, profile, additions
    return _run(experiment, Training(experiment, checkpointer, *options), state, overwrite)


def _prepare(
    cfg: CfgNode,
    earlier: Checkpointer | None,
    resume: bool,
    ignore_class_names: bool,
    own: OwnParts,
) -> tuple[Experiment, dict[str, Any] | None]:
    """Returns the experiment of a training, and the checkpoint's state when resuming.

    Args:
        cfg: Config of the training.
        earlier: Checkpoints of an earlier run in the folder; None: they are ignored.
        resume: Whether to continue from the last checkpoint.
        ignore_class_names: As in :func:`train`.
        own: Network and data sets in place of those of the config.
    """
    check_names(cfg)
    context = runtime_context(cfg)
    if context.is_main:
        _warn_of_config(cfg, own)
    if earlier is None:
        refuse_own_weights(cfg)
    state = None if earlier is None else state_to_resume(earlier, resume)
    check_same_start(state, cfg.OUTPUT_DIR)
    weights = cfg.MODEL.WEIGHTS if state is None else ""  # the checkpoint contains weights
    prepare = _prepare_own(cfg, own) if own else prepare_task(cfg)
    experiment = prepare(cfg, context, weights=weights, ignore_class_names=ignore_class_names)
    if state is not None and ignore_class_names:
        state = state_in_data_order(state, experiment, ignore_class_names)
    return experiment, state


def _prepare_own(cfg: CfgNode, own: OwnParts) -> Prepare:
    """Returns the function that prepares a classifier with a caller's network or data sets.

    Raises:
        ConfigError: The config is that of a detector.
    """
    if is_detector(cfg):
        raise ConfigError(
            "model, train_set and test_set are for classifiers, and MODEL.META_ARCHITECTURE is "
            f"{cfg.MODEL.META_ARCHITECTURE}; for a detector, register them with detectron2"
        )
    return partial(prepare_classifier, own=own)


def _run(
    experiment: Experiment, training: Training, state: dict[str, Any] | None, overwrite: bool
) -> TrainingResult:
    """Runs a training, from a checkpoint's state if there is one, and exports its weights.

    Args:
        experiment: Network, data and recipe.
        training: The training loop.
        state: State of the checkpoint to continue from; None: from scratch.
        overwrite: Whether to remove the files of an earlier run first.
    """
    if state is not None:
        training.load(state)
    is_main = experiment.context.is_main
    if is_main:
        if overwrite:
            clear_run(experiment.folder)
        start_folder(experiment.folder, experiment.cfg, state)
        start_log_file()
        print_plan(experiment, training.start_iter, training.epochs_done)
    if training.has_steps_left:
        with cudnn_benchmark(experiment.cfg.CUDNN_BENCHMARK):
            training.run()
    elif is_main:
        _log.warning("nothing is left to train: %s", _end_text(training))
    name = "model.safetensors" if training.ema is None else "model_ema.safetensors"
    folder, scores = experiment.folder, dict[str, float]()
    if is_main:
        export_model(experiment, training.ema)
        scores = last_scores(folder / "metrics.json") | training.best_scores()
    return TrainingResult(scores, folder / name, folder)


def _end_text(training: Training) -> str:
    """Says why a resumed training has no step left."""
    if training.start_iter < training.max_iter:
        return (
            f"the training stopped early after {training.epochs_done:.4g} epochs; raise "
            "SOLVER.EARLY_STOP_PATIENCE, or set it to 0, to go on"
        )
    return (
        f"the checkpoint has {training.epochs_done:.4g} epochs, the training ends after "
        f"{training.epochs:.4g}; raise SOLVER.MAX_EPOCHS for a longer training"
    )


def _warn_of_config(cfg: CfgNode, own: OwnParts) -> None:
    """Warns of keys without effect, and of scores on images that the network is trained on."""
    unread = unread_keys(cfg) | own.unread_keys(cfg, get_cfg())
    if unread:
        keys = ", ".join(f"{key} ({reason})" for key, reason in unread.items())
        _log.warning("keys of the config without effect: %s", keys)
    train_sets, test_sets = (
        {os.path.normpath(name) for name in cfg.DATASETS[part]} for part in ("TRAIN", "TEST")
    )
    both = train_sets & test_sets if own.train_set is own.test_set else set()
    if both:
        _log.warning(
            "DATASETS.TRAIN and DATASETS.TEST are both %s: the scores are measured on images that "
            "the network is trained on",
            ", ".join(sorted(both)),
        )


def evaluate(
    cfg: CfgNode, *, weights: str | None = None, ignore_class_names: bool = False
) -> dict[str, float]:
    """Scores the weights of the run in OUTPUT_DIR, or MODEL.WEIGHTS, on DATASETS.TEST.

    Args:
        cfg: Config of a classifier or a detector.
        weights: Address or file of the weights; "" means the weights of the run in OUTPUT_DIR. None
            means the same if MODEL.WEIGHTS is empty or that run started from it, and otherwise
            MODEL.WEIGHTS.
        ignore_class_names: Whether the weights may have other class names than the data, if the
            number of classes is the same. By default they must have the same names; their order may
            differ.

    Returns:
        Scores such as ``val/top1``; the scores of a checkpoint's averaged weights end in ``_ema``.

    Raises:
        FBNetError: There are no weights, they do not fit the network or the data's classes, the
            data cannot be read, or a value of the config is out of its range.
    """
    check_numbers(cfg)
    source = weights_to_score(cfg, weights)
    uri, state = (source, None) if isinstance(source, str) else ("", source)
    experiment = prepare_task(cfg)(
        cfg,
        runtime_context(cfg),
        training=False,
        weights=uri,
        ignore_class_names=ignore_class_names,
    )
    ema = None if state is None else _load_state(experiment, state, ignore_class_names)
    scores = evaluate_weights(experiment.task, experiment.model, ema)
    _log.info("%s", format_scores(scores))
    return scores


def _load_state(
    experiment: Experiment, state: dict[str, Any], ignore_class_names: bool
) -> ModelEMA | None:
    """Loads the weights of a checkpoint; returns their average, if the checkpoint has one."""
    state = state_in_data_order(state, experiment, ignore_class_names)
    load_model_state(experiment.model, state, experiment.classes)
    if state["ema"] is None:
        return None
    ema = ModelEMA(experiment.model, experiment.recipe.ema_decay)
    ema.load_state_dict(state["ema"])
    return ema
