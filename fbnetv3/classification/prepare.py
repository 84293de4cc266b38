"""A classifier's training or evaluation, prepared from a config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
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
from fbnetv3.classification.build_task import recipe_rows, task_from_config, training_parts
from fbnetv3.classification.dry_run import check_network
from fbnetv3.config import CfgNode, recipe_from_config
from fbnetv3.config.archs import arch_from_config, naming_keys, own_resolution
from fbnetv3.data import ImageDataset
from fbnetv3.engine.experiment import Experiment, log_summary
from fbnetv3.engine.memory import estimate_memory, warn_of_memory
from fbnetv3.engine.process import Process, RuntimeContext
from fbnetv3.engine.rng import seed_all
from fbnetv3.recipe import Recipe
from fbnetv3.weights.classes import reorder_classifier
from fbnetv3.weights.converters import heads_of
from fbnetv3.weights.load import load_weights


def prepare_classifier(
    cfg: CfgNode,
    context: RuntimeContext,
    *,
    training: bool = True,
    weights: str = "",
    ignore_class_names: bool = False,
) -> Experiment:
    """Opens the data sets and builds the network that a config describes.

    Args:
        cfg: Config of a classifier.
        context: Process, device and console to run on.
        training: Whether to prepare a training; an evaluation needs weights of the data's classes.
        weights: Address or file of the weights to load; "" loads none.
        ignore_class_names: Whether weights are accepted if only the names of their classes differ.

    Raises:
        FBNetError: A value of the config is not allowed, or the data or the weights do not fit it.
    """
    train_set, test_set = _open_datasets(cfg, training)
    recipe = recipe_from_config(cfg, _steps_per_epoch(cfg, train_set))
    preprocessing = preprocessing_from_config(cfg, arch := arch_from_config(cfg))
    classes, side = class_names_from_config(cfg, test_set), preprocessing["resolution"]
    if training:
        seed_all(cfg.SEED)  # the initial weights are drawn next
    model = _network(cfg, arch, len(classes), recipe, context)
    batch = _norm_batch(cfg, recipe, context.process) if training else 1
    check_network(model, arch, len(classes), side, batch, training=training)
    _load(model, weights, training, None if ignore_class_names else classes)
    loader = eval_loader_from_config(cfg, test_set, preprocessing, context.process)
    parts = training_parts(cfg, context, recipe, train_set, side, ignore_class_names)
    task = task_from_config(cfg, context, recipe, test_set, loader, parts)
    metadata = _metadata(arch, classes, recipe, preprocessing)
    reorder = partial(reorder_classifier, heads=heads_of(model))
    experiment = Experiment(cfg, context, recipe, classes, model, task, metadata, reorder)
    if train_set is not None:
        network = _plan(arch, model, len(classes), side, experiment) + _resolution_row(cfg)
        _add_training(experiment, train_set, side, network + _data_rows(train_set, test_set))
    return experiment


def _network(
    cfg: CfgNode, arch: Arch | str, num_classes: int, recipe: Recipe, context: RuntimeContext
) -> nn.Module:
    momentum = cfg.MODEL.BN_MOMENTUM
    return network_from_config(arch, num_classes, recipe, context.device, momentum)


def _add_training(
    experiment: Experiment, train_set: ImageDataset, side: int, plan: list[tuple[str, str]]
) -> None:
    cfg, recipe, process = experiment.cfg, experiment.recipe, experiment.context.process
    experiment.train_loader = train_loader_from_config(cfg, train_set, recipe, side, process)
    experiment.compiles, experiment.plan = cfg.MODEL.COMPILE, plan


def _open_datasets(cfg: CfgNode, training: bool) -> tuple[ImageDataset | None, ImageDataset]:
    """Returns the training set (None for an evaluation) and the evaluation set."""
    return datasets_from_config(cfg) if training else (None, evaluation_set_from_config(cfg))


def _load(model: nn.Module, weights: str, training: bool, classes: list[str] | None) -> None:
    if not weights:
        return
    with naming_keys("MODEL.WEIGHTS"):
        summary = load_weights(model, weights, allow_new_head=training, classes=classes)
    log_summary(summary)


def _norm_batch(cfg: CfgNode, recipe: Recipe, process: Process) -> int:
    """Returns the number of images over which batch norms compute their statistics."""
    processes = 1 if cfg.MODEL.SYNC_BN else process.world_size
    return max(1, recipe.batch_size // processes)


def _steps_per_epoch(cfg: CfgNode, train_set: ImageDataset | None) -> int:
    """Returns the optimizer steps per epoch; 1 if there is no training set."""
    step_batch = cfg.SOLVER.IMS_PER_BATCH * cfg.SOLVER.ACCUMULATE_STEPS
    return 1 if train_set is None else max(1, len(train_set) // max(1, step_batch))


def _plan(
    arch: Arch | str, model: nn.Module, num_classes: int, side: int, experiment: Experiment
) -> list[tuple[str, str]]:
    """Returns the classifier's rows of the printed training plan; warns of too little memory."""
    recipe, context = experiment.recipe, experiment.context
    memory = "not estimated for networks of libraries"
    if isinstance(arch, Arch):
        cost = count_cost(arch.replace(num_classes=num_classes), side)
        macs = f"{cost.macs / 1e6:.1f}M MACs, {cost.params / 1e6:.2f}M params"
        network = f"{arch.name} at {side} px: {macs}"
        world_size = context.process.world_size
        estimate = estimate_memory(cost, recipe, side, context.device, world_size)
        memory = estimate.text()
        if context.is_main:
            warn_of_memory(estimate, recipe, context.device)
    else:
        params = sum(p.numel() for p in model.parameters())
        network = f"{arch} at {side} px: {params / 1e6:.2f}M params"
    rule = _batch_rule(recipe)
    rows = [("network", network), ("memory", memory), ("scaling with the batch", rule)]
    return rows + recipe_rows(experiment.cfg, recipe)


def _resolution_row(cfg: CfgNode) -> list[tuple[str, str]]:
    """Returns the plan's row about INPUT.RESOLUTION; [] if it is the network's own resolution."""
    own, side = own_resolution(cfg), cfg.INPUT.RESOLUTION
    if own is None or side in (0, own):
        return []
    text = f"INPUT.RESOLUTION {side} px instead of the network's own {own} px (INPUT.RESOLUTION 0)"
    return [("resolution", text)]


def _data_rows(train_set: ImageDataset, test_set: ImageDataset) -> list[tuple[str, str]]:
    return [("training set", train_set.summary()), ("validation set", test_set.summary())]


def _batch_rule(recipe: Recipe) -> str:
    """Describes how the learning rate scales with the batch; detection/recipe.py differs."""
    k = recipe.step_batch / recipe.reference_batch
    ratio = f"batch {recipe.step_batch} / {recipe.reference_batch} = {k:g}"
    ema = f"EMA decay {recipe.ema_decay:g} per step, whatever the batch" if recipe.ema else "no EMA"
    return f"{ratio}: lr x {k:g}; {ema}"


def _metadata(
    arch: Arch | str, classes: list[str], recipe: Recipe, preprocessing: Mapping[str, Any]
) -> dict[str, str]:
    """Returns the metadata that are exported with the weights, as strings."""
    return {
        "arch": arch.to_yaml() if isinstance(arch, Arch) else arch,
        "classes": json.dumps(classes),
        "recipe": json.dumps(recipe.to_dict()),
        **{key: json.dumps(value) for key, value in preprocessing.items()},
    }
