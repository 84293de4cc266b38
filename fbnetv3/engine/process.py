"""This process: its rank among those that train together, its device, its console."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
import torch.distributed as dist
from rich.console import Console

from fbnetv3.config import CfgNode, ConfigError


@dataclass(frozen=True)
class Process:
    """This process among those that train together."""

    rank: int = 0
    world_size: int = 1


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


def this_process() -> Process:
    """Returns the rank and world size, (0, 1) where no process group was joined."""
    if not dist.is_initialized():
        return Process()
    return Process(dist.get_rank(), dist.get_world_size())


def surroundings(cfg: CfgNode) -> tuple[Process, torch.device, Console]:
    """Returns this process, its device, and the console of its messages."""
    process = this_process()
    console = Console(stderr=True, quiet=process.rank != 0)
    return process, device_from_config(cfg), console
