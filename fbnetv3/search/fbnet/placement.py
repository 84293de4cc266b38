"""Where the candidates of a search train on this machine: its workers, GPUs and cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from fbnetv3.config import CfgNode
from fbnetv3.search.executors.worker import VISIBLE_DEVICES

AUTO = "auto"
"""Config value for a number of workers or threads that is chosen by this machine's hardware."""
_MAX_LOADERS = 16
"""Largest number of data-loader workers of a candidate that ``auto`` stands for."""


@dataclass(frozen=True)
class Placement:
    """Workers of a search on this machine, and what each of them uses.

    Attributes:
        workers: Number of worker processes; 0: candidates train in the main process, or
            SEARCH.EXECUTOR is not ``local``.
        threads: CPU threads of each worker.
        loaders: Data-loader workers of each candidate; None: DATALOADER.NUM_WORKERS.
        devices: Values of CUDA_VISIBLE_DEVICES that the workers get in turn; empty: they see the
            GPUs of this process, if there are any.
        cores: Number of CPU cores that this process may use.
    """

    workers: int
    threads: int
    loaders: int | None
    devices: tuple[str, ...]
    cores: int

    def applied_to(self, cfg: CfgNode) -> CfgNode:
        """Returns a copy of a search's config with these numbers in place of ``auto``."""
        cfg = cfg.clone()
        cfg.defrost()
        node = cfg.SEARCH
        node.WORKERS, node.THREADS = self.workers, self.threads
        node.LOADER_WORKERS = -1 if self.loaders is None else self.loaders
        return cfg


def placement_from_config(cfg: CfgNode) -> Placement:
    """Returns the workers that a config asks for, with numbers in place of ``auto``.

    Args:
        cfg: Config of a search, whose numbers are in range.
    """
    node, cores = cfg.SEARCH, usable_cores()
    if node.EXECUTOR != "local":
        # The cores of a cluster's nodes are unknown: divide the CPUs that a candidate reserves.
        has_gpu = node.RAY.GPUS > 0 or cfg.MODEL.DEVICE.startswith("cuda")
        threads, loaders = _divided(cfg, int(node.RAY.CPUS) or None, has_gpu=has_gpu)
        return Placement(0, threads, loaders, (), cores)
    gpus = visible_gpus(cfg.MODEL.DEVICE)
    num_gpus = 1 if cfg.MODEL.DEVICE.startswith("cuda:") else len(gpus)
    workers = node.WORKERS
    if workers == AUTO:
        least = 1 if node.THREADS == AUTO else node.THREADS
        workers = num_gpus * node.WORKERS_PER_GPU or max(1, cores // least)
    threads, loaders = _divided(cfg, max(1, cores // max(1, workers)), has_gpu=num_gpus > 0)
    return Placement(workers, threads, loaders, gpus if workers else (), cores)


def usable_cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        return os.cpu_count() or 1


def _divided(cfg: CfgNode, share: int | None, *, has_gpu: bool = False) -> tuple[int, int | None]:
    """Divides the cores of a worker among its threads and data-loader workers.

    Args:
        cfg: Config of a search.
        share: Number of cores of a worker; None: not known.
        has_gpu: Whether the worker has a GPU, so that its cores are free to load images.

    Returns:
        The threads, and the data-loader workers; None: DATALOADER.NUM_WORKERS.
    """
    threads, loaders = cfg.SEARCH.THREADS, cfg.SEARCH.LOADER_WORKERS
    if loaders == -1 or (loaders == AUTO and share is None):
        loaders = None
    if threads == AUTO:
        taken = cfg.DATALOADER.NUM_WORKERS if loaders is None else loaders
        has_rest = taken != AUTO and share is not None
        threads = max(1, share - taken) if has_rest else 1
        if taken == AUTO and not has_gpu:
            threads = share
    if loaders == AUTO:
        loaders = min(_MAX_LOADERS, max(0, share - threads))
    return threads, loaders


def visible_gpus(device: str) -> tuple[str, ...]:
    """Returns the values of CUDA_VISIBLE_DEVICES that select one GPU each.

    They come from this process's own CUDA_VISIBLE_DEVICES if it is set, and may be UUIDs or names
    of MIG devices. No CUDA context is created.

    Args:
        device: MODEL.DEVICE. () is returned unless it is ``auto`` or ``cuda``: on ``cuda:1``, for
            example, all candidates train on that GPU.
    """
    if device not in (AUTO, "cuda"):
        return ()
    import torch

    count = torch.cuda.device_count()
    given = os.environ.get(VISIBLE_DEVICES)
    names = map(str, range(count)) if given is None else (part.strip() for part in given.split(","))
    return tuple(names)[:count]  # CUDA ignores entries after an invalid one


def placement_lines(cfg: CfgNode, placement: Placement) -> list[str]:
    """Returns lines about a placement: which workers run on which GPUs, what is idle or overloaded.

    Args:
        cfg: Config of the search.
        placement: Placement of the search on this machine.
    """
    loaders = cfg.DATALOADER.NUM_WORKERS if placement.loaders is None else placement.loaders
    each = f"{_count(placement.threads, 'thread')} and {_count(loaders, 'data-loader worker')}"
    if cfg.SEARCH.EXECUTOR != "local":
        return [f"each candidate on the cluster has {each}"]
    gpus = visible_gpus(cfg.MODEL.DEVICE)
    if not placement.workers:
        if len(gpus) < 2:
            return []
        hint = f"on one of {len(gpus)} GPUs; SEARCH.WORKERS auto uses all of them"
        return [f"candidates train one after the other in this process, {hint}"]
    lines = [f"{_count(placement.workers, 'worker')}, each with {each}{_seats(placement)}"]
    if cfg.SEARCH.WORKERS != AUTO and cfg.SEARCH.WORKERS_PER_GPU != 1:
        lines.append("SEARCH.WORKERS_PER_GPU has no effect, since SEARCH.WORKERS is a number")
    if placement.workers < len(gpus):
        idle = f"{len(gpus) - placement.workers} of {len(gpus)} GPUs stay idle"
        lines.append(f"{idle}; SEARCH.WORKERS auto uses all of them")
    busy = placement.workers * (placement.threads + loaders)
    if busy > placement.cores:
        lines.append(
            f"the workers have {busy} threads and data-loader workers on {placement.cores} cores, "
            "which slows all of them down; set SEARCH.LOADER_WORKERS and SEARCH.THREADS to auto, "
            "or lower SEARCH.WORKERS"
        )
    return lines


def _count(number: int, name: str) -> str:
    """Returns a number with the singular or plural of a name."""
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def _seats(placement: Placement) -> str:
    """Returns which worker runs on which GPU, such as ``; GPU 0: workers 0 and 2``, or ""."""
    by_device: dict[str, list[int]] = {}
    for worker in range(placement.workers if placement.devices else 0):
        device = placement.devices[worker % len(placement.devices)]
        by_device.setdefault(device, []).append(worker)
    parts = [f"GPU {device}: {_numbered(workers)}" for device, workers in by_device.items()]
    return "".join(f"; {part}" for part in parts)


def _numbered(workers: Sequence[int]) -> str:
    if len(workers) == 1:
        return f"worker {workers[0]}"
    return f"workers {', '.join(map(str, workers[:-1]))} and {workers[-1]}"
