"""Data-parallel training: wrapping the model, and batch norm over the whole batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from fbnetv3.engine.detectron2_loop import HookBase, NaiveSyncBatchNorm


class _SyncBatchNorm(NaiveSyncBatchNorm):
    """detectron2's synchronised batch norm, which also counts batches, as torch's batch norm does.

    The count, ``num_batches_tracked``, is part of checkpoints.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return super().forward(x)


def sync_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Replaces batch norm by one that computes its statistics over all processes (paper, A.3).

    On CUDA the replacement is torch's SyncBatchNorm. On other devices it is detectron2's, which
    works with gloo and replaces BatchNorm2d only; its running variance is biased (divided by N, not
    N - 1).

    Args:
        model: Network, changed in place.
        device: Device of the network.

    Returns:
        The network.
    """
    if device.type == "cuda":
        return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(model))
    for name, child in model.named_children():
        if type(child) is nn.BatchNorm2d:
            setattr(model, name, _naive(child))
        else:
            sync_batch_norm(child, device)
    return model


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
    model: nn.Module, world_size: int, batch_size: int, accumulate_steps: int = 1
) -> str:
    """Describes over which images the model's batch norms compute their statistics in training.

    Args:
        model: Network, after :func:`sync_batch_norm` if MODEL.SYNC_BN is set.
        world_size: Number of processes.
        batch_size: Images per forward pass over all processes.
        accumulate_steps: Number of forward passes per step.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return "none: no layer takes statistics of a batch"
    part = "a step"
    if accumulate_steps > 1:
        part = f"each of {accumulate_steps} passes of a step (SOLVER.ACCUMULATE_STEPS)"
    if world_size == 1:
        return f"over the {batch_size} images of {part}"
    if all(isinstance(m, (NaiveSyncBatchNorm, nn.SyncBatchNorm)) for m in norms):
        text = f"over the {batch_size} images of all {world_size} processes (MODEL.SYNC_BN True)"
        return text if accumulate_steps == 1 else f"{text} in {part}"
    images = f"{batch_size / world_size:g} images of each of {world_size} processes"
    return f"over the {images} (MODEL.SYNC_BN False); running statistics are those of rank 0"


def parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """Wraps a model in DistributedDataParallel: gradients are averaged over processes.

    Args:
        model: Network on ``device``.
        device: Device of this process; a CUDA device has its index.
    """
    ids = [device] if device.type == "cuda" else None
    # Buffers are equal on all ranks already, by synchronised batch norm or BroadcastBuffersHook.
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


class BroadcastBuffersHook(HookBase):
    """Copies the float buffers of rank 0 to every rank after each step.

    Without synchronised batch norm, each rank has its own running statistics: the ranks would
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
