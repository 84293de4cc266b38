"""The ops of the FBNet family as modules. Shapes are (N, C, H, W), memory channels_last."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from fbnetv3.arch import Layer
from fbnetv3.modeling.registry import register_module


class Hardswish(nn.Hardswish):
    """x * relu6(x + 3) / 6; in place where nothing is to be differentiated.

    Its gradient needs its input: in place, training would copy that first.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish(x, inplace=not x.requires_grad)


class SiLU(nn.SiLU):
    """x * sigmoid(x); in place as :class:`Hardswish`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x, inplace=not x.requires_grad)


# hsigmoid(x) = relu6(x + 3) / 6
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "hswish": Hardswish,
    "relu": partial(nn.ReLU, inplace=True),
    "relu6": partial(nn.ReLU6, inplace=True),
    "swish": SiLU,
}
GATES: dict[str, Callable[[], nn.Module]] = {"hsigmoid": nn.Hardsigmoid, "sigmoid": nn.Sigmoid}


class ConvBN(nn.Module):
    """Conv, batch norm, and if wanted an activation: (N, c_in, H, W) to (N, c_out, h, w)."""

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
    """1x1 conv of vectors, (N, c_in, 1, 1) to (N, c_out, 1, 1), as a linear layer computes it.

    On CPU that takes a quarter of conv's time, and less for the last layer of FBNetV3.
    """

    def __init__(self, c_in: int, c_out: int, bias: bool = True) -> None:
        super().__init__(c_in, c_out, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x.flatten(1), self.weight.flatten(1), self.bias)
        return y.unsqueeze(2).unsqueeze(3)


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from their means: (N, C, H, W) to the same."""

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
    """Mixes the channels of groups: (N, groups * C, H, W) to the same.

    Unlike ``nn.ChannelShuffle`` it keeps channels_last, and exports to ONNX.
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
    """The 1x1 conv to the middle channels; nothing where there are as many already."""
    if layer.mid == layer.c_in:
        return nn.Identity()
    bias = layer.options["conv_bias"]
    return ConvBN(layer.c_in, layer.mid, groups=groups, bias=bias, act=layer.act)


@register_module("conv")
class ConvBlock(ConvBN):
    """Conv with bias, batch norm, activation."""

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
    """Inverted residual with squeeze-and-excitation: expand, depthwise, SE, project, shortcut."""

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


def _squeeze_excite(layer: Layer) -> nn.Module:
    if layer.se is None or layer.act is None:
        return nn.Identity()
    return SqueezeExcite(layer.mid, layer.se_channels, layer.act, layer.se)


@register_module("skip")
class Skip(nn.Module):
    """Identity; 1x1 conv, batch norm and activation where channels or stride change."""

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
    """1x1 conv without batch norm, then an activation: (N, c_in, 1, 1) to (N, c_out, 1, 1)."""

    def __init__(self, c_in: int, c_out: int, bias: bool, act: str) -> None:
        super().__init__()
        self.conv = VectorConv2d(c_in, c_out, bias)
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


@register_module("mbpool")
class MBPool(nn.Module):
    """The efficient last stage of MobileNetV3: (N, c_in, H, W) to (N, c_out, 1, 1)."""

    def __init__(self, layer: Layer, drop_path: float = 0.0) -> None:
        super().__init__()
        self.pw = _expand(layer)
        bias, act = layer.options["conv_bias"], layer.act or "hswish"
        self.pwl = PointwiseAct(layer.mid, layer.c_out, bias, act)

    def forward(self, x: Tensor) -> Tensor:
        return self.pwl(F.adaptive_avg_pool2d(self.pw(x), 1))
