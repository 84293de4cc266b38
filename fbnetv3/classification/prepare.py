"""A classifier's training or evaluation, made from a config."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fbnetv3.arch import Arch, count_cost
from fbnetv3.classification.build import (
    class_names_from_config,
    datasets_from_config,
    eval_loader_from_config,
    evaluation_set_from_config,
    network_from_config,
    preprocessing_from_config,
    train_loader_from_config,
)
from fbnetv3.classification.task import ClassificationTask
from fbnetv3.config import CfgNode, recipe_from_config
from fbnetv3.config.archs import arch_from_config
from fbnetv3.data import ImageDataset
from fbnetv3.engine.process import surroundings
from fbnetv3.engine.rng import seed_all
from fbnetv3.engine.run import Run
from fbnetv3.engine.trainer import Task
from fbnetv3.recipe import Recipe
from fbnetv3.weights.load import load_weights

_log = logging.getLogger("fbnetv3")


def prepare_classifier(cfg: CfgNode, *, initial_weights: bool = True) -> Run:
    """Opens data and builds the network that a config describes, for training.

    Args:
        cfg: a config.
        initial_weights: load MODEL.WEIGHTS, if given; a resumed run needs them no more.

    Raises:
        FBNetError: something in the config or the data does not fit; one line says what to do.
    """
    process, device, console = surroundings(cfg)
    train_set, test_set = datasets_from_config(cfg)
    recipe = recipe_from_config(cfg, max(1, len(train_set) // max(1, cfg.SOLVER.IMS_PER_BATCH)))
    arch = arch_from_config(cfg)
    preprocessing = preprocessing_from_config(cfg, arch)
    classes = class_names_from_config(cfg, train_set)
    seed_all(cfg.SEED)
    model = network_from_config(arch, len(classes), recipe, device)
    if cfg.MODEL.WEIGHTS and initial_weights:
        _log.info("%s", load_weights(model, cfg.MODEL.WEIGHTS, allow_new_head=True))
    return Run(
        cfg=cfg,
        folder=Path(cfg.OUTPUT_DIR),
        process=process,
        device=device,
        recipe=recipe,
        classes=classes,
        model=model,
        task=_task(cfg, recipe, test_set, len(classes), preprocessing),
        loader=train_loader_from_config(
            cfg, train_set, recipe, preprocessing["resolution"], process
        ),
        console=console,
        plan=[
            ("network", _network(arch, model, len(classes), preprocessing["resolution"])),
            ("follows the batch", _rule_text(recipe)),
        ],
        metadata=_metadata(arch, classes, recipe, preprocessing),
    )


def _network(arch: Arch | str, model: nn.Module, num_classes: int, side: int) -> str:
    if not isinstance(arch, Arch):
        params = sum(p.numel() for p in model.parameters())
        return f"{arch} at {side} px: {params / 1e6:.2f}M params"
    cost = count_cost(arch.replace(num_classes=num_classes), side)
    return f"{arch.name} at {side} px: {cost.macs / 1e6:.1f}M MACs, {cost.params / 1e6:.2f}M params"


def _rule_text(recipe: Recipe) -> str:
    """Says in one line how the numbers follow the batch; detectors have another rule."""
    k = recipe.batch_size / recipe.reference_batch
    ratio = f"batch {recipe.batch_size} / {recipe.reference_batch} = {k:g}"
    ema = f"EMA decay {recipe.ema_decay:g} per step, whatever the batch" if recipe.ema else "no EMA"
    return f"{ratio}: lr x {k:g}; {ema}"


def _metadata(
    arch: Arch | str, classes: list[str], recipe: Recipe, preprocessing: Mapping[str, Any]
) -> dict[str, str]:
    return {
        "arch": arch.to_yaml() if isinstance(arch, Arch) else arch,
        "classes": json.dumps(classes),
        "recipe": json.dumps(recipe.to_dict()),
        **{key: json.dumps(value) for key, value in preprocessing.items()},
    }


def prepare_classifier_evaluation(cfg: CfgNode) -> tuple[nn.Module, Task, list[str], Recipe]:
    """Opens the validation set and builds the network; the training set is not needed.

    Returns:
        The network with its initial weights, the task, the classes' names, the recipe.

    Raises:
        FBNetError: something in the config or the data does not fit.
    """
    _, device, _ = surroundings(cfg)
    test_set = evaluation_set_from_config(cfg)
    recipe = recipe_from_config(cfg, 1)
    arch = arch_from_config(cfg)
    classes = class_names_from_config(cfg, test_set)
    model = network_from_config(arch, len(classes), recipe, device)
    preprocessing = preprocessing_from_config(cfg, arch)
    return model, _task(cfg, recipe, test_set, len(classes), preprocessing), classes, recipe


def _task(
    cfg: CfgNode,
    recipe: Recipe,
    test_set: ImageDataset,
    num_classes: int,
    preprocessing: dict[str, Any],
) -> Task:
    process, device, console = surroundings(cfg)
    return ClassificationTask(
        num_classes=num_classes,
        eval_loader=eval_loader_from_config(cfg, test_set, preprocessing, process),
        device=device,
        mixup=recipe.mixup,
        label_smoothing=recipe.label_smoothing,
        seed=cfg.SEED,
        amp=recipe.amp,
        progress=process.rank == 0 and console.is_terminal,
    )
