"""A detector's training or evaluation, made from a config."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetMapper
from detectron2.modeling import build_model
from fvcore.nn import sigmoid_focal_loss_jit
from torch import nn

from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.data import EvalLoader, TrainLoader
from fbnetv3.data.errors import DataError, some
from fbnetv3.detection import backbone as _backbone  # noqa: F401 - registers the backbones
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.datasets import build_detection_dataset
from fbnetv3.detection.images import Mapped, check_images
from fbnetv3.detection.recipe import detection_recipe, rule_text
from fbnetv3.detection.task import DetectionTask
from fbnetv3.detection.weights import load_detector_weights
from fbnetv3.engine.rng import seed_all
from fbnetv3.engine.run import Run, surroundings
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


def open_datasets(cfg: CfgNode) -> tuple[CocoDataset, CocoDataset]:
    """Opens and checks the training and the validation set.

    Raises:
        DataError: something in them is wrong, or they have different classes.
    """
    train_set, test_set = _opened(cfg, "TRAIN"), _opened(cfg, "TEST")
    if train_set.classes != test_set.classes:
        raise DataError(
            f"{train_set.name} has the classes {some(train_set.classes)}, {test_set.name} has "
            f"{some(test_set.classes)}; DATASETS.TRAIN and TEST must have the same"
        )
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        kept = [r for r in train_set.records if any(not a["iscrowd"] for a in r["annotations"])]
        if not kept:
            raise DataError(f"{train_set.name}: no image has a box to train on")
        train_set = train_set.replace_records(kept)
    return train_set, test_set


def _opened(cfg: CfgNode, part: str) -> CocoDataset:
    names = cfg.DATASETS[part]
    if len(names) != 1:
        raise ConfigError(f"DATASETS.{part} is {names}; give the name of one data set")
    dataset = build_detection_dataset(names[0], cfg)
    for note in dataset.notes:
        _log.info("%s: %s", dataset.name, note)
    return check_images(dataset, decode=cfg.DATA.CHECK_IMAGES, skip_broken=cfg.DATA.SKIP_BROKEN)


def build_detector(
    cfg: CfgNode, classes: list[str], device: torch.device
) -> tuple[nn.Module, CfgNode]:
    """Builds detectron2's meta-architecture for the classes, in channels_last.

    Returns:
        The model in training mode, and the config with the number of classes filled in.

    Raises:
        ConfigError: detectron2 lacks the architecture, or MODEL.NUM_CLASSES is another number.
    """
    if cfg.MODEL.NUM_CLASSES not in (0, len(classes)):
        raise ConfigError(
            f"MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}, the data has {len(classes)} classes; "
            "set it to 0 to follow the data"
        )
    full = cfg.clone()
    full.defrost()
    full.MODEL.RETINANET.NUM_CLASSES = full.MODEL.ROI_HEADS.NUM_CLASSES = len(classes)
    full.MODEL.NUM_CLASSES = len(classes)
    full.MODEL.DEVICE = str(device)
    full.freeze()
    try:
        model = build_model(full)
    except KeyError as error:
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE!r} or MODEL.BACKBONE.NAME "
            f"{cfg.MODEL.BACKBONE.NAME!r} is unknown: {error}"
        ) from error
    return model.to(memory_format=torch.channels_last), full


def settle_focal_loss(device: torch.device) -> None:
    """Calls RetinaNet's focal loss once with gradients.

    TorchScript runs a function's first call unoptimised and the later ones by formulas of its own,
    whose gradients round differently: the first step of each process would, and a run that was
    killed and resumed would not be the undisturbed one bit for bit.

    Args:
        device: of the training; TorchScript optimises for what it saw first.
    """
    logits = torch.zeros(2, 2, device=device, requires_grad=True)
    truth = torch.zeros_like(logits)
    sigmoid_focal_loss_jit(logits, truth, alpha=0.25, gamma=2.0, reduction="sum").backward()


def _network_name(cfg: CfgNode) -> str:
    name = cfg.MODEL.ARCH if "fbnet" in cfg.MODEL.BACKBONE.NAME else f"R-{cfg.MODEL.RESNETS.DEPTH}"
    return f"{cfg.MODEL.META_ARCHITECTURE} on {name}"


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
