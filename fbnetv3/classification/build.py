"""Network, data sets, transforms and loaders of a classifier, built from a config."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fbnetv3.arch import Arch
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.config.archs import naming_keys, resolution_from_config
from fbnetv3.data import (
    EvalLoader,
    EvalTransform,
    ImageDataset,
    TrainLoader,
    TrainTransform,
    build_dataset,
    check_same_classes,
)
from fbnetv3.data.order import EpochOrder
from fbnetv3.data.transforms import default_resize
from fbnetv3.engine.loading import loader_options_from_config
from fbnetv3.engine.process import Process
from fbnetv3.modeling import build_model
from fbnetv3.recipe import Recipe


def preprocessing_from_config(cfg: CfgNode, arch: Arch | str) -> dict[str, Any]:
    """Returns the arguments of EvalTransform, which are also exported with the weights."""
    resolution = resolution_from_config(cfg, arch)
    return {
        "resolution": resolution,
        "resize": cfg.INPUT.RESIZE or default_resize(resolution),
        "interpolation": cfg.INPUT.INTERPOLATION,
        "mean": list(cfg.INPUT.MEAN),
        "std": list(cfg.INPUT.STD),
    }


def network_from_config(
    arch: Arch | str,
    num_classes: int,
    recipe: Recipe,
    device: torch.device,
    bn_momentum: float = 0.0,
) -> nn.Module:
    """Builds the network on a device, in the channels-last memory format.

    Args:
        arch: Architecture, or the name of a library's network.
        num_classes: Number of outputs.
        recipe: Recipe with the dropout and drop-path rates.
        device: Device of the network.
        bn_momentum: Weight of a new batch in the running statistics of batch norms, in (0, 1]; 0
            keeps the network's own value.

    Raises:
        ConfigError: The network cannot be built; the message begins with MODEL.
    """
    dropout, drop_path = recipe.dropout, recipe.drop_path
    with naming_keys("MODEL"):
        model = build_model(arch, num_classes, drop_rate=dropout, drop_path_rate=drop_path)
    for module in model.modules() if bn_momentum else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = bn_momentum
    return model.to(device).to(memory_format=torch.channels_last)


def _one_name(names: tuple[str, ...], key: str) -> str:
    if len(names) != 1:
        raise ConfigError(f"{key} must name one data set for a classifier, not {list(names)}")
    return str(names[0])


def datasets_from_config(cfg: CfgNode) -> tuple[ImageDataset, ImageDataset]:
    """Opens DATASETS.TRAIN, reduced to DATA.TRAIN_LIMIT images unless that is 0, and TEST.

    Raises:
        ConfigError: DATASETS.TRAIN or TEST does not hold exactly one name, or TRAIN_LIMIT is too
            large.
        DataError: A data set cannot be opened, or the two have different classes.
    """
    train, test = _dataset(cfg, "TRAIN"), evaluation_set_from_config(cfg)
    check_same_classes(train, test)
    if cfg.DATA.TRAIN_LIMIT:
        with naming_keys("DATA.TRAIN_LIMIT"):
            train = train.subset(cfg.DATA.TRAIN_LIMIT, seed=cfg.SEED)
    return train, test


def evaluation_set_from_config(cfg: CfgNode) -> ImageDataset:
    """Opens DATASETS.TEST.

    Raises:
        ConfigError: DATASETS.TEST does not hold exactly one name.
        DataError: The data set cannot be opened.
    """
    return _dataset(cfg, "TEST")


def _dataset(cfg: CfgNode, part: str) -> ImageDataset:
    name = _one_name(cfg.DATASETS[part], f"DATASETS.{part}")
    return build_dataset(name, skip_broken=cfg.DATA.SKIP_BROKEN)


def class_names_from_config(cfg: CfgNode, dataset: ImageDataset) -> list[str]:
    """Returns the names of the classes of a data set, one for each output of the network.

    Raises:
        ConfigError: MODEL.NUM_CLASSES is neither 0 nor the number of classes of the data set.
    """
    num_outputs, num_classes = cfg.MODEL.NUM_CLASSES, len(dataset.classes)
    if num_outputs not in (0, num_classes):
        raise ConfigError(
            f"MODEL.NUM_CLASSES is {num_outputs}, but {dataset.name} has {num_classes} classes; "
            "set MODEL.NUM_CLASSES to 0 to use that number"
        )
    return list(dataset.classes)


def train_loader_from_config(
    cfg: CfgNode, dataset: ImageDataset, recipe: Recipe, resolution: int, process: Process
) -> TrainLoader:
    """Returns the loader of this process's share of the training batches, in uint8.

    Raises:
        ConfigError: A key of INPUT or SOLVER.IMS_PER_BATCH has a value that is not allowed.
    """
    with naming_keys("INPUT"):
        transform = TrainTransform(
            resolution,
            mean=cfg.INPUT.MEAN,
            std=cfg.INPUT.STD,
            crop=cfg.INPUT.TRAIN_CROP,
            flip=cfg.INPUT.TRAIN_FLIP,
            auto_augment=recipe.auto_augment,
            interpolation=cfg.INPUT.INTERPOLATION,
            randaugment=(recipe.randaugment_ops, recipe.randaugment_magnitude),
        )
    with naming_keys("DATALOADER.BALANCED_SAMPLING"):
        order = EpochOrder(
            len(dataset),
            cfg.SEED,
            targets=dataset.targets,
            balance=recipe.balanced_sampling,
            repeats=recipe.repeated_augment,
        )
    with naming_keys("SOLVER.IMS_PER_BATCH"):
        return TrainLoader(
            dataset,
            transform,
            total_batch=recipe.step_batch,
            seed=cfg.SEED,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            rank=process.rank,
            world_size=process.world_size,
            uint8=True,
            options=loader_options_from_config(cfg),
            order=order,
        )


def eval_loader_from_config(
    cfg: CfgNode, dataset: ImageDataset, preprocessing: dict[str, Any], process: Process
) -> EvalLoader:
    """Returns the loader of this process's share of the evaluation batches, in uint8.

    Raises:
        ConfigError: A key of INPUT has a value that is not allowed.
        DataError: The data set has no images, or TEST.BATCH_SIZE is below 1.
    """
    _check_resize(preprocessing["resolution"], preprocessing["resize"])
    with naming_keys("INPUT"):
        transform = EvalTransform(**preprocessing)
    return EvalLoader(
        dataset,
        transform,
        batch_size=cfg.TEST.BATCH_SIZE,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        rank=process.rank,
        world_size=process.world_size,
        uint8=True,
        options=loader_options_from_config(cfg),
    )


def _check_resize(resolution: int, resize: int) -> None:
    if resize < resolution:
        raise ConfigError(
            f"INPUT.RESIZE={resize} is below the resolution, {resolution} pixels (INPUT.RESOLUTION "
            f"or the network's own); give INPUT.RESIZE {resolution} or more, or 0 for the usual "
            f"ratio ({default_resize(resolution)})"
        )
