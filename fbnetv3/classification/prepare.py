"""A classifier's training or evaluation, prepared from a config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from fbnetv3.arch import Arch, count_cost
from fbnetv3.classification.build import (
    check_images,
    class_names_from_config,
    datasets_from_config,
    eval_loader_from_config,
    evaluation_set_from_config,
    network_from_config,
    preprocessing_from_config,
    train_loader_from_config,
)
from fbnetv3.classification.build_task import (
    has_several_labels,
    recipe_rows,
    task_from_config,
    training_parts,
)
from fbnetv3.classification.dry_run import check_network
from fbnetv3.classification.own import AnyDataset, OwnParts, placed
from fbnetv3.config import CfgNode, recipe_from_config
from fbnetv3.config.archs import key_in_errors, own_resolution
from fbnetv3.engine.distributed import can_synchronise
from fbnetv3.engine.experiment import Experiment, log_summary
from fbnetv3.engine.freezing import frozen_names
from fbnetv3.engine.memory import estimate_memory, warn_of_memory
from fbnetv3.engine.process import RuntimeContext
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
    own: OwnParts | None = None,
) -> Experiment:
    """Opens the data sets and builds the network that a config describes.

    Args:
        cfg: Config of a classifier.
        context: Process, device and console to run on.
        training: Whether a training follows. If not, the weights must have the data's classes.
        weights: Address or file of the weights to load; "" loads none.
        ignore_class_names: Whether the classes of the weights may have other names than the data's.
        own: Network and data sets in place of those of the config.

    Raises:
        FBNetError: A value is not allowed, or the data or the weights do not fit the config.
    """
    train_set, test_set, checked = _open(cfg, context, training, own := own or OwnParts())
    recipe = recipe_from_config(cfg, _steps_per_epoch(cfg, train_set))
    preprocessing = preprocessing_from_config(cfg, arch := own.network_name(cfg))
    classes, side = class_names_from_config(cfg, test_set), preprocessing["resolution"]
    model = _network(cfg, arch, len(classes), recipe, context, own.model, training)
    batch = _norm_batch(cfg, recipe, context, model) if training else 1
    check_network(model, arch, len(classes), side, batch, training=training)
    _load(model, weights, training, None if ignore_class_names else classes)
    loader = eval_loader_from_config(cfg, test_set, preprocessing, context.process)
    parts = training_parts(cfg, context, recipe, train_set, side, ignore_class_names)
    task = task_from_config(cfg, context, recipe, test_set, loader, parts)
    metadata = _metadata(arch, classes, recipe, preprocessing, has_several_labels(test_set))
    reorder = partial(reorder_classifier, heads=heads_of(model))
    experiment = Experiment(cfg, context, recipe, classes, model, task, metadata, reorder)
    if train_set is not None:
        _add_training(experiment, train_set, side, _plan(arch, side, experiment))
        experiment.plan += [*_data_rows(train_set, test_set), *checked]
    return experiment


def _network(
    cfg: CfgNode,
    arch: Arch | str,
    num_classes: int,
    recipe: Recipe,
    context: RuntimeContext,
    model: nn.Module | None,
    training: bool,
) -> nn.Module:
    momentum = cfg.MODEL.BN_MOMENTUM
    if training:
        seed_all(cfg.SEED)  # the initial weights are drawn next
    if model is not None:
        return placed(model, context.device, momentum)
    return network_from_config(arch, num_classes, recipe, context.device, momentum)


def _add_training(
    experiment: Experiment, train_set: AnyDataset, side: int, plan: list[tuple[str, str]]
) -> None:
    cfg, recipe, process = experiment.cfg, experiment.recipe, experiment.context.process
    experiment.train_loader = train_loader_from_config(cfg, train_set, recipe, side, process)
    experiment.compiles, experiment.plan = cfg.MODEL.COMPILE, plan


def _open(
    cfg: CfgNode, context: RuntimeContext, training: bool, own: OwnParts
) -> tuple[AnyDataset | None, AnyDataset, list[tuple[str, str]]]:
    """Returns the training set (None for an evaluation), the evaluation set, and rows of the plan.

    The rows report the check of the evaluation set, which only rank 0 of a training makes.
    """
    if not training:
        return None, evaluation_set_from_config(cfg), []
    train_set, test_set = datasets_from_config(cfg, own)
    return train_set, test_set, check_images(cfg, test_set) if context.is_main else []


def _load(model: nn.Module, weights: str, training: bool, classes: list[str] | None) -> None:
    if not weights:
        return
    with key_in_errors("MODEL.WEIGHTS"):
        summary = load_weights(model, weights, allow_new_head=training, classes=classes)
    log_summary(summary)


def _norm_batch(cfg: CfgNode, recipe: Recipe, context: RuntimeContext, model: nn.Module) -> int:
    """Returns the number of images over which batch norms compute their statistics.

    Where only some norms can be synchronised, it is the number for these, which may need it.
    """
    is_synced = cfg.MODEL.SYNC_BN and can_synchronise(model, context.device)
    return max(1, recipe.batch_size // (1 if is_synced else context.process.world_size))


def _steps_per_epoch(cfg: CfgNode, train_set: AnyDataset | None) -> int:
    """Returns the optimizer steps per epoch; 1 if there is no training set."""
    step_batch = cfg.SOLVER.IMS_PER_BATCH * cfg.SOLVER.ACCUMULATE_STEPS
    return 1 if train_set is None else max(1, len(train_set) // max(1, step_batch))


def _plan(arch: Arch | str, side: int, experiment: Experiment) -> list[tuple[str, str]]:
    """Returns the classifier's rows of the printed training plan; warns of too little memory."""
    recipe, context, num_classes = experiment.recipe, experiment.context, len(experiment.classes)
    memory = "not estimated for networks of libraries"
    if isinstance(arch, Arch):
        cost = count_cost(arch.replace(num_classes=num_classes), side)
        macs = f"{cost.macs / 1e6:.1f}M MACs, {cost.params / 1e6:.2f}M params"
        network = f"{arch.name} at {side} px: {macs}"
        frozen = frozen_names(experiment.model, recipe.freeze)
        number = sum(p.numel() for n, p in experiment.model.named_parameters() if n in frozen)
        world_size = context.process.world_size
        estimate = estimate_memory(cost, recipe, side, context.device, world_size, number)
        memory = estimate.text()
        if context.is_main:
            warn_of_memory(estimate, recipe, context.device)
    else:
        params = sum(p.numel() for p in experiment.model.parameters())
        network = f"{arch} at {side} px: {params / 1e6:.2f}M params"
    rows = [("network", network), ("memory", memory)]
    rows.append(("scaling with the batch", _batch_rule(recipe)))
    rows += _resolution_row(experiment.cfg) if isinstance(arch, Arch) else []
    return rows + recipe_rows(experiment.cfg, recipe)


