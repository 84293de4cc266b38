"""The ops of a table row: which keys each takes and what it costs.

An op's module is registered under the same name in ``fbnetv3.modeling``; nothing here knows
torch. A cost formula is plain arithmetic, so that it prices one layer and a whole array of
candidates alike.
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
    """What a network costs for one image. Each number is an int, or an int64 array.

    Two ways of counting are in use, and ``macs`` is the second:

    * ``macs_conv``: multiply-adds of convolutions and linear layers, squeeze-and-excitation and
      classifier included. Most papers and fvcore's conv and linear operators count this.
    * ``macs`` = ``macs_conv + macs_avgpool``: and one for each element that a global average
      pool reads. The published FBNet tables (356.6M for FBNetV3-A) count this.

    Batch norm and activations count in neither. A multiply-add is one; some call it 2 FLOPs.

    Attributes:
        macs_conv: Multiply-adds of conv and linear layers.
        macs_avgpool: Elements read by global average pools.
        params: All trainable numbers: weights, biases, batch norm's scale and shift.
        conv_weights: Elements of conv and classifier weights: no biases, no batch norm.
        activations: Output elements of all conv and linear layers (pycls' definition).
    """

    macs_conv: Ints = 0
    macs_avgpool: Ints = 0
    params: Ints = 0
    conv_weights: Ints = 0
    activations: Ints = 0

    @property
    def macs(self) -> Ints:
        """``macs_conv + macs_avgpool``, as the published FBNet tables count."""
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
    """An op as the tables see it.

    Attributes:
        name: Its name in tables.
        keys: The keys its rows take beside stage, c, n and s.
        cost: Its formula.
        pools: Whether its output is 1 x 1 for every input, so that a stride has no meaning.
    """

    name: str
    keys: Mapping[str, Key]
    cost: CostFormula
    pools: bool = False


OP_COSTS: dict[str, OpSpec] = {}


def _declared(keys: Iterable[str] | Mapping[str, Any]) -> dict[str, Key]:
    """Makes the table of an op's keys from names of known keys, Keys or plain defaults."""
    given = dict(keys) if isinstance(keys, Mapping) else dict.fromkeys(keys)
    for name in given:
        if name in COMMON_KEYS or name in ("op", "options"):
            raise ArchError("every op has this key", key="keys", value=name)
        if given[name] is None and name not in OP_KEYS:
            allowed = f"{', '.join(OP_KEYS)}, or a mapping from your key to its default"
            raise ArchError("unknown key", key="keys", value=name, allowed=allowed)
    return {name: _key(name, value) for name, value in given.items()}


def _key(name: str, value: Any) -> Key:
    """Returns a declared Key: a known one, one as it is given, or that of a default."""
    if isinstance(value, Key):
        return value
    if value is None:
        return OP_KEYS[name]
    if name not in OP_KEYS:
        return key_of_default(value)
    known = dataclasses.replace(OP_KEYS[name], required=False)
    return dataclasses.replace(known, default=known.clean(name, value))


def register_cost(
    name: str, *, keys: Iterable[str] | Mapping[str, Any] = (), pools: bool = False
) -> Callable[[CostFormula], CostFormula]:
    """Registers the cost formula of an op, and with it the op.

    Args:
        name: The op's name in tables.
        keys: What its rows take beside ``stage, c, n, s``: names of known keys (``k``, ``e``,
            ``act``, ...), or a mapping from key to None (a known key), a default value or a
            :class:`~fbnetv3.arch.keys.Key`.
        pools: Whether the op's output is 1 x 1 for every input.

    Returns:
        A decorator for ``formula(layer, size) -> (Cost, output size)``. Sizes are sides in
        pixels. The formula must be plain arithmetic (``+ * //``, comparisons, numpy): numbers
        may be ints or int64 arrays. Repeats after the first must keep the size.

    Raises:
        ArchError: The name is taken, or a key is unknown.
    """
    if name in OP_COSTS:
        raise ArchError("this op is registered already", key="op", value=name)
    declared = _declared(keys)

    def register(formula: CostFormula) -> CostFormula:
        OP_COSTS[name] = OpSpec(name, declared, formula, pools)
        return formula

    return register


def get_op(name: Any) -> OpSpec:
    """Returns the op of that name.

    Raises:
        ArchError: There is none.
    """
    if isinstance(name, str) and name in OP_COSTS:
        return OP_COSTS[name]
    hint = did_you_mean(str(name), OP_COSTS)
    raise ArchError(f"unknown op{hint}", key="op", value=name, allowed=", ".join(OP_COSTS))


def conv_size(size: Ints, k: Ints, s: Ints, padding: Ints) -> Ints:
    """Returns the side of a conv's output."""
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
    """Returns the cost of a k x k conv whose output has side ``size``, with its batch norm."""
    weights = c_out * (c_in // groups) * k * k
    return Cost(
        macs_conv=weights * size * size,
        params=weights + c_out * (int(bias) + 2 * int(bn)),
        conv_weights=weights,
        activations=c_out * size * size,
    )


def pool_cost(c: Ints, size: Ints) -> Cost:
    """Returns the cost of a global average pool over a map of side ``size``."""
    return Cost(macs_avgpool=c * size * size)


def se_cost(c: Ints, squeezed: Ints, size: Ints) -> Cost:
    """Returns the cost of a squeeze-and-excitation: a pool and two 1x1 convs with bias."""
    down = conv_cost(c, squeezed, 1, bias=True)
    return pool_cost(c, size) + down + conv_cost(squeezed, c, 1, bias=True)


def head_cost(c: Ints, size: Ints, num_classes: Ints) -> Cost:
    """Returns the cost of the head: a global pool (also of a 1 x 1 map) and the classifier."""
    return pool_cost(c, size) + conv_cost(c, num_classes, 1, bias=True)


@register_cost("conv", keys={"k": None, "act": None, "conv_bias": True})
def conv(layer: Layer, size: Ints) -> tuple[Cost, Ints]:
    """Conv with bias, batch norm, activation."""
    out = conv_size(size, layer.k, layer.s, layer.padding)
    bias = layer.options["conv_bias"]
    return conv_cost(layer.c_in, layer.c_out, out, k=layer.k, bias=bias, bn=True), out


@register_cost(
    "mbconv",
    keys=("k", "e", "act", "se", "se_ratio", "dw_padding", "conv_bias", "pw_groups", "pwl_groups"),
)
def mbconv(layer: Layer, size: Ints) -> tuple[Cost, Ints]:
    """Inverted residual: expand (left out at mid = c_in), depthwise, SE, project."""
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
    """Identity; 1x1 conv, batch norm and activation where channels or stride change."""
    out = conv_size(size, 1, layer.s, 0)
    changes = np.logical_or(layer.s != 1, layer.c_in != layer.c_out)
    times = changes if isinstance(changes, np.ndarray) else bool(changes)
    bias = layer.options["conv_bias"]
    return conv_cost(layer.c_in, layer.c_out, out, bias=bias, bn=True) * times, out


@register_cost("mbpool", keys=("e", "act", "conv_bias"), pools=True)
def mbpool(layer: Layer, size: Ints) -> tuple[Cost, Ints]:
    """The efficient last stage of MobileNetV3: expand, global pool, 1x1 conv without BN."""
    mid, bias = layer.mid, layer.options["conv_bias"]
    expand = conv_cost(layer.c_in, mid, size, bias=bias, bn=True) * (mid != layer.c_in)
    return expand + pool_cost(mid, size) + conv_cost(mid, layer.c_out, 1, bias=bias), 1
