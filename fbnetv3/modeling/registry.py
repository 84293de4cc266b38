"""The registry of op modules, by the names that architecture tables use.

To add an op from outside of the package, decorate its module class with :func:`register_op`, whose
docstring has an example. Built-in ops are in ``blocks.py``, their cost formulas in
``arch/ops.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from torch import nn

from fbnetv3.arch import ArchError, Layer, register_cost
from fbnetv3.arch.ops import CostFormula

ModuleClass = TypeVar("ModuleClass", bound=type[nn.Module])

MODULES: dict[str, type[nn.Module]] = {}
"""Module class of each op. It is called as ``cls(layer, drop_path)`` with a
:class:`fbnetv3.arch.Layer` and the drop rate of its residual branch (ignored by an op without one),
and maps a tensor (N, layer.c_in, H, W) to (N, layer.c_out, h, w)."""


def register_module(name: str) -> Callable[[ModuleClass], ModuleClass]:
    """Returns a decorator that registers the module class of an op, as described for ``MODULES``.

    The cost formula of the op is registered separately, by :func:`fbnetv3.arch.register_cost`.

    Raises:
        ArchError: Another module is registered for this op (raised by the decorator).
    """

    def register(cls: ModuleClass) -> ModuleClass:
        if MODULES.setdefault(name, cls) is not cls:
            raise ArchError("another module is registered for this op", key="op", value=name)
        return cls

    return register


def register_op(
    name: str,
    *,
    cost: CostFormula,
    keys: Iterable[str] | Mapping[str, Any] = (),
    pools: bool = False,
    is_conv: bool = False,
) -> Callable[[ModuleClass], ModuleClass]:
    """Returns a decorator that registers a module class as an op, together with its cost formula.

    Args:
        name: Name of the op in tables.
        cost: Function ``formula(layer, size) -> (Cost, output size)``, written in plain arithmetic
            so that it works for ints and arrays; see :func:`fbnetv3.arch.register_cost`.
        keys: Keys that its rows accept besides ``stage``, ``c``, ``n`` and ``s``: names of known
            keys (``k``, ``e``, ``act``, ...), or a mapping from key to None (a known key), to the
            default of a new key, or to a ``Key``. The module reads new keys from ``layer.options``.
        pools: Whether the output of the op is 1 x 1 for every input.
        is_conv: Whether the op is a plain convolution. A detector leaves out the last stage if it
            consists only of pooling ops and of plain convolutions with k = 1.

    Returns:
        A decorator for a class that is called as ``cls(layer, drop_path)``.

    Raises:
        ArchError: The name is taken, or a key is unknown or common to all ops.

    Example:
        >>> def plain_cost(layer, size):
        ...     out = conv_size(size, layer.k, layer.s, layer.padding)
        ...     return conv_cost(layer.c_in, layer.c_out, out, k=layer.k), out
        >>> @register_op("plain", cost=plain_cost, keys=("k",))
        ... class Plain(nn.Conv2d):
        ...     def __init__(self, layer, drop_path=0.0):
        ...         super().__init__(
        ...             layer.c_in, layer.c_out, layer.k, layer.s, layer.padding, bias=False
        ...         )
    """
    register_cost(name, keys=keys, pools=pools, is_conv=is_conv)(cost)
    return register_module(name)


def build_layer(layer: Layer, drop_path: float = 0.0) -> nn.Module:
    """Returns the module of a layer.

    Args:
        layer: Layer to build.
        drop_path: Probability that its residual branch is dropped in training; ignored by a layer
            without shortcut.

    Raises:
        ArchError: The op of the layer has a cost formula but no module.
    """
    if layer.op not in MODULES:
        allowed = ", ".join(MODULES)
        problem = "no module is registered for this op (see register_op)"
        raise ArchError(problem, key="op", value=layer.op, allowed=allowed)
    return MODULES[layer.op](layer, drop_path)
