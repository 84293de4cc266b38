"""The network that a config names, and the resolution of its input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fbnetv3.arch import Arch, get_arch
from fbnetv3.arch.library_names import DEFAULT_RESOLUTION, is_library_name, with_low_resolution
from fbnetv3.arch.scaling import VARIANTS, scale
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.errors import FBNetError, did_you_mean

_LOW_RESOLUTION = 32  # pixels, of the variant low_resolution unless INPUT.RESOLUTION is set


@contextmanager
def naming_keys(keys: str) -> Iterator[None]:
    """Turns errors of the ``with`` block into ConfigErrors that begin with the config's keys.

    Args:
        keys: Key or keys whose values the block uses.

    Raises:
        ConfigError: The block raised an FBNetError.
    """
    try:
        yield
    except ConfigError:
        raise
    except FBNetError as error:
        raise ConfigError(f"{keys}: {error}") from error


def is_detector(cfg: CfgNode) -> bool:
    """Returns whether MODEL.META_ARCHITECTURE names a detector and not ``ImageClassifier``."""
    return bool(cfg.MODEL.META_ARCHITECTURE != "ImageClassifier")


def arch_from_config(cfg: CfgNode) -> Arch | str:
    """Returns the architecture, or the name of a network of a library, such as ``timm/resnet18``.

    MODEL.ARCH names it or is the path of an arch yaml. MODEL.ARCH_VARIANT, WIDTH and DEPTH modify
    it, and INPUT.RESOLUTION, if set, becomes its resolution.

    Raises:
        ConfigError: The architecture is unknown, or cannot be modified in this way.
    """
    name, variant = cfg.MODEL.ARCH, cfg.MODEL.ARCH_VARIANT
    if variant not in ("", *VARIANTS):
        raise ConfigError(
            f"MODEL.ARCH_VARIANT {variant!r} is unknown; allowed: {['', *VARIANTS]}"
            f"{did_you_mean(variant, VARIANTS)}"
        )
    if is_library_name(name):
        if variant == "aligned" or cfg.MODEL.WIDTH != 1 or cfg.MODEL.DEPTH != 1:
            raise ConfigError(
                f"MODEL.WIDTH, MODEL.DEPTH and MODEL.ARCH_VARIANT aligned cannot modify {name}, a "
                "network of another library; leave them at their defaults"
            )
        with naming_keys("MODEL.ARCH"):
            return with_low_resolution(name) if variant else str(name)
    with naming_keys("MODEL.ARCH"):
        arch = get_arch(name)
        if variant:
            arch = VARIANTS[variant](arch, _LOW_RESOLUTION)
    if cfg.MODEL.WIDTH != 1 or cfg.MODEL.DEPTH != 1:
        with naming_keys("MODEL.WIDTH and MODEL.DEPTH"):
            arch = scale(arch, cfg.MODEL.WIDTH, cfg.MODEL.DEPTH)
    resolution = cfg.INPUT.RESOLUTION
    with naming_keys("INPUT.RESOLUTION"):
        return arch.replace(resolution=resolution) if resolution else arch


def resolution_from_config(cfg: CfgNode, arch: Arch | str) -> int:
    """Returns the side of the network's input in pixels."""
    if cfg.INPUT.RESOLUTION:
        return int(cfg.INPUT.RESOLUTION)
    return arch.resolution if isinstance(arch, Arch) else DEFAULT_RESOLUTION
