"""Multiply-adds, parameters and activations of any network, counted on torch's meta device.

Tensors of the meta device have no values, so that counting takes little memory and time. The
operations are counted with the formulas of ``torch.utils.flop_counter`` as they are dispatched,
attention included. For FBNets, the counts equal the arithmetic of ``arch/cost.py``.

fvcore counts the same convolutions and linear layers, but its tracer fails on the meta device with
the versions of torch that this project supports, and it leaves fused attention out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fbnetv3.arch import ArchError
from fbnetv3.errors import FBNetError, first_line
from fbnetv3.modeling.classifier import build_model

_aten = torch.ops.aten
_LAYERS = (_aten.convolution, _aten._convolution, _aten.mm, _aten.addmm)
"""Operations of convolutions and linear layers, whose output elements count as activations."""
_POOLS = (_aten.mean, _aten._adaptive_avg_pool2d, _aten.avg_pool2d)
"""Average pools and means; each input element is one multiply-add."""
_IN_PLACE = {
    f"aten::{name}_"
    for name in ("add", "clamp", "copy", "div", "erfinv", "fill", "mul", "normal", "uniform")
} | {"aten::zero_", "aten::relu_", "aten::trunc_normal_", "aten::silu_", "aten::hardswish_"}
"""In-place operations. Tensors of the meta device have no values that could change, so these
operations are skipped. This halves the time, which goes mostly into initialising weights."""


@dataclass(frozen=True)
class NetworkCost:
    """The cost of a network for one image.

    Attributes:
        macs: Multiply-adds of convolutions, linear layers, attention and average pools.
        params: Number of parameters.
        activations: Number of output elements of convolutions and linear layers.
    """

    macs: int
    params: int
    activations: int


class _Counter(TorchDispatchMode):
    """Counts the operations that are dispatched in its ``with`` block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch
        self.macs = self.activations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.name in _IN_PLACE:
            return args[0]
        output = func(*args, **kwargs)
        operation = func._overloadpacket
        if operation in flop_registry:
            flops = flop_registry[operation](*args, **kwargs, out_val=output)
            self.macs += flops // 2  # a multiply-add counts as two floating-point operations
        elif operation in _POOLS:
            self.macs += args[0].numel()
        if operation in _LAYERS:
            self.activations += output.numel()
        return output


def count_network(name: str, num_classes: int, side: int) -> NetworkCost:
    """Returns the cost of a network by its name.

    Args:
        name: Name of a network of a library or a registered one, such as ``timm/resnet18``.
        num_classes: Number of logits.
        side: Side of the square image in pixels.

    Raises:
        ArchError: The network cannot be built, cannot process such an image, or does not return
            (1, num_classes) logits. The message has the reason.
    """
    with torch.random.fork_rng(devices=[]):
        return count_module(_on_meta(name, num_classes), num_classes, side, name)


def count_module(model: nn.Module, num_classes: int, side: int, name: str = "") -> NetworkCost:
    """Returns the cost of a network on the meta device, in evaluation mode.

    Args:
        model: The network; all its tensors are on the meta device.
        num_classes: Expected number of logits.
        side: Side of the square image in pixels.
        name: Name of the network for messages.

    Raises:
        ArchError: The network cannot process such an image, or returns anything but logits.
    """
    image = torch.empty(1, 3, side, side, device="meta")
    params = sum(p.numel() for p in model.parameters())
    try:
        with _evaluating(model), torch.no_grad(), _Counter() as counter:
            logits = model(image)
    except Exception as error:  # networks of libraries raise errors of any kind
        problem = f"cannot process images of {side} pixels ({first_line(error)})"
        raise ArchError(problem, key="name", value=name) from error
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (1, num_classes):
        kind = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        problem = f"returns {kind} for an image instead of logits (1, {num_classes})"
        raise ArchError(problem, key="name", value=name)
    return NetworkCost(counter.macs, params, counter.activations)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)


def _on_meta(name: str, num_classes: int) -> nn.Module:
    """Builds a network on the meta device, or on the CPU first if it cannot be built there."""
    try:
        with torch.device("meta"), _Counter():  # the counter skips the initialisations
            model = build_model(name, num_classes)
    except FBNetError:
        model = build_model(name, num_classes)
    return model.to("meta")
