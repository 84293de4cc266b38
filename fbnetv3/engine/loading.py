"""The options of loaders, read from a config."""

from __future__ import annotations

from fbnetv3.config import CfgNode
from fbnetv3.data import LoaderOptions
from fbnetv3.engine.process import device_from_config


def loader_options_from_config(cfg: CfgNode) -> LoaderOptions:
    """Returns how loaders prepare their batches for MODEL.DEVICE; see the keys DATALOADER.*.

    Batches are put into pinned memory only for a CUDA device, since only copies to such a device
    are faster from pinned memory.

    Raises:
        ConfigError: MODEL.DEVICE is not a device of this machine.
    """
    return LoaderOptions(
        prefetch=cfg.DATALOADER.PREFETCH,
        persistent=cfg.DATALOADER.PERSISTENT_WORKERS,
        pin_memory=cfg.DATALOADER.PIN_MEMORY and device_from_config(cfg).type == "cuda",
    )
