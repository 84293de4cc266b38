"""The process that a training or an evaluation runs in: its rank, its device, its console."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
import torch.distributed as dist
from rich.console import Console

from fbnetv3.config import CfgNode, ConfigError


@dataclass(frozen=True)
class Process:
    """The rank of this process, and the number of processes that train together.

    Attributes:
        rank: Index of this process, 0 to ``world_size - 1``.
        world_size: Number of processes.
    """

    rank: int = 0
    world_size: int = 1


@dataclass(frozen=True)
class RuntimeContext:
    """The process, device and console of a training or an evaluation.

    Attributes:
        process: Rank and world size.
        device: Device of the network.
        console: Standard error of rank 0; prints nothing on the other ranks.
    """

    process: Process
    device: torch.device
    console: Console

    @property
    def is_main(self) -> bool:
        """Returns whether this process prints and writes files (rank 0)."""
        return self.process.rank == 0

    @property
    def shows_progress(self) -> bool:
        """Returns whether progress bars are shown: on rank 0, if standard error is a terminal."""
        return self.is_main and self.console.is_terminal


def runtime_context(cfg: CfgNode) -> RuntimeContext:
    """Returns the process, the device that MODEL.DEVICE asks for, and the console.

    A CUDA device becomes PyTorch's current one, which libraries use by default.

    Raises:
        ConfigError: MODEL.DEVICE is not a device of this machine, or is one GPU (``cuda:N``)
            although several processes train together.
    """
    process = this_process()
    device = device_from_config(cfg)
    if device.type == "cuda":
        device = _own_gpu(device, process)
        torch.cuda.set_device(device)
    console = Console(stderr=True, quiet=process.rank != 0)
    return RuntimeContext(process, device, console)


def _own_gpu(device: torch.device, process: Process) -> torch.device:
    """Returns the GPU of this process, with its index.

    A launcher has made the GPU of a rank the current device, see
    :func:`fbnetv3.engine.launch.gpu_of_rank`.
    """
    index: int | None = device.index  # None without an index; torch's stubs do not say so
    if index is None:
        return torch.device("cuda", torch.cuda.current_device())
    if process.world_size > 1:
        raise ConfigError(
            f"MODEL.DEVICE is {device}, but {process.world_size} processes train together, each on "
            "a GPU of its own; set it to cuda, and choose GPUs by CUDA_VISIBLE_DEVICES"
        )
    return device


def device_from_config(cfg: CfgNode) -> torch.device:
    """Returns the device that MODEL.DEVICE names; ``auto`` is CUDA if available, else the CPU.

    The index of ``cuda`` is left open, and no CUDA context is created, because launchers call this
    before they start a process for each GPU.

    Raises:
        ConfigError: MODEL.DEVICE is not a device of this machine.
    """
    name = cfg.MODEL.DEVICE
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ConfigError(f"MODEL.DEVICE {name!r} is unknown; allowed: auto, cpu, cuda, cuda:N")
    device = torch.device(name)
    num_gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        raise ConfigError(
            f"MODEL.DEVICE is {name}, but PyTorch sees {num_gpus} CUDA devices on this machine; "
            "set it to cpu or auto"
        )
    return device


def this_process() -> Process:
    """Returns rank and world size; (0, 1) if this process has joined no process group."""
    if not dist.is_initialized():
        return Process()
    return Process(dist.get_rank(), dist.get_world_size())
