"""Data-parallel training: wrapping the model, batch norm over the whole batch, agreement."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.parallel import DistributedDataParallel

from fbnetv3.config import ConfigError
from fbnetv3.engine.detectron2_loop import HookBase, NaiveSyncBatchNorm

_SYNCHRONISED = (NaiveSyncBatchNorm, nn.SyncBatchNorm)


class _SyncBatchNorm(NaiveSyncBatchNorm):
    """detectron2's synchronised batch norm, which also counts batches, as torch's batch norm does.

    The count, ``num_batches_tracked``, is part of checkpoints.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return super().forward(x)


def sync_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Replaces batch norms by ones that compute their statistics over all processes (paper, A.3).

    On CUDA the replacement is torch's SyncBatchNorm, or timm's SyncBatchNormAct for timm's norms
    with an activation. On other devices it is detectron2's, which works with gloo; its running
    variance is biased (divided by N, not N - 1), and it replaces only BatchNorm2d that keeps a
    moving average. Other norms stay as they are there; :func:`unsynchronised_norms` lists them.

    Args:
        model: Network, changed in place.
        device: Device of the network.

    Returns:
        The network; its replacement if it is a batch norm itself.

    Raises:
        ConfigError: The device is CUDA, and a norm has a ``forward`` of its own, whose computation
            a synchronised norm would lose. The network is then unchanged.
    """
    synced: dict[nn.Module, nn.Module] = {}  # a norm that is in several places stays one norm
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, _SYNCHRONISED):
            on_cuda = device.type == "cuda"
            synced[module] = _synced_on_cuda(name, module) if on_cuda else _synced_on_cpu(module)
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None and child in synced:
                module._modules[name] = synced[child]
    return synced.get(model, model)


def can_synchronise(model: nn.Module, device: torch.device) -> bool:
    """Returns whether :func:`sync_batch_norm` can replace a norm, or there is none."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return device.type == "cuda" or not norms or any(map(_fits_naive, norms))


def unsynchronised_norms(model: nn.Module) -> list[_NormBase]:
    """Lists the norms whose running statistics differ between processes after a training step.

    Args:
        model: Network, after :func:`sync_batch_norm` if MODEL.SYNC_BN is set.
    """
    return [
        module
        for module in model.modules()
        if isinstance(module, _NormBase)
        and not isinstance(module, _SYNCHRONISED)
        and module.running_mean is not None
    ]


def _synced_on_cuda(name: str, norm: _BatchNorm) -> nn.Module:
    forward = type(norm).forward
    if forward is _BatchNorm.forward:
        return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(norm))
    timm_layers = sys.modules.get("timm.layers")  # loaded if the network has a layer of timm
    if timm_layers is not None and forward is timm_layers.BatchNormAct2d.forward:
        return cast(nn.Module, timm_layers.convert_sync_batchnorm(norm))
    kind = type(norm)
    raise ConfigError(
        f"MODEL.SYNC_BN is True, but the batch norm {name or 'that is the network'} is a "
        f"{kind.__module__}.{kind.__qualname__}, whose own forward would be lost; allowed: "
        "PyTorch's batch norms and timm's BatchNormAct2d; set MODEL.SYNC_BN False"
    )


def _synced_on_cpu(norm: _BatchNorm) -> nn.Module:
    """Returns the replacement of a norm; the norm itself if detectron2's cannot replace it."""
    return _naive(norm) if _fits_naive(norm) else norm


def _fits_naive(norm: _BatchNorm) -> TypeGuard[nn.BatchNorm2d]:
    """Returns whether detectron2's synchronised norm computes what a norm does."""
    averages = norm.running_mean is not None and norm.momentum is not None
    return type(norm) is nn.BatchNorm2d and averages


