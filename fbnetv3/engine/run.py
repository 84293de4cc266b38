"""What a training or an evaluation works with, made from a config."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from torch import nn

from fbnetv3.arch import Arch, count_cost
from fbnetv3.config import CfgNode, ConfigError, recipe_from_config
from fbnetv3.data import ImageDataset
from fbnetv3.engine import build
from fbnetv3.engine.checkpoint import CheckpointError
from fbnetv3.engine.classification import ClassificationTask
from fbnetv3.engine.rng import seed_all
from fbnetv3.engine.trainer import Task
from fbnetv3.recipe import Recipe
from fbnetv3.zoo import load_weights

_log = logging.getLogger("fbnetv3")


@dataclass
class Run:
    """The pieces of a training."""

    cfg: CfgNode
    folder: Path
    process: build.Process
    device: torch.device
    recipe: Recipe
    classes: list[str]
    model: nn.Module
    task: Task
    loader: build.TrainLoader
    console: Console
    plan: list[tuple[str, str]]  # what the printed plan begins with
    metadata: dict[str, str]  # travels with exported weights, and makes a model of them again

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes files."""
        return self.process.rank == 0


def this_process() -> build.Process:
    """Returns the rank and world size, (0, 1) where no process group was joined."""
    if not dist.is_initialized():
        return build.Process()
    return build.Process(dist.get_rank(), dist.get_world_size())


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
        from fbnetv3.detection.run import prepare_detector

        return prepare_detector(cfg, initial_weights=initial_weights)
    process, device, console = surroundings(cfg)
    train_set, test_set = build.datasets_from_config(cfg)
    recipe = recipe_from_config(cfg, max(1, len(train_set) // max(1, cfg.SOLVER.IMS_PER_BATCH)))
    arch = build.arch_from_config(cfg)
    preprocessing = build.preprocessing_from_config(cfg, arch)
    classes = build.class_names_from_config(cfg, train_set)
    seed_all(cfg.SEED)
    model = build.network_from_config(arch, len(classes), recipe, device)
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
        loader=build.train_loader_from_config(
            cfg, train_set, recipe, preprocessing["resolution"], process
        ),
        console=console,
        plan=[
            ("network", _network(arch, model, len(classes), preprocessing["resolution"])),
            ("follows the batch", _rule_text(recipe)),
        ],
        metadata=_metadata(arch, classes, recipe, preprocessing),
    )


def is_detector(cfg: CfgNode) -> bool:
    """Whether a config describes a detector."""
    return bool(cfg.MODEL.META_ARCHITECTURE != "ImageClassifier")


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


def prepare_evaluation(cfg: CfgNode) -> tuple[nn.Module, Task, list[str], Recipe]:
    """Opens the validation set and builds the network; the training set is not needed.

    Returns:
        The network with its initial weights, the task, the classes' names, the recipe.

    Raises:
        FBNetError: something in the config or the data does not fit.
    """
    if is_detector(cfg):
        from fbnetv3.detection.run import prepare_detector_evaluation

        return prepare_detector_evaluation(cfg)
    _, device, _ = surroundings(cfg)
    test_set = build.test_set_from_config(cfg)
    recipe = recipe_from_config(cfg, 1)
    arch = build.arch_from_config(cfg)
    classes = build.class_names_from_config(cfg, test_set)
    model = build.network_from_config(arch, len(classes), recipe, device)
    preprocessing = build.preprocessing_from_config(cfg, arch)
    return model, _task(cfg, recipe, test_set, len(classes), preprocessing), classes, recipe


def load_model_state(model: nn.Module, state: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Loads the weights of a checkpoint.

    Raises:
        ConfigError: it is of other classes.
        CheckpointError: it is of another network.
    """
    if list(state["classes"]) != list(classes):
        raise ConfigError(
            f"the checkpoint's classes {_some(state['classes'])} are not the data's "
            f"{_some(classes)}; give the data set that it was trained on, or start anew"
        )
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        lines = str(error).splitlines()
        reason = " ".join(lines[1:2] or lines).strip()[:200]
        raise CheckpointError(
            f"the checkpoint is of another network than the config's ({reason}); give the "
            "MODEL and INPUT keys of the run, as in its config.yaml"
        ) from error


def _some(names: Sequence[str]) -> str:
    return f"({len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def surroundings(cfg: CfgNode) -> tuple[build.Process, torch.device, Console]:
    """Returns this process, its device, and the console of its messages."""
    process = this_process()
    console = Console(stderr=True, quiet=process.rank != 0)
    return process, build.device_from_config(cfg), console


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
        eval_loader=build.eval_loader_from_config(cfg, test_set, preprocessing, process),
        device=device,
        mixup=recipe.mixup,
        label_smoothing=recipe.label_smoothing,
        seed=cfg.SEED,
        amp=recipe.amp,
        progress=process.rank == 0 and console.is_terminal,
    )
