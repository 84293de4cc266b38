"""The network that a config describes, and the resolution of its input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fbnetv3.arch import Arch, get_arch
from fbnetv3.arch.library_names import DEFAULT_RESOLUTION, is_library_name, with_low_resolution
from fbnetv3.arch.scaling import (
    LOW_RESOLUTION_SCALED,
    VARIANTS,
    low_resolution,
    low_resolution_side,
    scale,
)
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.errors import FBNetError, did_you_mean

_LOW_RESOLUTION = 32  # side in pixels of the variant low_resolution, unless INPUT.RESOLUTION is set


@contextmanager
def key_in_errors(keys: str) -> Iterator[None]:
    """Turns errors of the ``with`` block into ConfigErrors that begin with the config's keys.

    Args:
        keys: Key or keys whose values the block uses.

    Raises:
        ConfigError: The block raised an FBNetError; a ConfigError is raised unchanged.
    """
    try:
        yield
    except ConfigError:
        raise
    except FBNetError as error:
        raise ConfigError(f"{keys}: {error}") from error


def is_detector(cfg: CfgNode) -> bool:
    """Returns whether MODEL.META_ARCHITECTURE is a detector, not ``ImageClassifier``."""
    return bool(cfg.MODEL.META_ARCHITECTURE != "ImageClassifier")


def arch_from_config(cfg: CfgNode) -> Arch | str:
    """Returns the architecture, or the name of a registered or library network (``timm/resnet18``).

    MODEL.ARCH is a name or the path of an arch yaml. MODEL.ARCH_VARIANT, WIDTH and DEPTH modify the
    architecture, and INPUT.RESOLUTION, if set, becomes its resolution.

    Raises:
        ConfigError: The architecture is unknown, cannot be modified in this way, or does not take
            RGB images.
    """
    arch, resolution = _arch_at_own_resolution(cfg), cfg.INPUT.RESOLUTION
    if isinstance(arch, str):
        return arch
    if arch.in_channels != 3:
        raise ConfigError(
            f"MODEL.ARCH: {arch.name} takes images of {arch.in_channels} channels; allowed: 3, "
            "since images are read as RGB"
        )
    if not resolution:
        return arch
    with key_in_errors("INPUT.RESOLUTION"):
        return arch.replace(resolution=resolution)


def own_resolution(cfg: CfgNode) -> int | None:
    """Returns the default resolution of the network, whatever INPUT.RESOLUTION is.

    Returns:
        The side of the input in pixels; None for networks of other libraries and registered ones.

    Raises:
        ConfigError: The architecture is unknown, or cannot be modified as the config says.
    """
    arch = _arch_at_own_resolution(cfg)
    return arch.resolution if isinstance(arch, Arch) else None


def _arch_at_own_resolution(cfg: CfgNode) -> Arch | str:
    name, variant = cfg.MODEL.ARCH, cfg.MODEL.ARCH_VARIANT
    variants = ("", *VARIANTS, LOW_RESOLUTION_SCALED)
    if variant not in variants:
        raise ConfigError(
            f"MODEL.ARCH_VARIANT {variant!r} is unknown; allowed: {list(variants)}"
            f"{did_you_mean(variant, variants)}"
        )
    if is_library_name(name):
        _refuse_modifications(cfg)
        with key_in_errors("MODEL.ARCH"):
            return with_low_resolution(name) if variant else str(name)
    with key_in_errors("MODEL.ARCH"):
        arch = get_arch(name)
        if variant == LOW_RESOLUTION_SCALED:
            arch = low_resolution(arch, low_resolution_side(arch))
        elif variant:
            arch = VARIANTS[variant](arch, _LOW_RESOLUTION)
    if cfg.MODEL.WIDTH == 1 and cfg.MODEL.DEPTH == 1:
        return arch
    with key_in_errors("MODEL.WIDTH and MODEL.DEPTH"):
        return scale(arch, cfg.MODEL.WIDTH, cfg.MODEL.DEPTH)


def resolution_from_config(cfg: CfgNode, arch: Arch | str) -> int:
    """Returns the side of the network's input in pixels."""
    if cfg.INPUT.RESOLUTION:
        return int(cfg.INPUT.RESOLUTION)
    return arch.resolution if isinstance(arch, Arch) else DEFAULT_RESOLUTION


def _refuse_modifications(cfg: CfgNode) -> None:
    """Refuses modifications of a network that is not an FBNet.

    Only the MODEL.ARCH_VARIANT ``low_resolution`` is allowed.

    Raises:
        ConfigError: Another modification is given; the message has all such keys and their values.
    """
    model = cfg.MODEL
    keys = {"WIDTH": model.WIDTH != 1, "DEPTH": model.DEPTH != 1}
    keys["ARCH_VARIANT"] = model.ARCH_VARIANT in ("aligned", LOW_RESOLUTION_SCALED)
    given = [f"MODEL.{key} {model[key]}" for key, is_given in keys.items() if is_given]
    unset = {"WIDTH": "1.0", "DEPTH": "1.0", "ARCH_VARIANT": '""'}
    defaults = " ".join(f"MODEL.{key} {unset[key]}" for key, is_given in keys.items() if is_given)
    if given:
        raise ConfigError(
            f"{' and '.join(given)} cannot modify {model.ARCH}, which is not an FBNet; leave out "
            f"these keys ({defaults} if a file sets them), or choose an FBNet in MODEL.ARCH"
        )
