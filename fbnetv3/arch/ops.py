"""The ops of a table row: the keys that each op accepts, and its cost formula.

This file needs no torch; the module of an op is registered under the same name in
``fbnetv3.modeling``. A cost formula is plain arithmetic, so that it works for one layer and for a
whole array of candidates alike.

To add a built-in op, write its formula below and its module in ``modeling/blocks.py``;
CONTRIBUTING.md lists the other places to edit (latency, timm's tensor names, tests)::

    @register_cost("convbn", keys=("k", "act"), is_conv=True)  # here
    def convbn(layer: Layer, size: Ints) -> tuple[Cost, Ints]:
        out = conv_size(size, layer.k, layer.s, layer.padding)
        return conv_cost(layer.c_in, layer.c_out, out, k=layer.k, bn=True), out

    @register_module("convbn")  # in modeling/blocks.py
    class ConvBNBlock(ConvBN):
        def __init__(self, layer: Layer, drop_path: float = 0.0) -> None: ...

A module with a shortcut may have a method ``zero_init_last()``, which ``modeling/init.py`` calls so
that the module starts as the identity.

Code outside of the package registers cost and module at once with
``fbnetv3.modeling.register_op``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.keys import COMMON_KEYS, OP_KEYS, Key, key_of_default
from fbnetv3.arch.layer import Ints, Layer
from fbnetv3.errors import did_you_mean


@dataclass(frozen=True)
class Cost:
    """The cost of a network for one image. Each number is an int or an int64 array.

    Multiply-adds are counted in two ways:

    * ``macs_conv`` counts convolutions and linear layers, including squeeze-and-excitation and the
      classifier, as most papers do, and as fvcore does for conv and linear operators.
    * ``macs`` = ``macs_conv + macs_avgpool`` adds one for each element that a global average pool
      reads. The published FBNet tables do so (356.6M for FBNetV3-A).

    Neither counts batch norm and activations. A multiply-add counts as one operation, which some
    papers call 2 FLOPs.

    Attributes:
        macs_conv: Multiply-adds of conv and linear layers.
        macs_avgpool: Elements read by global average pools.
        params: Trainable parameters: weights, biases, and scale and shift of batch norms.
        conv_weights: Elements of conv and classifier weights, without biases and batch norm.
        activations: Output elements of all conv and linear layers (pycls' definition).
    """

    macs_conv: Ints = 0
    macs_avgpool: Ints = 0
    params: Ints = 0
    conv_weights: Ints = 0
    activations: Ints = 0

    @property
    def macs(self) -> Ints:
        """Multiply-adds as in the published FBNet tables: ``macs_conv + macs_avgpool``."""
        return self.macs_conv + self.macs_avgpool

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.macs_conv + other.macs_conv,
            self.macs_avgpool + other.macs_avgpool,
            self.params + other.params,
            self.conv_weights + other.conv_weights,
            self.activations + other.activations,
        )

    def __mul__(self, times: Ints) -> Cost:
        return Cost(
            self.macs_conv * times,
            self.macs_avgpool * times,
            self.params * times,
            self.conv_weights * times,
            self.activations * times,
        )


# (layer, side of the square input in pixels) -> (cost, side of the output)
CostFormula = Callable[[Layer, Ints], tuple[Cost, Ints]]


@dataclass(frozen=True)
class OpSpec:
    """Name, keys and cost formula of an op.

    Attributes:
        name: Name of the op in tables.
        keys: Keys that its rows accept besides ``stage``, ``c``, ``n`` and ``s``.
        cost: Cost formula.
        pools: Whether the output is 1 x 1 for every input, so that a stride has no meaning.
        is_conv: Whether the op is a plain convolution. A detector leaves out the last stage if it
            consists only of pooling ops and of plain convolutions with k = 1.
    """

    name: str
    keys: Mapping[str, Key]
    cost: CostFormula
    pools: bool = False
    is_conv: bool = False


OP_COSTS: dict[str, OpSpec] = {}


def _keys_by_name(keys: Iterable[str] | Mapping[str, Any]) -> dict[str, Key]:
    """Returns the keys of an op from the argument ``keys`` of :func:`register_cost`."""
    given = dict(keys) if isinstance(keys, Mapping) else dict.fromkeys(keys)
    for name in given:
        if name in COMMON_KEYS or name in ("op", "options"):
            raise ArchError("every op has this key", key="keys", value=name)
        if given[name] is None and name not in OP_KEYS:
            allowed = f"{', '.join(OP_KEYS)}, or a mapping from your key to its default"
            raise ArchError("unknown key", key="keys", value=name, allowed=allowed)
    return {name: _key(name, value) for name, value in given.items()}


def _key(name: str, value: Any) -> Key:
    """Returns the Key that ``value`` declares: a Key, None for a known key, or a default."""
    if isinstance(value, Key):
        return value
    if value is None:
        return OP_KEYS[name]
    if name not in OP_KEYS:
        return key_of_default(name, value)
    known = dataclasses.replace(OP_KEYS[name], required=False)
    return dataclasses.replace(known, default=known.clean(name, value))


def register_cost(
    name: str,
    *,
    keys: Iterable[str] | Mapping[str, Any] = (),
    pools: bool = False,
    is_conv: bool = False,
) -> Callable[[CostFormula], CostFormula]:
    """Returns a decorator that registers an op with its cost formula.

    Args:
        name: Name of the op in tables.
        keys: Keys that its rows accept besides ``stage``, ``c``, ``n`` and ``s``: names of known
            keys (``k``, ``e``, ``act``, ...), or a mapping from key to None (a known key), to a
            default value, or to a :class:`~fbnetv3.arch.keys.Key`.
        pools: Whether the output of the op is 1 x 1 for every input.
        is_conv: Whether the op is a plain convolution. A detector leaves out the last stage if it
            consists only of pooling ops and of plain convolutions with k = 1.

    Returns:
        A decorator for a function ``formula(layer, size) -> (Cost, output size)``. Sizes are sides
        in pixels. Numbers may be ints or int64 arrays, so the formula must be plain arithmetic
        (``+``, ``*``, ``//``, comparisons, numpy). In a row, the layers after the first must keep
        the size.

    Raises:
        ArchError: The name is taken, a key is unknown or common to all ops, or its default is not
            allowed.
    """
    if name in OP_COSTS:
        raise ArchError("this op is registered already", key="op", value=name)
    declared = _keys_by_name(keys)

    def register(formula: CostFormula) -> CostFormula:
        OP_COSTS[name] = OpSpec(name, declared, formula, pools, is_conv)
        return formula

    return register


def get_op(name: object) -> OpSpec:
    """Returns the op of that name.

    Raises:
        ArchError: No op has this name.
    """
    if isinstance(name, str) and name in OP_COSTS:
        return OP_COSTS[name]
    hint = did_you_mean(str(name), OP_COSTS)
    raise ArchError(f"unknown op{hint}", key="op", value=name, allowed=", ".join(OP_COSTS))


def conv_size(size: Ints, k: Ints, s: Ints, padding: Ints) -> Ints:
    """Returns the side of the output of a convolution in pixels."""
    return (size + 2 * padding - k) // s + 1


def conv_cost(
    c_in: Ints,
    c_out: Ints,
    size: Ints,
    *,
    k: Ints = 1,
    groups: Ints = 1,
    bias: bool = False,
    bn: bool = False,
) -> Cost:
    """Returns the cost of a k x k convolution.

    Args:
        c_in: Input channels.
        c_out: Output channels.
        size: Side of the output in pixels.
        k: Kernel size.
        groups: Number of groups.
        bias: Whether the convolution has a bias.
        bn: Whether a batch norm follows, whose parameters are counted too.
    """
    weights = c_out * (c_in // groups) * k * k
    return Cost(
        macs_conv=weights * size * size,
        params=weights + c_out * (int(bias) + 2 * int(bn)),
        conv_weights=weights,
        activations=c_out * size * size,
    )


def pool_cost(c: Ints, size: Ints) -> Cost:
    """Returns the cost of a global average pool over ``c`` channels of ``size`` x ``size``."""
    return Cost(macs_avgpool=c * size * size)


def se_cost(c: Ints, squeezed: Ints, size: Ints) -> Cost:
    """Returns the cost of a squeeze-and-excitation: a global pool and two 1x1 convs with bias.

    Args:
        c: Channels of the map.
        squeezed: Channels between the two convs.
        size: Side of the map in pixels.
    """
    down = conv_cost(c, squeezed, 1, bias=True)
    return pool_cost(c, size) + down + conv_cost(squeezed, c, 1, bias=True)


def head_cost(c: Ints, size: Ints, num_classes: Ints) -> Cost:
    """Returns the cost of the head: a global average pool and a linear layer.

    The pool is counted even if the map has 1 x 1 pixels.

    Args:
        c: Channels of the last map.
        size: Side of the last map in pixels.
        num_classes: Number of logits.
    """
    return pool_cost(c, size) + conv_cost(c, num_classes, 1, bias=True)


@register_cost("conv", keys={"k": None, "act": None, "conv_bias": True}, is_conv=True)
def conv(layer: Layer, size: Ints) -> tuple[Cost, Ints]:
    """Returns the cost of a convolution with batch norm, and the side of its output."""
    out = conv_size(size, layer.k, layer.s, layer.padding)
    bias = layer.options["conv_bias"]
    return conv_cost(layer.c_in, layer.c_out, out, k=layer.k, bias=bias, bn=True), out


@register_cost(
    "mbconv",
    keys=(
        *("k", "e", "act", "se", "se_ratio", "se_act"),
        *("dw_padding", "conv_bias", "pw_groups", "pwl_groups"),
    ),
)
def mbconv(layer: Layer, size: Ints) -> tuple[Cost, Ints]:
    """Returns the cost of an inverted residual, and the side of its output.

    It consists of an expansion (left out if ``mid`` is ``c_in``), a depthwise conv, a
    squeeze-and-excitation if the row sets ``se``, and a projection.
    """
    mid, bias = layer.mid, layer.options["conv_bias"]
    out = conv_size(size, layer.k, layer.s, layer.padding)
    pw_groups, pwl_groups = layer.options["pw_groups"], layer.options["pwl_groups"]
    expand = conv_cost(layer.c_in, mid, size, groups=pw_groups, bias=bias, bn=True)
    cost = expand * (mid != layer.c_in)
    cost += conv_cost(mid, mid, out, k=layer.k, groups=mid, bias=bias, bn=True)
    if layer.se is not None:
        cost += se_cost(mid, layer.se_channels, out)
    project = conv_cost(mid, layer.c_out, out, groups=pwl_groups, bias=bias, bn=True)
    return cost + project, out


@register_cost("skip", keys=("act", "conv_bias"))
def skip(layer: Layer, size: Ints) -> tuple[Cost, Ints]:
    """Returns the cost of an identity, or of a 1x1 conv if channels change or the stride is > 1."""
    out = conv_size(size, 1, layer.s, 0)
    changes = np.logical_or(layer.s != 1, layer.c_in != layer.c_out)
    times = changes if isinstance(changes, np.ndarray) else bool(changes)
    bias = layer.options["conv_bias"]
    return conv_cost(layer.c_in, layer.c_out, out, bias=bias, bn=True) * times, out


@register_cost("mbpool", keys=("e", "act", "conv_bias", "pwl_bn"), pools=True)
def mbpool(layer: Layer, size: Ints) -> tuple[Cost, Ints]:
    """Returns the cost of MobileNetV3's efficient last stage, whose output has side 1.

    It consists of an expansion (left out if ``mid`` is ``c_in``), a global average pool, and a 1x1
    conv, which has a batch norm if the row sets ``pwl_bn`` (MobileNetV4).
    """
    mid, bias = layer.mid, layer.options["conv_bias"]
    expand = conv_cost(layer.c_in, mid, size, bias=bias, bn=True) * (mid != layer.c_in)
    last = conv_cost(mid, layer.c_out, 1, bias=bias, bn=layer.options.get("pwl_bn", False))
    return expand + pool_cost(mid, size) + last, 1


@register_cost("uib", keys=("k_start", "k_mid", "e", "act", "layer_scale"))
def uib(layer: Layer, size: Ints) -> tuple[Cost, Ints]:
    """Returns the cost of a universal inverted bottleneck, and the side of its output.

    It consists of an optional depthwise conv, an expansion, an optional depthwise conv of the
    expanded channels, and a projection (MobileNetV4, section 3). The last depthwise conv that it
    has takes the stride.
    """
    k_start, k_mid = layer.options["k_start"], layer.options["k_mid"]
    c_in, mid, out = layer.c_in, layer.mid, conv_size(size, 1, layer.s, 0)
    inner = size + (out - size) * (k_mid == 0)  # side of the expanded map
    cost = conv_cost(c_in, c_in, inner, k=k_start, groups=c_in, bn=True) * (k_start > 0)
    cost += conv_cost(c_in, mid, inner, bn=True)
    cost += conv_cost(mid, mid, out, k=k_mid, groups=mid, bn=True) * (k_mid > 0)
    cost += conv_cost(mid, layer.c_out, out, bn=True)
    if layer.options["layer_scale"] is not None:
        cost += Cost(params=layer.c_out)
    return cost, out


@register_cost("fused", keys=("k", "e", "act", "se", "se_ratio", "se_act"))
def fused(layer: Layer, size: Ints) -> tuple[Cost, Ints]:
    """Returns the cost of a fused inverted residual, and the side of its output.

    A k x k conv replaces the expansion and the depthwise conv of an inverted residual. If ``mid``
    is ``c_in``, this conv has ``c_out`` channels, and there is no projection (EfficientNetV2). A
    squeeze-and-excitation, if the row sets ``se``, comes before the last conv.
    """
    c_in, mid, c_out = layer.c_in, layer.mid, layer.c_out
    out = conv_size(size, layer.k, layer.s, layer.padding)
    expands = mid != c_in
    expanded = conv_cost(c_in, mid, out, k=layer.k, bn=True) + conv_cost(mid, c_out, out, bn=True)
    cost = expanded * expands + conv_cost(c_in, c_out, out, k=layer.k, bn=True) * (1 - expands)
    if layer.se is not None:
        cost += se_cost(mid, layer.se_channels, size + (out - size) * expands)
    return cost, out
