"""Several processes, one model: wrapping it, and batch norm over the whole batch."""

from __future__ import annotations

from typing import cast

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.layers import NaiveSyncBatchNorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


class _SyncBatchNorm(NaiveSyncBatchNorm):
    """detectron2's, which does not count its batches: torch's do, and checkpoints hold it."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return super().forward(x)


def sync_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Makes batch norm take its statistics over all processes (paper, A.3).

    On CUDA torch's own; elsewhere detectron2's, which runs on gloo and whose running variance is
    the biased one (divided by N, not N - 1).

    Args:
        model: changed in place.
        device: where it runs.

    Returns:
        The model.
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
    # the very tensors: an optimizer or average that knows them stays right
    synced._parameters.update(norm._parameters)
    synced._buffers.update(norm._buffers)
    if not norm.affine:
        # RetinaNet's heads share one scale and shift outside of their norms; detectron2's forward
        # needs some, and neither parameters nor buffers, which checkpoints would hold, are wanted
        del synced._parameters["weight"], synced._parameters["bias"]
        shift = torch.zeros_like(synced.running_mean)
        synced.__dict__.update(weight=torch.ones_like(shift), bias=shift)
    return cast(nn.Module, synced.train(norm.training))


def batch_norm_text(model: nn.Module, world_size: int, batch_size: int) -> str:
    """Says over which images the model's batch norms take their statistics in training.

    Args:
        model: after :func:`sync_batch_norm`, where it is asked for.
        world_size: processes.
        batch_size: images a step over all processes.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return "takes no statistics of a batch"
    if world_size == 1:
        return f"over the {batch_size} images of a step"
    if all(isinstance(m, (NaiveSyncBatchNorm, nn.SyncBatchNorm)) for m in norms):
        return f"over the {batch_size} images of all {world_size} processes (MODEL.SYNC_BN True)"
    each = f"{batch_size / world_size:g} images of each of {world_size} processes"
    return f"over the {each} (MODEL.SYNC_BN False); running statistics are those of rank 0"


def parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """Wraps a model so that gradients are averaged over processes."""
    ids = [device.index or 0] if device.type == "cuda" else None
    # buffers are equal already: batch norm is synchronised, or BroadcastBuffersHook sees to them
    return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)


class BroadcastBuffersHook(HookBase):
    """Gives every rank the buffers of rank 0 after each step.

    Where batch norm is not synchronised, ranks would score and average different models.
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
