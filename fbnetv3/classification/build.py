"""Network, data sets, transforms and loaders of a classifier, built from a config."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fbnetv3.arch import Arch
from fbnetv3.classification.own import AnyDataset, OwnParts, placed
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.config.archs import key_in_errors, resolution_from_config
from fbnetv3.data import (
    EvalLoader,
    EvalTransform,
    ImageDataset,
    ImageStream,
    TrainLoader,
    TrainTransform,
    build_dataset,
    check_same_classes,
    refuse_broken,
)
from fbnetv3.data.order import EpochOrder
from fbnetv3.data.streams import StreamEvalLoader, StreamTrainLoader
from fbnetv3.data.transforms import default_resize
from fbnetv3.engine.loading import loader_options_from_config
from fbnetv3.engine.process import Process
from fbnetv3.modeling import build_model
from fbnetv3.recipe import Recipe

CHECK_SECONDS = 10.0
"""Limit in seconds on the decoding of a data set's images before a training or a search."""


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
            keeps the network's values.

    Raises:
        ConfigError: The network cannot be built; the message begins with MODEL.
    """
    dropout, drop_path = recipe.dropout, recipe.drop_path
    with key_in_errors("MODEL"):
        model = build_model(arch, num_classes, drop_rate=dropout, drop_path_rate=drop_path)
    return placed(model, device, bn_momentum)


def _one_name(names: tuple[str, ...], key: str) -> str:
    if len(names) != 1:
        raise ConfigError(f"{key} must name one data set for a classifier, not {list(names)}")
    return str(names[0])


def datasets_from_config(
    cfg: CfgNode, own: OwnParts | None = None
) -> tuple[AnyDataset, AnyDataset]:
    """Opens DATASETS.TRAIN, reduced to DATA.TRAIN_LIMIT images unless that is 0, and DATASETS.TEST.

    Args:
        cfg: Config of a classifier.
        own: Data sets in place of those that the config names.

    Raises:
        ConfigError: DATASETS.TRAIN or TEST does not hold exactly one name, or TRAIN_LIMIT is too
            large, or is given for a stream.
        DataError: A data set cannot be opened, or the two have different classes.
    """
    train, test = (own or OwnParts()).datasets(cfg)
    train = _dataset(cfg, "TRAIN") if train is None else train
    test = evaluation_set_from_config(cfg) if test is None else test
    check_same_classes(train, test)
    if cfg.DATA.TRAIN_LIMIT:
        if isinstance(train, ImageStream):
            raise ConfigError(
                f"DATA.TRAIN_LIMIT {cfg.DATA.TRAIN_LIMIT} needs random access, which a stream does "
                "not support; set it to 0, and give ImageStream that number as its length"
            )
        with key_in_errors("DATA.TRAIN_LIMIT"):
            train = train.subset(cfg.DATA.TRAIN_LIMIT, seed=cfg.SEED)
    return train, test


def evaluation_set_from_config(cfg: CfgNode) -> ImageDataset:
    """Opens DATASETS.TEST.

    Raises:
        ConfigError: DATASETS.TEST does not hold exactly one name.
        DataError: The data set cannot be opened.
    """
    return _dataset(cfg, "TEST")


def check_images(cfg: CfgNode, dataset: AnyDataset) -> list[tuple[str, str]]:
    """Decodes the images of a data set, for at most :data:`CHECK_SECONDS`.

    A training calls it for DATASETS.TEST, since a broken image there would end the training at its
    first evaluation. A search calls it for DATASETS.TRAIN and TEST, before its first candidate.
    Nothing is decoded if DATA.CHECK_IMAGES is False or DATA.SKIP_BROKEN is True, nor from streams
    and data sets without files.

    Returns:
        Rows (name, value) of the training plan: the number of decoded images, if not all were.

    Raises:
        DataError: An image cannot be decoded.
    """
    is_off = not cfg.DATA.CHECK_IMAGES or cfg.DATA.SKIP_BROKEN
    if is_off or isinstance(dataset, ImageStream) or not dataset.has_files:
        return []
    decoded, size = refuse_broken(dataset, CHECK_SECONDS), len(dataset)
    if decoded == size:
        return []
    text = f"{decoded:,} of {size:,} decoded, in {CHECK_SECONDS:g} s; --check-data decodes all"
    return [("check of validation images", text)]


def _dataset(cfg: CfgNode, part: str) -> ImageDataset:
    name = _one_name(cfg.DATASETS[part], f"DATASETS.{part}")
    return build_dataset(name, skip_broken=cfg.DATA.SKIP_BROKEN)


def class_names_from_config(cfg: CfgNode, dataset: AnyDataset) -> list[str]:
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
    cfg: CfgNode, dataset: AnyDataset, recipe: Recipe, resolution: int, process: Process
) -> TrainLoader:
    """Returns the loader of this process's share of the training batches, in uint8.

    Raises:
        ConfigError: A key of INPUT, SOLVER.IMS_PER_BATCH or DATALOADER.BALANCED_SAMPLING has a
            value that is not allowed for the data set.
    """
    transform = _train_transform(cfg, recipe, resolution)
    rank, world_size = process.rank, process.world_size
    with key_in_errors("SOLVER.IMS_PER_BATCH"):
        if isinstance(dataset, ImageStream):
            _refuse_order(recipe)
            batch = recipe.step_batch
            return StreamTrainLoader(
                dataset,
                transform,
                total_batch=batch,
                seed=cfg.SEED,
                rank=rank,
                world_size=world_size,
            )
        return TrainLoader(
            dataset,
            transform,
            total_batch=recipe.step_batch,
            seed=cfg.SEED,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            rank=rank,
            world_size=world_size,
            uint8=True,
            options=loader_options_from_config(cfg),
            order=_order(cfg, dataset, recipe),
        )


def _refuse_order(recipe: Recipe) -> None:
    if recipe.balanced_sampling or recipe.repeated_augment > 1:
        raise ConfigError(
            "DATALOADER.BALANCED_SAMPLING and INPUT.REPEATED_AUGMENT choose images by number, "
            "which a stream does not support; allowed for streams: BALANCED_SAMPLING 0 and "
            "REPEATED_AUGMENT 1"
        )


def _order(cfg: CfgNode, dataset: ImageDataset, recipe: Recipe) -> EpochOrder:
    targets = dataset.targets if recipe.balanced_sampling else ()
    with key_in_errors("DATALOADER.BALANCED_SAMPLING"):
        return EpochOrder(
            len(dataset),
            cfg.SEED,
            targets=targets,
            balance=recipe.balanced_sampling,
            repeats=recipe.repeated_augment,
        )


def _train_transform(cfg: CfgNode, recipe: Recipe, resolution: int) -> TrainTransform:
    with key_in_errors("INPUT"):
        return TrainTransform(
            resolution,
            mean=cfg.INPUT.MEAN,
            std=cfg.INPUT.STD,
            crop=cfg.INPUT.TRAIN_CROP,
            flip=cfg.INPUT.TRAIN_FLIP,
            auto_augment=recipe.auto_augment,
            interpolation=cfg.INPUT.INTERPOLATION,
            randaugment=(recipe.randaugment_ops, recipe.randaugment_magnitude),
            registered=cfg.INPUT.TRANSFORMS,
        )


def eval_loader_from_config(
    cfg: CfgNode, dataset: AnyDataset, preprocessing: dict[str, Any], process: Process
) -> EvalLoader:
    """Returns the loader of this process's share of the evaluation batches, in uint8.

    Raises:
        ConfigError: A key of INPUT has a value that is not allowed.
        DataError: The data set has no images, or TEST.BATCH_SIZE is below 1.
    """
    _check_resize(preprocessing["resolution"], preprocessing["resize"])
    with key_in_errors("INPUT"):
        transform = EvalTransform(**preprocessing)
    rank, world_size = process.rank, process.world_size
    if isinstance(dataset, ImageStream):
        return StreamEvalLoader(
            dataset,
            transform,
            batch_size=cfg.TEST.BATCH_SIZE,
            rank=rank,
            world_size=world_size,
        )
    return EvalLoader(
        dataset,
        transform,
        batch_size=cfg.TEST.BATCH_SIZE,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        rank=rank,
        world_size=world_size,
        uint8=True,
        options=loader_options_from_config(cfg),
    )


def _check_resize(resolution: int, resize: int) -> None:
    if resize < resolution:
        raise ConfigError(
            f"INPUT.RESIZE={resize} is below the resolution, {resolution} pixels (INPUT.RESOLUTION "
            f"or the network's own); give INPUT.RESIZE {resolution} or more, or 0 for the "
            f"default, {default_resize(resolution)}"
        )
