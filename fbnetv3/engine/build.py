"""From a config to the values that a training consists of: network, data, transforms."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fbnetv3.arch import Arch, get_arch
from fbnetv3.arch.library_names import RESOLUTION, is_library_name, with_low_resolution
from fbnetv3.arch.scaling import aligned, low_resolution, scale
from fbnetv3.config import CfgNode, ConfigError, get_value
from fbnetv3.data import (
    EvalLoader,
    EvalTransform,
    ImageDataset,
    TrainLoader,
    TrainTransform,
    build_dataset,
    check_same_classes,
)
from fbnetv3.errors import FBNetError, did_you_mean
from fbnetv3.modeling import build_model
from fbnetv3.recipe import Recipe
from fbnetv3.zoo.api import default_resize

_VARIANTS = {"": lambda arch: arch, "aligned": aligned, "low_resolution": low_resolution}


@dataclass(frozen=True)
class Process:
    """This process among those that train together."""

    rank: int = 0
    world_size: int = 1


@contextmanager
def _naming(keys: str) -> Iterator[None]:
    """Puts the config's keys before the complaint of what is made from their values."""
    try:
        yield
    except ConfigError:
        raise
    except FBNetError as error:
        raise ConfigError(f"{keys}: {error}") from error


def device_from_config(cfg: CfgNode) -> torch.device:
    """Returns MODEL.DEVICE; ``auto`` is CUDA where there is one, else the CPU."""
    name = cfg.MODEL.DEVICE
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ConfigError(f"MODEL.DEVICE {name!r} is no device; allowed: auto, cpu, cuda, cuda:N")
    device = torch.device(name)
    found = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= found:
        raise ConfigError(f"MODEL.DEVICE is {name}, and there are {found} here; set it to cpu")
    return device


def arch_from_config(cfg: CfgNode) -> Arch | str:
    """Returns the network's table, or the name of a library's network (``timm/NAME``).

    MODEL.ARCH names it or is the path of a yaml; MODEL.ARCH_VARIANT, WIDTH and DEPTH change it;
    INPUT.RESOLUTION, where given, becomes its resolution.
    """
    name, variant = cfg.MODEL.ARCH, cfg.MODEL.ARCH_VARIANT
    if variant not in _VARIANTS:
        raise ConfigError(
            f"MODEL.ARCH_VARIANT {variant!r} is unknown; allowed: {list(_VARIANTS)}"
            f"{did_you_mean(variant, _VARIANTS)}"
        )
    if is_library_name(name):
        if variant == "aligned" or cfg.MODEL.WIDTH != 1 or cfg.MODEL.DEPTH != 1:
            raise ConfigError(
                f"MODEL.WIDTH, DEPTH and ARCH_VARIANT aligned are for tables, not for {name}; "
                "unset them"
            )
        with _naming("MODEL.ARCH"):
            return with_low_resolution(name) if variant else str(name)
    with _naming("MODEL.ARCH"):
        arch = _VARIANTS[variant](_named_arch(name))
    if cfg.MODEL.WIDTH != 1 or cfg.MODEL.DEPTH != 1:
        with _naming("MODEL.WIDTH and MODEL.DEPTH"):
            arch = scale(arch, cfg.MODEL.WIDTH, cfg.MODEL.DEPTH)
    resolution = cfg.INPUT.RESOLUTION
    with _naming("INPUT.RESOLUTION"):
        return arch.replace(resolution=resolution) if resolution else arch


def _named_arch(name: str) -> Arch:
    if Path(name).suffix not in (".yaml", ".yml"):
        return get_arch(name)
    try:
        return Arch.from_yaml(Path(name).read_text(encoding="utf-8"), file=name)
    except OSError as error:
        raise ConfigError(f"MODEL.ARCH: cannot read {name}: {error.strerror}") from error


def resolution_from_config(cfg: CfgNode, arch: Arch | str) -> int:
    """Returns the side of the network's input in pixels."""
    if cfg.INPUT.RESOLUTION:
        return int(cfg.INPUT.RESOLUTION)
    return arch.resolution if isinstance(arch, Arch) else RESOLUTION


def preprocessing_from_config(cfg: CfgNode, arch: Arch | str) -> dict[str, Any]:
    """Returns the arguments of EvalTransform, which also travel with exported weights."""
    resolution = resolution_from_config(cfg, arch)
    return {
        "resolution": resolution,
        "resize": cfg.INPUT.RESIZE or default_resize(resolution),
        "interpolation": cfg.INPUT.INTERPOLATION,
        "mean": list(cfg.INPUT.MEAN),
        "std": list(cfg.INPUT.STD),
    }


