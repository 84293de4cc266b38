"""Modules of the ops, by the names that tables use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from torch import nn

from fbnetv3.arch import ArchError, Layer, register_cost
from fbnetv3.arch.ops import CostFormula

ModuleClass = TypeVar("ModuleClass", bound=type[nn.Module])

# Modules of the ops. A registered class is called as ``cls(layer, drop_path)`` with a
# fbnetv3.arch.Layer and the drop rate of its shortcut (an op without one ignores it), and maps a
# tensor (N, layer.c_in, H, W) to (N, layer.c_out, h, w).
MODULES: dict[str, type[nn.Module]] = {}


def register_module(name: str) -> Callable[[ModuleClass], ModuleClass]:
    """Registers the module of an op whose cost formula is known. See :data:`MODULES`."""

    def register(cls: ModuleClass) -> ModuleClass:
        if MODULES.setdefault(name, cls) is not cls:
            raise ArchError("this op has a module already", key="op", value=name)
        return cls

    return register


def register_op(
    name: str,
    *,
    cost: CostFormula,
    keys: Iterable[str] | Mapping[str, Any] = (),
    pools: bool = False,
) -> Callable[[ModuleClass], ModuleClass]:
    """Registers a module class as an op, together with what it costs.

    Args:
        name: The op's name in tables.
        cost: ``formula(layer, size) -> (Cost, output size)``; plain arithmetic, so that it
            takes ints and arrays. See :func:`fbnetv3.arch.register_cost`.
        keys: The keys that its rows take beside ``stage, c, n, s``: known ones by name
            (``k``, ``e``, ``act``, ...), or a mapping from key to None (a known key) or to the
            default of a key of its own, which the module finds in ``layer.options``.
        pools: Whether its output is 1 x 1 for every input.

    Returns:
        A decorator for a class that is called as ``cls(layer, drop_path)``.

    Raises:
        ArchError: The name is taken, or a key is unknown.

    Example:
        >>> def price(layer, size):
        ...     out = conv_size(size, layer.k, layer.s, layer.padding)
        ...     return conv_cost(layer.c_in, layer.c_out, out, k=layer.k), out
        >>> @register_op("plain", cost=price, keys=("k",))
        ... class Plain(nn.Conv2d):
        ...     def __init__(self, layer, drop_path=0.0):
        ...         super().__init__(
        ...             layer.c_in, layer.c_out, layer.k, layer.s, layer.padding, bias=False
        ...         )
    """
    register_cost(name, keys=keys, pools=pools)(cost)
    return register_module(name)


def build_layer(layer: Layer, drop_path: float = 0.0) -> nn.Module:
    """Makes the module of one layer.

    Args:
        layer: What to build.
        drop_path: Probability of dropping its branch in training, for a layer with a shortcut.

    Raises:
        ArchError: Its op has a cost formula but no module.
    """
    if layer.op not in MODULES:
        allowed = ", ".join(MODULES)
        problem = "no module is registered for this op (see register_op)"
        raise ArchError(problem, key="op", value=layer.op, allowed=allowed)
    return MODULES[layer.op](layer, drop_path)
