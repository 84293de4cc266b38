"""Folds batch norm into the convolution before it, wherever a model does one after the other."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class _ChildrenAsLeaves(fx.Tracer):
    """Records what one module's ``forward`` does with its submodules, without entering them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def fold_batch_norm(model: nn.Module) -> int:
    """Folds, in place, every batch norm whose only input is a convolution's only use.

    Every module is traced on its own with its submodules as leaves, so an op that cannot be
    traced stays as it is and hinders no other. A folded batch norm becomes ``nn.Identity``; all
    other modules, their names and their methods remain.

    Args:
        model: In eval mode.

    Returns:
        The number of batch norms folded.
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
    """Returns (conv, bn) of each call ``bn(conv(...))`` in ``parent.forward``, as target names."""
    graph = _trace(parent) if any(isinstance(m, _BatchNorm) for m in parent.modules()) else None
    if graph is None:
        return []
    calls = [node for node in graph.nodes if node.op == "call_module"]
    times = Counter(node.target for node in calls)
    return [
        (conv.target, node.target)
        for node in calls
        if (conv := _only_input(node)) is not None and times[conv.target] == times[node.target] == 1
    ]


def _trace(module: nn.Module) -> fx.Graph | None:
    """Returns the module's graph; None where ``forward`` can't be followed symbolically."""
    try:
        return _ChildrenAsLeaves().trace(module)
    except Exception:  # whatever a user's forward raises on symbolic tensors
        return None


def _only_input(node: fx.Node) -> Any:
    """Returns the module call whose output goes to ``node`` and nowhere else, or None."""
    if len(node.args) != 1 or node.kwargs or not isinstance(node.args[0], fx.Node):
        return None
    source = node.args[0]
    return source if source.op == "call_module" and len(source.users) == 1 else None


def _can_fold(parent: nn.Module, conv_name: str, bn_name: str, owners: Counter[int]) -> bool:
    conv, bn = parent.get_submodule(conv_name), parent.get_submodule(bn_name)
    # subclasses of a conv may pad or scale in their own way
    if type(conv) not in _CONVS or not isinstance(bn, _BatchNorm):
        return False
    shared = owners[id(conv)] > 1 or owners[id(bn)] > 1
    hooked = any(getattr(m, hooks) for m in (conv, bn) for hooks in _HOOKS)
    return not (shared or hooked or parametrize.is_parametrized(conv)) and _is_plain(bn)


@torch.no_grad()
def _is_plain(bn: _BatchNorm) -> bool:
    """Whether it only normalises: a subclass may have an activation inside, so it is asked."""
    if bn.running_mean is None or bn.running_var is None:
        return False
    if type(bn) is nn.BatchNorm2d:
        return True
    x = torch.linspace(-3, 3, 8 * bn.num_features).to(bn.running_mean)
    x = x.reshape(bn.num_features, 8).T.reshape(8, bn.num_features, 1, 1)
    plain = nn.functional.batch_norm(
        x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps
    )
    try:
        found = bn(x)
    except Exception:  # another number of dimensions, a GPU-only kernel: leave it alone
        return False
    return isinstance(found, Tensor) and torch.allclose(found, plain, rtol=1e-5, atol=1e-6)


def _fold(parent: nn.Module, conv_name: str, bn_name: str) -> None:
    conv, bn = parent.get_submodule(conv_name), parent.get_submodule(bn_name)
    assert isinstance(conv, _CONVS)  # _can_fold looked
    assert isinstance(bn, _BatchNorm)
    _replace(parent, conv_name, fuse_conv_bn_eval(conv, bn))
    _replace(parent, bn_name, nn.Identity())


def _replace(parent: nn.Module, name: str, module: nn.Module) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(parent.get_submodule(path), leaf, module)