def _resolution_row(cfg: CfgNode) -> list[tuple[str, str]]:
    """Returns the plan's row about INPUT.RESOLUTION; [] if it is the network's default."""
    default, side = own_resolution(cfg), cfg.INPUT.RESOLUTION
    if default is None or side in (0, default):
        return []
    text = f"INPUT.RESOLUTION {side} px instead of the network's {default} px, which 0 selects"
    return [("resolution", text)]


def _data_rows(train_set: AnyDataset, test_set: AnyDataset) -> list[tuple[str, str]]:
    return [("training set", train_set.summary()), ("validation set", test_set.summary())]


def _batch_rule(recipe: Recipe) -> str:
    """Describes how the learning rate of a classifier scales with the batch."""
    k = recipe.step_batch / recipe.reference_batch
    ratio = f"batch {recipe.step_batch} / {recipe.reference_batch} = {k:g}"
    ema = f"EMA decay {recipe.ema_decay:g} per step, whatever the batch" if recipe.ema else "no EMA"
    return f"{ratio}: lr x {k:g}; {ema}"


def _metadata(
    arch: Arch | str,
    classes: list[str],
    recipe: Recipe,
    preprocessing: Mapping[str, Any],
    several_labels: bool,
) -> dict[str, str]:
    """Returns the metadata that are exported with the weights, as strings."""
    return {
        **({"several_labels": "true"} if several_labels else {}),
        "arch": arch.to_yaml() if isinstance(arch, Arch) else arch,
        "classes": json.dumps(classes),
        "recipe": json.dumps(recipe.to_dict()),
        **{key: json.dumps(value) for key, value in preprocessing.items()},
    }
