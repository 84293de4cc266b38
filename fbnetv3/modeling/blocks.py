"""The built-in ops as modules. Tensors are (N, C, H, W) in channels_last memory format.

To add a built-in op, register its cost formula in ``arch/ops.py`` and its module here, and edit the
further places that CONTRIBUTING.md lists in the row "op"::

    @register_module("convbn")
    class ConvBNBlock(ConvBN):
        def __init__(self, layer: Layer, drop_path: float = 0.0) -> None:
            c_in, c_out, k, s = layer.c_in, layer.c_out, layer.k, layer.s
            super().__init__(c_in, c_out, k, s, layer.padding, act=layer.act)

Rows of architecture tables may then use it: ``{stage: 1, op: convbn, k: 3, c: 16}``. Code outside
of the package registers cost formula and module at once with ``fbnetv3.modeling.register_op``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from fbnetv3.arch import Layer
from fbnetv3.modeling.registry import register_module

# Activations are not in place, so that a network can be traced and its intermediate outputs can be
# kept; deploy() makes them in place. hswish(x) = x * relu6(x + 3) / 6
ACTIVATIONS: dict[str, type[nn.Hardswish | nn.ReLU | nn.ReLU6 | nn.SiLU]] = {
    "hswish": nn.Hardswish,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "swish": nn.SiLU,
}
# hsigmoid(x) = relu6(x + 3) / 6
GATES: dict[str, Callable[[], nn.Module]] = {"hsigmoid": nn.Hardsigmoid, "sigmoid": nn.Sigmoid}


class ConvBN(nn.Module):
    """Conv, batch norm and an optional activation: (N, c_in, H, W) to (N, c_out, h, w)."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        k: int = 1,
        s: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = False,
        act: str | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, k, s, padding, groups=groups, bias=bias)
        self.bn = nn.BatchNorm2d(c_out)
        self.act = nn.Identity() if act is None else ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class VectorConv2d(nn.Conv2d):
    """1x1 conv of (N, c_in, 1, 1) to (N, c_out, 1, 1), computed as a linear layer.

    On a CPU the linear layer takes at most a quarter of the time of the convolution. ONNX files
    contain the convolution instead: ONNX Runtime keeps its blocked layout of channels before and
    after a convolution, so that fbnetv3_b takes 0.9 times as long for one image as with linear
    layers.
    """

    def __init__(self, c_in: int, c_out: int, bias: bool = True) -> None:
        super().__init__(c_in, c_out, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            return super().forward(x)
        y = F.linear(x.flatten(1), self.weight.flatten(1), self.bias)
        return y.unsqueeze(2).unsqueeze(3)


class SqueezeExcite(nn.Module):
    """Scales channels by gates computed from all channels' means: (N, C, H, W) to (N, C, H, W)."""

    def __init__(self, c: int, squeezed: int, act: str, gate: str) -> None:
        super().__init__()
        self.reduce = VectorConv2d(c, squeezed)
        self.act = ACTIVATIONS[act]()
        self.expand = VectorConv2d(squeezed, c)
        self.gate = GATES[gate]()

    def forward(self, x: Tensor) -> Tensor:
        means = F.adaptive_avg_pool2d(x, 1)  # (N, C, 1, 1)
        return x * self.gate(self.expand(self.act(self.reduce(means))))


class ChannelShuffle(nn.Module):
    """Interleaves the channels of groups: (N, groups * C, H, W) to (N, groups * C, H, W).

    Unlike ``nn.ChannelShuffle`` it keeps the channels_last format and can be exported to ONNX.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        y = x.permute(0, 2, 3, 1).unflatten(3, (self.groups, -1))  # (N, H, W, groups, C)
        return y.transpose(3, 4).flatten(3).permute(0, 3, 1, 2)


def _drop(rate: float) -> nn.Module:
    return StochasticDepth(rate, mode="row") if rate > 0 else nn.Identity()


def _expand(layer: Layer, groups: int = 1) -> nn.Module:
    """Returns the 1x1 conv to the middle channels, or an identity if c_in already equals them."""
    if layer.mid == layer.c_in:
        return nn.Identity()
    bias = layer.options["conv_bias"]
    return ConvBN(layer.c_in, layer.mid, groups=groups, bias=bias, act=layer.act)


@register_module("conv")
class ConvBlock(ConvBN):
    """Conv, batch norm and an optional activation: (N, c_in, H, W) to (N, c_out, h, w)."""

    def __init__(self, layer: Layer, drop_path: float = 0.0) -> None:
        super().__init__(
            layer.c_in,
            layer.c_out,
            layer.k,
            layer.s,
            layer.padding,
            bias=layer.options["conv_bias"],
            act=layer.act,
        )


@register_module("mbconv")
class MBConv(nn.Module):
    """Inverted residual: (N, c_in, H, W) to (N, c_out, h, w).

    It consists of an expansion, a depthwise conv, an optional squeeze-and-excitation and a
    projection, with an identity shortcut at stride 1 if ``c_in`` equals ``c_out``. There is no
    expansion if it would not change the number of channels. If ``pw_groups`` is above 1, a channel
    shuffle precedes the depthwise conv.
    """

    def __init__(self, layer: Layer, drop_path: float = 0.0) -> None:
        super().__init__()
        options, mid = layer.options, layer.mid
        bias, pw_groups = options["conv_bias"], options["pw_groups"]
        self.pw = _expand(layer, pw_groups)
        self.shuffle = ChannelShuffle(pw_groups) if pw_groups > 1 else nn.Identity()
        self.dw = ConvBN(
            mid, mid, layer.k, layer.s, layer.padding, groups=mid, bias=bias, act=layer.act
        )
        self.se = _squeeze_excite(layer)
        self.pwl = ConvBN(mid, layer.c_out, groups=options["pwl_groups"], bias=bias)
        self.residual = layer.residual
        self.drop_path = _drop(drop_path if layer.residual else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pwl(self.se(self.dw(self.shuffle(self.pw(x)))))
        return self.drop_path(y) + x if self.residual else y

    def zero_init_last(self) -> None:
        """Makes a block with a shortcut start as the identity."""
        if self.residual:
            nn.init.zeros_(self.pwl.bn.weight)


def _squeeze_excite(layer: Layer) -> nn.Module:
    if layer.se is None or layer.act is None:
        return nn.Identity()
    act = layer.options.get("se_act") or layer.act
    return SqueezeExcite(layer.mid, layer.se_channels, act, layer.se)


class LayerScale(nn.Module):
    """Multiplies each channel by a learned factor: (N, C, H, W) to (N, C, H, W)."""

    def __init__(self, c: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((c,), float(initial)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.view(1, -1, 1, 1)


@register_module("uib")
class UniversalInvertedBottleneck(nn.Module):
    """Universal inverted bottleneck of MobileNetV4: (N, c_in, H, W) to (N, c_out, h, w).

    It consists of an optional depthwise conv without activation, an expansion, an optional
    depthwise conv and a projection, with an identity shortcut at stride 1 if ``c_in`` equals
    ``c_out``. The last of the depthwise convs has the stride.
    """

    def __init__(self, layer: Layer, drop_path: float = 0.0) -> None:
        super().__init__()
        options, c_in, mid = layer.options, layer.c_in, layer.mid
        k_start, k_mid, initial = options["k_start"], options["k_mid"], options["layer_scale"]
        s_start = 1 if k_mid else layer.s
        self.start = (
            ConvBN(c_in, c_in, k_start, s_start, k_start // 2, groups=c_in)
            if k_start
            else nn.Identity()
        )
        self.pw = ConvBN(c_in, mid, act=layer.act)
        self.dw = (
            ConvBN(mid, mid, k_mid, layer.s, k_mid // 2, groups=mid, act=layer.act)
            if k_mid
            else nn.Identity()
        )
        self.pwl = ConvBN(mid, layer.c_out)
        self.scale = nn.Identity() if initial is None else LayerScale(layer.c_out, initial)
        self.residual = layer.residual
        self.drop_path = _drop(drop_path if layer.residual else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.scale(self.pwl(self.dw(self.pw(self.start(x)))))
        return self.drop_path(y) + x if self.residual else y

    def zero_init_last(self) -> None:
        """Makes a block with a shortcut start as the identity, unless it has a layer scale.

        A small initial layer scale already makes a block start near the identity.
        """
        if self.residual and isinstance(self.scale, nn.Identity):
            nn.init.zeros_(self.pwl.bn.weight)


@register_module("fused")
class FusedMBConv(nn.Module):
    """Fused inverted residual: (N, c_in, H, W) to (N, c_out, h, w).

    It consists of a k x k conv to the middle channels, an optional squeeze-and-excitation and a
    projection. If there are as many middle channels as ``c_in``, there is no projection: the k x k
    conv has ``c_out`` channels and follows the squeeze-and-excitation (EfficientNetV2). There is an
    identity shortcut at stride 1 if ``c_in`` equals ``c_out``.
    """

    def __init__(self, layer: Layer, drop_path: float = 0.0) -> None:
        super().__init__()
        c_in, mid, c_out, k, s = layer.c_in, layer.mid, layer.c_out, layer.k, layer.s
        self.expands = mid != c_in
        self.conv = (
            ConvBN(c_in, mid, k, s, layer.padding, act=layer.act) if self.expands else nn.Identity()
        )
        self.se = _squeeze_excite(layer)
        self.pwl = (
            ConvBN(mid, c_out)
            if self.expands
            else ConvBN(c_in, c_out, k, s, layer.padding, act=layer.act)
        )
        self.residual = layer.residual
        self.drop_path = _drop(drop_path if layer.residual else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pwl(self.se(self.conv(x)))
        return self.drop_path(y) + x if self.residual else y

    def zero_init_last(self) -> None:
        """Makes a block with a shortcut and a projection start as the identity.

        A block without projection ends with an activation, which would pass no gradient at 0.
        """
        if self.residual and self.expands:
            nn.init.zeros_(self.pwl.bn.weight)


@register_module("skip")
class Skip(nn.Module):
    """Identity, or a 1x1 conv with batch norm and activation if channels or stride change."""

    def __init__(self, layer: Layer, drop_path: float = 0.0) -> None:
        super().__init__()
        bias = layer.options["conv_bias"]
        self.conv = (
            nn.Identity()
            if layer.residual
            else ConvBN(layer.c_in, layer.c_out, s=layer.s, bias=bias, act=layer.act)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class PointwiseAct(nn.Module):
    """1x1 conv, batch norm if ``bn``, activation: (N, c_in, 1, 1) to (N, c_out, 1, 1)."""

    def __init__(self, c_in: int, c_out: int, bias: bool, act: str, bn: bool = False) -> None:
        super().__init__()
        self.conv = VectorConv2d(c_in, c_out, bias)
        self.bn = nn.BatchNorm2d(c_out) if bn else nn.Identity()
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


@register_module("mbpool")
class MBPool(nn.Module):
    """MobileNetV3's efficient last stage: (N, c_in, H, W) to (N, c_out, 1, 1).

    It consists of an expansion, a global average pool, and a 1x1 conv with activation, which has a
    batch norm if the row sets ``pwl_bn`` (MobileNetV4). There is no expansion if it would not
    change the number of channels.
    """

    def __init__(self, layer: Layer, drop_path: float = 0.0) -> None:
        super().__init__()
        self.pw = _expand(layer)
        options, act = layer.options, layer.act or "hswish"
        bias, bn = options["conv_bias"], options.get("pwl_bn", False)
        self.pwl = PointwiseAct(layer.mid, layer.c_out, bias, act, bn)

    def forward(self, x: Tensor) -> Tensor:
        return self.pwl(F.adaptive_avg_pool2d(self.pw(x), 1))
