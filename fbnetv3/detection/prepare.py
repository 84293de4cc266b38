"""A detector's training or evaluation, prepared from a config."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fbnetv3.config import CfgNode
from fbnetv3.config.archs import key_in_errors
from fbnetv3.data import EvalLoader, TrainLoader
from fbnetv3.detection.build import build_detector, network_name, warm_up_focal_loss
from fbnetv3.detection.class_layers import reorder_detector
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.datasets import open_datasets, open_evaluation_set
from fbnetv3.detection.images import BatchMapper, ImageMapper
from fbnetv3.detection.recipe import detection_recipe, rule_text
from fbnetv3.detection.task import DetectionTask
from fbnetv3.detection.weights import load_detector_weights
from fbnetv3.engine.experiment import Experiment, log_summary
from fbnetv3.engine.loading import loader_options_from_config
from fbnetv3.engine.precision import amp_dtype
from fbnetv3.engine.process import Process, RuntimeContext
from fbnetv3.engine.rng import seed_all
from fbnetv3.recipe import Recipe

_log = logging.getLogger("fbnetv3")


def prepare_detector(
    cfg: CfgNode,
    context: RuntimeContext,
    *,
    training: bool = True,
    weights: str = "",
    ignore_class_names: bool = False,
) -> Experiment:
    """Returns a training or an evaluation: the opened data sets and the detector of a config.

    Args:
        cfg: Config of a detector.
        context: Process, device and console to run on.
        training: Whether to prepare a training. An evaluation does not open the training set, and
            refuses weights of a classifier, and weights for other classes than the test set has.
        weights: Address or file of the weights to load; "" loads none.
        ignore_class_names: Whether an evaluation accepts classes whose names alone differ.

    Raises:
        FBNetError: A value of the config is not allowed, or the data or the weights cannot be read
            or do not fit it.
    """
    train_set, test_set = open_datasets(cfg) if training else (None, open_evaluation_set(cfg))
    recipe = detection_recipe(cfg, len(test_set if train_set is None else train_set))
    if training:
        seed_all(cfg.SEED)  # the initial weights are drawn next
    model, full_cfg = build_detector(cfg, test_set.classes, context.device)
    if weights:
        names = None if ignore_class_names else test_set.classes
        _load(model, weights, full_cfg, names, training)
    task = _task(full_cfg, context, recipe, test_set)
    metadata = detector_metadata(full_cfg, test_set.classes, recipe)
    experiment = Experiment(
        cfg, context, recipe, test_set.classes, model, task, metadata, reorder_detector
    )
    if train_set is not None:
        warm_up_focal_loss(context.device)
        experiment.train_loader = _train_loader(full_cfg, train_set, recipe, context.process)
        experiment.plan = _plan(cfg, model, train_set, test_set)
    return experiment


def _load(
    model: nn.Module, weights: str, cfg: CfgNode, classes: Sequence[str] | None, training: bool
) -> None:
    with key_in_errors("MODEL.WEIGHTS"):
        summary = load_detector_weights(model, weights, cfg, classes=classes, training=training)
    log_summary(summary)
    if summary.other_input:
        _log.warning("MODEL.WEIGHTS: %s", summary.other_input)


def _task(
    cfg: CfgNode, context: RuntimeContext, recipe: Recipe, dataset: CocoDataset
) -> DetectionTask:
    process = context.process
    loader = EvalLoader(
        dataset,
        load_batch=BatchMapper(dataset, ImageMapper(cfg, is_train=False)),
        batch_size=cfg.TEST.BATCH_SIZE,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        rank=process.rank,
        world_size=process.world_size,
        options=loader_options_from_config(cfg),
    )
    return DetectionTask(
        dataset=dataset,
        eval_loader=loader,
        device=context.device,
        folder=Path(cfg.OUTPUT_DIR),
        amp_dtype=amp_dtype(recipe, context.device),
        progress=context.shows_progress,
        backend=cfg.TEST.COCO_EVALUATOR,
    )


def _train_loader(
    cfg: CfgNode, dataset: CocoDataset, recipe: Recipe, process: Process
) -> TrainLoader:
    return TrainLoader(
        dataset,
        load_batch=BatchMapper(dataset, ImageMapper(cfg, is_train=True)),
        total_batch=recipe.step_batch,
        seed=cfg.SEED,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        rank=process.rank,
        world_size=process.world_size,
        options=loader_options_from_config(cfg),
    )


def _plan(
    cfg: CfgNode, model: nn.Module, train_set: CocoDataset, test_set: CocoDataset
) -> list[tuple[str, str]]:
    """Returns the detector's rows of the printed training plan."""
    params = sum(p.numel() for p in model.parameters())
    return [
        ("network", f"{network_name(cfg)}, {params / 1e6:.2f}M params"),
        ("training set", train_set.summary()),
        ("validation set", test_set.summary()),
        ("scaling with the batch", rule_text(cfg)),
    ]


def detector_metadata(cfg: CfgNode, classes: list[str], recipe: Recipe) -> dict[str, str]:
    """Returns the metadata that are exported with a detector's weights, to rebuild the detector.

    Args:
        cfg: Config with the number of classes filled in, as :func:`build_detector` returns it.
        classes: Class names.
        recipe: Training recipe.
    """
    groups: dict[str, Any] = {key: cfg[key] for key in ("MODEL", "INPUT", "TEST")}
    groups = json.loads(json.dumps(groups))
    groups["MODEL"] |= {"WEIGHTS": "", "DEVICE": "auto"}
    return {
        "task": "detection",
        "arch": network_name(cfg),
        "config": json.dumps(groups),
        "classes": json.dumps(classes),
        "recipe": json.dumps(recipe.to_dict()),
    }
