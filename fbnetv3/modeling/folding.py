"""Folding of batch norms into the convolutions before them."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fbnetv3.modeling.blocks import VectorConv2d

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, VectorConv2d)
# Attributes of a batch norm. The frozen batch norms of torchvision and detectron2 also have these
# attributes, but are no subclasses of _BatchNorm.
_STATISTICS = ("running_mean", "running_var", "weight", "bias", "eps")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class _ChildrenAsLeaves(fx.Tracer):
    """A tracer that records the calls of a module's children without tracing into them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def fold_batch_norm(model: nn.Module) -> int:
    """Folds batch norms into the convolutions before them, in place.

    A batch norm is folded if nothing else reads the output of its convolution, both modules are
    called once and have no hooks, and neither computes anything more: subclasses of a convolution,
    parametrised convolutions and batch norms with an activation are left unchanged. Each module is
    traced separately with its submodules as leaves, so a module that cannot be traced is left
    unchanged and does not affect the others. A folded batch norm becomes ``nn.Identity``; all other
    modules keep their names and methods.

    Args:
        model: A model in eval mode.

    Returns:
        The number of folded batch norms.
    """
    owners = Counter(id(m) for _, m in model.named_modules(remove_duplicate=False))
    folded = 0
    for parent in list(model.modules()):
        for conv, bn in _pairs(parent):
            if _can_fold(parent, conv, bn, owners):
                _fold(parent, conv, bn)
                folded += 1
    return folded


def _pairs(parent: nn.Module) -> list[tuple[str, str]]:
    """Returns the names (conv, bn) of modules that ``parent.forward`` calls as ``bn(conv(...))``.

    Each is called exactly once. Their types are checked by :func:`_can_fold`.
    """
    graph = _trace(parent) if any(_is_batch_norm(m) for m in parent.modules()) else None
    if graph is None:
        return []
    calls = [node for node in graph.nodes if node.op == "call_module"]
    times = Counter(node.target for node in calls)
    return [
        (conv.target, node.target)
        for node in calls
        if (conv := _only_input(node)) is not None and times[conv.target] == times[node.target] == 1
    ]


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) or all(hasattr(module, name) for name in _STATISTICS)


def _trace(module: nn.Module) -> fx.Graph | None:
    """Returns the graph of a module, or None if its ``forward`` cannot be traced symbolically."""
    attributes = dict(vars(module))
    try:
        return _ChildrenAsLeaves().trace(module)
    except Exception:  # a user's forward may raise anything when it is given symbolic tensors
        return None
    finally:
        # a forward may count its calls, as detectron2's CycleBatchNormList does
        vars(module).clear()
        vars(module).update(attributes)


def _only_input(node: fx.Node) -> Any:
    """Returns the module call that is the only input of ``node`` and has no other user, or None."""
    if len(node.args) != 1 or node.kwargs or not isinstance(node.args[0], fx.Node):
        return None
    source = node.args[0]
    return source if source.op == "call_module" and len(source.users) == 1 else None


def _can_fold(parent: nn.Module, conv_name: str, bn_name: str, owners: Counter[int]) -> bool:
    """Returns whether folding leaves outputs unchanged.

    ``owners`` counts, by id of a module, the names under which the network contains it.
    """
    conv, bn = parent.get_submodule(conv_name), parent.get_submodule(bn_name)
    # A subclass of a convolution may compute something else.
    if type(conv) not in _CONVS or not _is_batch_norm(bn):
        return False
    shared = owners[id(conv)] > 1 or owners[id(bn)] > 1
    hooked = any(getattr(m, hooks) for m in (conv, bn) for hooks in _HOOKS)
    return not (shared or hooked or parametrize.is_parametrized(conv)) and _is_plain(bn)


@torch.no_grad()
def _is_plain(bn: Any) -> bool:
    """Returns whether the module only normalises; a subclass may contain an activation, too.

    Anything but a plain ``BatchNorm2d`` is compared with the formula of batch norm on test inputs.
    """
    if not (isinstance(bn.running_mean, Tensor) and isinstance(bn.running_var, Tensor)):
        return False
    if type(bn) is nn.BatchNorm2d:
        return True
    channels = len(bn.running_mean)
    x = torch.linspace(-3, 3, 8 * channels).to(bn.running_mean)
    # (8, C, 1, 1): each channel covers its own part of [-3, 3]
    x = x.reshape(channels, 8).T.reshape(8, channels, 1, 1)
    plain = nn.functional.batch_norm(
        x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps
    )
    try:
        output = bn(x)
    except Exception:  # bn expects another number of dimensions, or a GPU
        return False
    return isinstance(output, Tensor) and torch.allclose(output, plain, rtol=1e-5, atol=1e-6)


def _fold(parent: nn.Module, conv_name: str, bn_name: str) -> None:
    conv, bn = parent.get_submodule(conv_name), cast(_BatchNorm, parent.get_submodule(bn_name))
    assert isinstance(conv, _CONVS)  # ensured by _can_fold
    _replace(parent, conv_name, fuse_conv_bn_eval(conv, bn))
    _replace(parent, bn_name, nn.Identity())


def _replace(parent: nn.Module, name: str, module: nn.Module) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(parent.get_submodule(path), leaf, module)
