"""Configs of networks that are scaled from the network of another config."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fbnetv3.arch import Arch, Cost, count_cost, scale, scale_to_macs
from fbnetv3.config import CfgNode, ConfigError, get_cfg
from fbnetv3.config.archs import arch_from_config, is_detector
from fbnetv3.config.changes import write_config
from fbnetv3.config.files import load_yaml
from fbnetv3.io import atomic_write
from fbnetv3.resources import find_config, model_zoo_path


@dataclass(frozen=True)
class ScaledConfig:
    """A config that was written for a scaled network.

    Attributes:
        path: Path of the config.
        arch: The scaled architecture.
        cost: Cost of the scaled network.
        base_cost: Cost of the network that it was scaled from.
    """

    path: Path
    arch: Arch
    cost: Cost
    base_cost: Cost


def scale_config(
    config: str | os.PathLike[str],
    *,
    macs: float | None = None,
    width: float | None = None,
    depth: float | None = None,
    resolution: int | None = None,
    output: str | os.PathLike[str] | None = None,
    opts: Sequence[Any] = (),
) -> ScaledConfig:
    """Writes the config of a scaled network, which can be trained without further changes.

    The recipe stays the same. INPUT.RESOLUTION becomes that of the scaled network, and INPUT.RESIZE
    keeps its ratio to INPUT.RESOLUTION. The architecture is written to ``NAME_arch.yaml`` beside
    the new config, and OUTPUT_DIR becomes the path of the new config without suffix.

    Args:
        config: Path of a classifier's config, or name of the config in ``model_zoo/``.
        macs: Target of compound scaling in multiply-adds, met within 3%; None: the next three
            arguments set the size.
        width: Factor > 0 of the channels; None: 1.
        depth: Factor > 0 of the repeats; None: 1.
        resolution: Side of the input in pixels; None: that of the config.
        output: Path of the new config; None: ``CONFIG_343M.yaml`` (for 343 million multiply-adds)
            next to ``config``, or in the current folder if ``config`` is in ``model_zoo/``.
        opts: Keys of the config to change first: KEY, VALUE, ...

    Raises:
        FBNetError: The config is of no FBNet classifier; ``macs`` is combined with one of the next
            three arguments, or all four are None; or a value is not allowed or out of reach.
    """
    path = find_config(config)
    cfg = _classifier_config(path, opts)
    base = _base_of(cfg, path)
    arch = _scaled(base, macs, width, depth, resolution)
    cost = count_cost(arch)
    target = _target(path, macs or cost.macs) if output is None else Path(output)
    _check_target(target, path)
    _write(cfg, path, base, arch, target)
    return ScaledConfig(target, arch, cost, count_cost(base))


def _classifier_config(path: Path, opts: Sequence[Any]) -> CfgNode:
    if "SEARCH" in load_yaml(path):
        raise ConfigError(
            f"{path} describes a search; give the config of a network, such as a winner's best.yaml"
        )
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    cfg.merge_from_list(list(opts))
    if is_detector(cfg):
        raise ConfigError(f"{path} describes a detector; give the config of a classifier")
    return cfg


def _base_of(cfg: CfgNode, path: Path) -> Arch:
    """Returns the network of a config, at its resolution and with its number of classes."""
    arch = arch_from_config(cfg)
    if isinstance(arch, str):
        raise ConfigError(
            f"{path}: {arch} is a network of another library, which cannot be scaled; give a "
            "config of an FBNet"
        )
    return arch.replace(num_classes=cfg.MODEL.NUM_CLASSES) if cfg.MODEL.NUM_CLASSES else arch


def _scaled(
    base: Arch,
    macs: float | None,
    width: float | None,
    depth: float | None,
    resolution: int | None,
) -> Arch:
    has_factor = any(value is not None for value in (width, depth, resolution))
    if (macs is not None) == has_factor:
        raise ConfigError("give either macs, or at least one of width, depth and resolution")
    if macs is not None:
        return scale_to_macs(base, macs)
    arch = scale(base, 1.0 if width is None else width, 1.0 if depth is None else depth)
    return arch if resolution is None else scale(arch, resolution=resolution)


def _check_target(target: Path, path: Path) -> None:
    if target.suffix not in (".yaml", ".yml") or target.resolve() == path.resolve():
        raise ConfigError(
            f"cannot write the scaled config to {target}; allowed: a .yaml file other than {path}"
        )


def _target(path: Path, macs: float) -> Path:
    name = f"{path.stem}_{macs / 1e6:.4g}M.yaml"
    is_packaged = model_zoo_path().resolve() in path.resolve().parents
    return Path(name) if is_packaged else path.with_name(name)


def _write(cfg: CfgNode, source: Path, base: Arch, arch: Arch, target: Path) -> None:
    """Writes the config and the architecture of a scaled network."""
    table = target.with_name(f"{target.stem}_arch.yaml")
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(table) as temporary:
        temporary.write_text(arch.to_yaml(), encoding="utf-8")
    if cfg.INPUT.RESIZE:
        cfg.INPUT.RESIZE = round(cfg.INPUT.RESIZE * arch.resolution / base.resolution)
    cfg.MODEL.ARCH, cfg.MODEL.ARCH_VARIANT = table.name, ""
    cfg.MODEL.WIDTH = cfg.MODEL.DEPTH = 1.0
    cfg.INPUT.RESOLUTION = arch.resolution
    cfg.OUTPUT_DIR = str(target.with_suffix(""))
    lines = [f"scaled from {source}, {_text(base)}, to {_text(arch)}"]
    write_config(target, cfg, get_cfg(), comments="".join(f"# {line}\n" for line in lines))


def _text(arch: Arch) -> str:
    cost = count_cost(arch)
    return f"{cost.macs / 1e6:.1f}M MACs at {arch.resolution} px"