def _naive(norm: nn.BatchNorm2d) -> nn.Module:
    synced = _SyncBatchNorm(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    # The tensor objects stay the same, so that an optimizer or an average of them stays valid.
    synced._parameters.update(norm._parameters)
    synced._buffers.update(norm._buffers)
    if not norm.affine:
        # RetinaNet's heads share one scale and shift outside of their norms. detectron2's forward
        # reads a scale and a shift from the norm, too. They are set to 1 and 0 as plain attributes,
        # which checkpoints leave out.
        del synced._parameters["weight"], synced._parameters["bias"]
        shift = torch.zeros_like(synced.running_mean)
        synced.__dict__.update(weight=torch.ones_like(shift), bias=shift)
    return cast(nn.Module, synced.train(norm.training))


def batch_norm_text(
    model: nn.Module,
    world_size: int,
    batch_size: int,
    accumulate_steps: int = 1,
    *,
    sync_bn: bool = True,
) -> str:
    """Describes over which images the model's batch norms compute their statistics in training.

    Args:
        model: Network, after :func:`sync_batch_norm` if ``sync_bn``.
        world_size: Number of processes.
        batch_size: Images per forward pass over all processes.
        accumulate_steps: Number of forward passes per step.
        sync_bn: MODEL.SYNC_BN, whether norms are synchronised where that is possible.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return "none: no layer takes statistics of a batch"
    part = "a step"
    if accumulate_steps > 1:
        part = f"each of {accumulate_steps} passes of a step (SOLVER.ACCUMULATE_STEPS)"
    if world_size == 1:
        return f"over the {batch_size} images of {part}"
    per_pass = "" if accumulate_steps == 1 else f" in {part}"
    together = f"over the {batch_size} images of all {world_size} processes (MODEL.SYNC_BN True)"
    alone = [m for m in norms if not isinstance(m, _SYNCHRONISED)]
    if not alone:
        return together + per_pass
    kinds = ", ".join(sorted({type(m).__name__ for m in alone}))
    reason = f"MODEL.SYNC_BN cannot synchronise {kinds} here" if sync_bn else "MODEL.SYNC_BN False"
    images = f"{batch_size / world_size:g} images of each of {world_size} processes"
    apart = f"over the {images} ({reason}){per_pass}; running statistics are those of rank 0"
    if len(alone) == len(norms):
        return apart
    num_synced = len(norms) - len(alone)
    return f"{num_synced} of {len(norms)} norms {together}{per_pass}; the others {apart}"


def parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """Wraps a model in DistributedDataParallel: gradients are averaged over processes.

    Args:
        model: Network on ``device``.
        device: Device of this process; a CUDA device has its index.
    """
    ids = [device] if device.type == "cuda" else None
    # Buffers are equal on all ranks already, by synchronised batch norm and BroadcastBuffersHook.
    return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)


@contextmanager
def gradients_of_this_rank(model: nn.Module, only: bool = True) -> Iterator[None]:
    """Keeps DistributedDataParallel from averaging gradients in the ``with`` block.

    Args:
        model: Network, possibly compiled or wrapped in DistributedDataParallel.
        only: Whether to keep gradients from being averaged; False changes nothing.
    """
    while only and not isinstance(model, DistributedDataParallel):
        inner = model._modules.get("_orig_mod")  # of torch.compile and of CompiledNetwork
        if inner is None:
            break
        model = inner
    if only and isinstance(model, DistributedDataParallel):
        with model.no_sync():
            yield
    else:
        yield


def gather_numbers(number: int) -> list[int]:
    """Returns the numbers that all ranks pass, by rank; each rank must call this.

    Args:
        number: Number of this rank, below 2**63.
    """
    if not dist.is_initialized():
        return [number]
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    value = torch.tensor([number], dtype=torch.int64, device=device)
    values = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(values, value)
    return [int(v) for v in values]


class BroadcastBuffersHook(HookBase):
    """Copies the float buffers of rank 0 to every rank after each step.

    A norm that is not synchronised has its own running statistics on each rank: the ranks would
    otherwise score and average different models.
    """

    @torch.no_grad()
    def after_step(self) -> None:
        """Broadcasts the float buffers."""
        buffers = [b for b in self.trainer.model.buffers() if b.is_floating_point()]
        if not buffers:
            return
        joined = torch.cat([buffer.flatten() for buffer in buffers])
        dist.broadcast(joined, src=0)
        parts = joined.split([buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))