def network_from_config(
    arch: Arch | str, num_classes: int, recipe: Recipe, device: torch.device
) -> nn.Module:
    """Builds the network of a recipe, channels last, on a device."""
    dropout, drop_path = recipe.dropout, recipe.drop_path
    with _naming("MODEL"):
        model = build_model(arch, num_classes, drop_rate=dropout, drop_path_rate=drop_path)
    return model.to(device).to(memory_format=torch.channels_last)


def _one_name(names: tuple[str, ...], key: str) -> str:
    if len(names) != 1:
        raise ConfigError(f"{key} takes one data set for a classifier, not {list(names)}")
    return str(names[0])


def datasets_from_config(cfg: CfgNode) -> tuple[ImageDataset, ImageDataset]:
    """Opens the training and the validation set and checks that their classes agree."""
    train, test = _dataset(cfg, "TRAIN"), test_set_from_config(cfg)
    check_same_classes(train, test)
    if cfg.DATA.TRAIN_LIMIT:
        with _naming("DATA.TRAIN_LIMIT"):
            train = train.subset(cfg.DATA.TRAIN_LIMIT, seed=cfg.SEED)
    return train, test


def test_set_from_config(cfg: CfgNode) -> ImageDataset:
    """Opens the validation set."""
    return _dataset(cfg, "TEST")


def _dataset(cfg: CfgNode, part: str) -> ImageDataset:
    name = _one_name(cfg.DATASETS[part], f"DATASETS.{part}")
    return build_dataset(name, skip_broken=cfg.DATA.SKIP_BROKEN)


def class_names_from_config(cfg: CfgNode, dataset: ImageDataset) -> list[str]:
    """Returns a name for each output of the network: the data set's, up to MODEL.NUM_CLASSES."""
    wanted, found = cfg.MODEL.NUM_CLASSES, len(dataset.classes)
    if wanted and wanted < found:
        raise ConfigError(
            f"MODEL.NUM_CLASSES is {wanted}, {dataset.name} has {found} classes; "
            "set MODEL.NUM_CLASSES 0 to follow the data"
        )
    return [*dataset.classes, *(f"class {i}" for i in range(found, wanted))]


def train_loader_from_config(
    cfg: CfgNode, dataset: ImageDataset, recipe: Recipe, resolution: int, process: Process
) -> TrainLoader:
    """Makes the training batches of a recipe."""
    with _naming("INPUT"):
        transform = TrainTransform(
            resolution,
            mean=cfg.INPUT.MEAN,
            std=cfg.INPUT.STD,
            crop=cfg.INPUT.TRAIN_CROP,
            flip=cfg.INPUT.TRAIN_FLIP,
            auto_augment=recipe.auto_augment,
            interpolation=cfg.INPUT.INTERPOLATION,
        )
    with _naming("SOLVER.IMS_PER_BATCH"):
        return TrainLoader(
            dataset,
            transform,
            total_batch=recipe.batch_size,
            seed=cfg.SEED,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            rank=process.rank,
            world_size=process.world_size,
        )


_LARGEST_SEED = 2**64 - 1  # that torch takes
_RANGES: dict[str, tuple[float, float]] = {
    "TEST.EVAL_EPOCHS": (0, math.inf),
    "TEST.EVAL_PERIOD": (0, math.inf),
    "SOLVER.CHECKPOINT_EPOCHS": (0, math.inf),
    "SOLVER.CHECKPOINT_PERIOD": (0, math.inf),
    "SOLVER.KEEP_CHECKPOINTS": (1, math.inf),
    "SOLVER.LOG_PERIOD": (0, math.inf),
    "SOLVER.MAX_ITER": (0, math.inf),
    "DATALOADER.NUM_WORKERS": (0, math.inf),
    "SEED": (0, _LARGEST_SEED),
}


def check_numbers(cfg: CfgNode) -> None:
    """Refuses numbers of the loop (periods, workers, the seed) that can't be meant.

    Raises:
        ConfigError: one is out of its range.
    """
    for key, (low, high) in _RANGES.items():
        value = get_value(cfg, key)
        if not (low <= value <= high and math.isfinite(value)):
            allowed = f">= {low}" if high == math.inf else f"{low} to {high}"
            raise ConfigError(f"{key}={value!r} is out of range; allowed: {allowed}")


def eval_loader_from_config(
    cfg: CfgNode, dataset: ImageDataset, preprocessing: dict[str, Any], process: Process
) -> EvalLoader:
    """Makes the validation batches."""
    if cfg.TEST.BATCH_SIZE < 1:
        raise ConfigError(f"TEST.BATCH_SIZE={cfg.TEST.BATCH_SIZE} is out of range; allowed: >= 1")
    with _naming("INPUT"):
        transform = EvalTransform(**preprocessing)
    return EvalLoader(
        dataset,
        transform,
        batch_size=max(1, cfg.TEST.BATCH_SIZE // process.world_size),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        rank=process.rank,
        world_size=process.world_size,
    )
