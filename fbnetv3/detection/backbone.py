"""FBNets as detectron2 backbones: feature maps of strides 4 to 32, with or without FPN.

A config selects the backbone by MODEL.BACKBONE.NAME and its network by MODEL.ARCH, WIDTH, DEPTH and
DROP_PATH_RATE. MODEL.ARCH_NORM and MODEL.BACKBONE.FREEZE_AT select the parts that are frozen.
"""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor, fx, nn
from torch.nn import functional as F

from fbnetv3.arch import Arch
from fbnetv3.arch.retinanet_cost import trunk
from fbnetv3.arch.scaling import aligned
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.config.archs import arch_from_config
from fbnetv3.detection.detectron2_parts import (
    BACKBONE_REGISTRY,
    FPN,
    Backbone,
    FrozenBatchNorm2d,
    LastLevelMaxPool,
    LastLevelP6P7,
    ShapeSpec,
)
from fbnetv3.modeling import FBNetBackbone
from fbnetv3.modeling.init import init_weights

NORMS = ("BN", "FrozenBN")
"""Allowed values of MODEL.ARCH_NORM."""
_STRIDES = (4, 8, 16, 32)  # strides of the feature maps that a detector needs


class TraceableFrozenBatchNorm2d(FrozenBatchNorm2d):
    """A frozen batch norm that ``torch.fx`` can trace.

    detectron2's cannot be traced, since it asks whether x needs gradients.
    """

    def forward(self, x: Tensor | fx.Proxy) -> Tensor:
        """Returns the normalised feature map, of the shape of x (N, C, H, W)."""
        if not isinstance(x, fx.Proxy):
            return cast(Tensor, super().forward(x))
        traced = cast(Tensor, x)  # torch's functions accept and return proxies
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(traced, mean, var, self.weight, self.bias, eps=self.eps)


