"""The architecture that a config names, and the resolution of its input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fbnetv3.arch import Arch, get_arch
from fbnetv3.arch.library_names import RESOLUTION, is_library_name, with_low_resolution
from fbnetv3.arch.scaling import VARIANTS, scale
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.errors import FBNetError, did_you_mean

_SMALL_SIDE = 32  # pixels, of the low-resolution form unless INPUT.RESOLUTION says another


@contextmanager
def naming_keys(keys: str) -> Iterator[None]:
    """Puts the config's keys before the complaint of what is made from their values."""
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
    """Returns the network's table, or the name of a library's network (``timm/NAME``).

    MODEL.ARCH names it or is the path of a yaml; MODEL.ARCH_VARIANT, WIDTH and DEPTH change it;
    INPUT.RESOLUTION, where given, becomes its resolution.
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
                f"MODEL.WIDTH, DEPTH and ARCH_VARIANT aligned are for tables, not for {name}; "
                "unset them"
            )
        with naming_keys("MODEL.ARCH"):
            return with_low_resolution(name) if variant else str(name)
    with naming_keys("MODEL.ARCH"):
        arch = get_arch(name)
        if variant:
            arch = VARIANTS[variant](arch, _SMALL_SIDE)
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
    return arch.resolution if isinstance(arch, Arch) else RESOLUTION
