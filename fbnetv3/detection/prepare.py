"""A detector's training or evaluation, made from a config."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from detectron2.data import DatasetMapper
from torch import nn

from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.data import EvalLoader, TrainLoader
from fbnetv3.detection import backbone as _backbone  # noqa: F401 - registers the backbones
from fbnetv3.detection.build import _network_name, build_detector, settle_focal_loss
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.datasets import _opened, open_datasets
from fbnetv3.detection.images import Mapped
from fbnetv3.detection.recipe import detection_recipe, rule_text
from fbnetv3.detection.task import DetectionTask
from fbnetv3.detection.weights import load_detector_weights
from fbnetv3.engine.process import surroundings
from fbnetv3.engine.rng import seed_all
from fbnetv3.engine.run import Run
from fbnetv3.recipe import Recipe

_log = logging.getLogger("fbnetv3")


def prepare_detector(cfg: CfgNode, *, initial_weights: bool = True) -> Run:
    """Opens data and builds the detector that a config describes, for training.

    Args:
        cfg: a config.
        initial_weights: load MODEL.WEIGHTS, if given; a resumed run needs them no more.

    Raises:
        FBNetError: something in the config or the data does not fit; one line says what to do.
    """
    process, device, console = surroundings(cfg)
    train_set, test_set = open_datasets(cfg)
    recipe = detection_recipe(cfg, len(train_set))
    seed_all(cfg.SEED)
    model, full = build_detector(cfg, test_set.classes, device)
    if cfg.MODEL.WEIGHTS and initial_weights:
        _log.info("%s", load_detector_weights(model, cfg.MODEL.WEIGHTS, full))
    settle_focal_loss(device)
    params = sum(p.numel() for p in model.parameters())
    return Run(
        cfg=cfg,
        folder=Path(cfg.OUTPUT_DIR),
        process=process,
        device=device,
        recipe=recipe,
        classes=test_set.classes,
        model=model,
        task=_task(full, recipe, test_set),
        loader=_train_loader(full, train_set, recipe),
        console=console,
        plan=[
            ("network", f"{_network_name(cfg)}, {params / 1e6:.2f}M params"),
            ("data", f"{train_set.name}, {len(test_set.classes)} classes"),
            ("follows the batch", rule_text(cfg)),
        ],
        metadata=detector_metadata(full, test_set.classes, recipe),
    )


def prepare_detector_evaluation(
    cfg: CfgNode,
) -> tuple[nn.Module, DetectionTask, list[str], Recipe]:
    """Opens the validation set and builds the detector; the training set is not needed.

    Returns:
        The network with its initial weights, the task, the classes' names, the recipe.

    Raises:
        FBNetError: something in the config or the data does not fit.
    """
    _, device, _ = surroundings(cfg)
    test_set = _opened(cfg, "TEST")
    recipe = detection_recipe(cfg, len(test_set))
    model, full = build_detector(cfg, test_set.classes, device)
    return model, _task(full, recipe, test_set), test_set.classes, recipe


def _train_loader(cfg: CfgNode, dataset: CocoDataset, recipe: Recipe) -> TrainLoader:
    process, _, _ = surroundings(cfg)
    return TrainLoader(
        dataset,
        load_batch=Mapped(dataset, DatasetMapper(cfg, is_train=True)),
        total_batch=recipe.batch_size,
        seed=cfg.SEED,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        rank=process.rank,
        world_size=process.world_size,
    )


def _task(cfg: CfgNode, recipe: Recipe, dataset: CocoDataset) -> DetectionTask:
    process, device, console = surroundings(cfg)
    if cfg.TEST.BATCH_SIZE < 1:
        raise ConfigError(f"TEST.BATCH_SIZE={cfg.TEST.BATCH_SIZE} is out of range; allowed: >= 1")
    loader = EvalLoader(
        dataset,
        load_batch=Mapped(dataset, DatasetMapper(cfg, is_train=False)),
        batch_size=max(1, cfg.TEST.BATCH_SIZE // process.world_size),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        rank=process.rank,
        world_size=process.world_size,
    )
    return DetectionTask(
        dataset=dataset,
        eval_loader=loader,
        device=device,
        folder=Path(cfg.OUTPUT_DIR),
        amp=recipe.amp,
        progress=process.rank == 0 and console.is_terminal,
        backend=cfg.TEST.COCO_EVALUATOR,
    )


def detector_metadata(cfg: CfgNode, classes: list[str], recipe: Recipe) -> dict[str, str]:
    """Returns what travels with exported weights and makes a detector of them again."""
    kept: dict[str, Any] = {key: cfg[key] for key in ("MODEL", "INPUT", "TEST")}
    kept = json.loads(json.dumps(kept))
    kept["MODEL"] |= {"WEIGHTS": "", "DEVICE": "auto"}
    return {
        "task": "detection",
        "arch": _network_name(cfg),
        "config": json.dumps(kept),
        "classes": json.dumps(classes),
        "recipe": json.dumps(recipe.to_dict()),
    }