class FBNetBottomUp(Backbone):
    """The stages of an FBNet as the bottom-up part of a detector.

    Feature maps are numbered by log2 of their stride, as in the paper on feature pyramids: ``c2``
    (stride 4) to ``c5`` (stride 32). Of several stages with the same stride, the last one is used.

    Args:
        arch: An aligned architecture (see arch/scaling.py): its feature maps differ in size by a
            factor of exactly 2.
        drop_path_rate: Probability that stochastic depth drops the residual branch of the last
            block, in [0, 1).
        norm: ``BN``, or ``FrozenBN`` for batch norms with the constant statistics of the loaded
            weights.
        freeze_at: Exponent of the largest frozen stride: all stages up to stride
            ``2 ** freeze_at`` are frozen, including their batch norms. 0 freezes nothing.

    Raises:
        ConfigError: The architecture is not aligned or lacks a stride, or a value is not allowed.
    """

    def __init__(
        self, arch: Arch, drop_path_rate: float = 0.0, norm: str = "BN", freeze_at: int = 0
    ) -> None:
        super().__init__()
        _check(arch, norm, freeze_at)
        self.arch = trunk(arch)
        body = FBNetBackbone(self.arch, drop_path_rate)
        init_weights(body)
        self.stages = body.stages
        # After a global pool the stride is None.
        strides = [stride or 0 for stride in body.stage_strides]
        self._stage_of = {f"c{int(math.log2(s))}": i for i, s in enumerate(strides) if s >= 4}
        self._out_features = list(self._stage_of)
        self._out_feature_strides = {f: strides[i] for f, i in self._stage_of.items()}
        channels = body.stage_channels
        self._out_feature_channels = {f: channels[i] for f, i in self._stage_of.items()}
        if norm == "FrozenBN":
            TraceableFrozenBatchNorm2d.convert_frozen_batchnorm(self)
        for stage, stride in zip(self.stages, strides, strict=True):
            if stride <= 2**freeze_at and freeze_at:
                _freeze(stage)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Returns the feature maps of images (N, 3, H, W), whose sides are multiples of 32.

        Returns:
            A mapping ``{"c2": (N, C, H/4, W/4), ..., "c5": (N, C, H/32, W/32)}``.
        """
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return {name: outputs[i] for name, i in self._stage_of.items()}

    @property
    def size_divisibility(self) -> int:
        """The largest stride; sides of inputs must be multiples of it."""
        return max(self._out_feature_strides.values())


def _freeze(stage: nn.Module) -> None:
    for parameter in stage.parameters():
        parameter.requires_grad = False
    TraceableFrozenBatchNorm2d.convert_frozen_batchnorm(stage)


def _check(arch: Arch, norm: str, freeze_at: int) -> None:
    if aligned(arch).blocks != arch.blocks:
        raise ConfigError(
            f"{arch.name} has paddings other than k // 2, so the sizes of its feature maps do not "
            "differ by a factor of exactly 2, as feature pyramids require; set MODEL.ARCH_VARIANT "
            "aligned (the same weights fit)"
        )
    if missing := [s for s in _STRIDES if s not in trunk(arch).stage_strides]:
        raise ConfigError(
            f"{arch.name} has no feature map of stride {missing[0]}; a detector needs strides "
            f"{', '.join(map(str, _STRIDES))}: use an architecture for larger images, and not its "
            "low_resolution variant"
        )
    if norm not in NORMS:
        raise ConfigError(
            f"MODEL.ARCH_NORM is {norm!r}; allowed: {', '.join(NORMS)} (for synchronised batch "
            "norm, use BN and MODEL.SYNC_BN True)"
        )
    if not 0 <= freeze_at <= 5:
        raise ConfigError(
            f"MODEL.BACKBONE.FREEZE_AT={freeze_at} is out of range; allowed: 0 (nothing) to 5 (all)"
        )


def bottom_up_from_config(cfg: CfgNode) -> FBNetBottomUp:
    """Returns the bottom-up part that a config describes.

    Raises:
        ConfigError: MODEL.ARCH is not an FBNet in its aligned variant, or the architecture does
            not fit :class:`FBNetBottomUp`.
    """
    rate, norm = cfg.MODEL.DROP_PATH_RATE, cfg.MODEL.ARCH_NORM
    return FBNetBottomUp(table_from_config(cfg), rate, norm, cfg.MODEL.BACKBONE.FREEZE_AT)


def table_from_config(cfg: CfgNode) -> Arch:
    """Returns the architecture of the classifier whose first stages are the bottom-up part.

    Raises:
        ConfigError: MODEL.ARCH is not an FBNet, or MODEL.ARCH_VARIANT is not aligned.
    """
    if cfg.MODEL.ARCH_VARIANT != "aligned":
        raise ConfigError(
            f"MODEL.ARCH_VARIANT is {cfg.MODEL.ARCH_VARIANT!r}; allowed for a detector: 'aligned', "
            "since feature pyramids require feature maps whose sizes differ by a factor of "
            "exactly 2 (the same weights fit)"
        )
    arch = arch_from_config(cfg)
    if not isinstance(arch, Arch):
        raise ConfigError(
            f"MODEL.ARCH {arch} is not an FBNet; for a ResNet, use a backbone of detectron2"
        )
    return arch


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_fbnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Returns the bottom-up part alone, with the feature maps c2 to c5."""
    return bottom_up_from_config(cfg)


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_fbnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Returns an FBNet with a feature pyramid, for R-CNNs.

    With c2 to c5 in MODEL.FPN.IN_FEATURES, the pyramid has the levels p2 to p6.
    """
    return _with_fpn(cfg, bottom_up_from_config(cfg), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_retinanet_fbnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Returns an FBNet with a feature pyramid, for RetinaNet.

    With c3 to c5 in MODEL.FPN.IN_FEATURES, the pyramid has the levels p3 to p7; p6 is computed
    from c5.
    """
    bottom_up = bottom_up_from_config(cfg)
    channels = bottom_up.output_shape()["c5"].channels
    return _with_fpn(cfg, bottom_up, LastLevelP6P7(channels, cfg.MODEL.FPN.OUT_CHANNELS, "c5"))


def _with_fpn(cfg: CfgNode, bottom_up: FBNetBottomUp, top: nn.Module) -> Backbone:
    fpn, known = cfg.MODEL.FPN, bottom_up.output_shape()
    if not fpn.IN_FEATURES or any(name not in known for name in fpn.IN_FEATURES):
        raise ConfigError(
            f"MODEL.FPN.IN_FEATURES is {fpn.IN_FEATURES}; allowed for {bottom_up.arch.name}: one "
            f"or more of {', '.join(known)}"
        )
    return FPN(bottom_up, fpn.IN_FEATURES, fpn.OUT_CHANNELS, fpn.NORM, top, fpn.FUSE_TYPE)
