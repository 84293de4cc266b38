"""Classifiers, and ``build_model``, which builds one by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fbnetv3 import imagenet
from fbnetv3.arch import Arch, ArchError, get_arch
from fbnetv3.arch.library_names import is_library_name
from fbnetv3.arch.scaling import with_num_classes
from fbnetv3.modeling import library_models
from fbnetv3.modeling.backbone import FBNetBackbone
from fbnetv3.modeling.init import init_weights


class ClassifierHead(nn.Module):
    """Global average pool, dropout and a linear layer: (N, C, h, w) to logits (N, classes)."""

    def __init__(self, c_in: int, num_classes: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(c_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(F.adaptive_avg_pool2d(x, 1).flatten(1)))


class FBNetClassifier(nn.Module):
    """A classifier of the FBNet family, with freshly initialised weights.

    Args:
        arch: Table of the network. Its ``num_classes`` is the number of logits.
        drop_rate: Dropout rate before the linear layer, in [0, 1).
        drop_path_rate: Rate of stochastic depth of the last block, in [0, 1). The rate grows
            linearly over the blocks, from 0 at the first.

    Attributes:
        arch: Table that the network was built from.
        backbone: All stages, a :class:`FBNetBackbone`.
        head: Pooling and classifier, a :class:`ClassifierHead`. Its linear layer is ``head.fc``.

    Raises:
        ArchError: A rate is not in [0, 1).
    """

    def __init__(self, arch: Arch, drop_rate: float = 0.0, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        for key, value in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
            check_rate(key, value)
        self.arch = arch
        self.backbone = FBNetBackbone(arch, drop_path_rate)
        self.head = ClassifierHead(arch.blocks[-1].c, arch.num_classes, drop_rate)
        init_weights(self)

    @property
    def stage_channels(self) -> list[int]:
        """Output channels of each stage."""
        return self.backbone.stage_channels

    @property
    def stage_strides(self) -> list[int | None]:
        """Input pixels per output pixel along a side, by stage; None from a global pool on."""
        return self.backbone.stage_strides

    def forward_features(self, x: Tensor) -> Tensor:
        """Returns the last stage's output, (N, C, h, w), for images (N, 3, H, W)."""
        return self.backbone(x)

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """Returns the outputs of all stages, in order, for images (N, 3, H, W)."""
        return self.backbone.forward_stages(x)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits (N, classes) of images (N, 3, H, W)."""
        return self.head(self.backbone(x))


def check_rate(key: str, value: float) -> None:
    """Checks that a rate is in [0, 1).

    Raises:
        ArchError: The value is outside of this range.
    """
    if not 0 <= value < 1:
        raise ArchError("not allowed", key=key, value=value, allowed="a number in [0, 1)")


def as_arch(value: object) -> Arch:
    """Returns ``value`` if it is an architecture, or the architecture that a dict describes.

    Raises:
        ArchError: The value is neither, or the table is not valid.
    """
    if isinstance(value, Arch):
        return value
    if isinstance(value, Mapping):
        return Arch.from_dict(value)
    allowed = "a name, an Arch, or the table of one as a dict"
    raise ArchError("not an architecture", key="name_or_arch", value=value, allowed=allowed)


def build_model(
    name_or_arch: str | Arch | Mapping[str, Any],
    num_classes: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Builds a classifier with fresh weights, in channels_last memory format and training mode.

    ``fbnetv3.build_model`` does the same and also loads weights of the zoo.

    Args:
        name_or_arch: An architecture, its table as a dict, its name (``fbnetv3_a``), the path of
            its yaml file, or a network of another library, ``torchvision/NAME`` or ``timm/NAME``
            (see ``arch/library_names.py``).
        num_classes: Number of logits, at least 1. None uses the number of the architecture, or
            1000 for a network of another library.
        drop_rate: Dropout rate before the classifier, in [0, 1). It replaces the default rates of
            torchvision, so that ``torchvision/alexnet`` has no dropout unless a rate is given.
        drop_path_rate: Rate of stochastic depth of the last block, in [0, 1). The rate grows
            linearly over the blocks, from 0 at the first.

    Returns:
        An :class:`FBNetClassifier`, or the library's network.

    Raises:
        ArchError: The name is unknown, or an argument is outside of its range.
    """
    if isinstance(name_or_arch, str) and is_library_name(name_or_arch):
        count = imagenet.NUM_CLASSES if num_classes is None else num_classes
        return library_models.build(name_or_arch, count, drop_rate, drop_path_rate)
    arch = get_arch(name_or_arch) if isinstance(name_or_arch, str) else as_arch(name_or_arch)
    if num_classes is not None:
        arch = with_num_classes(arch, num_classes)
    model = FBNetClassifier(arch, drop_rate, drop_path_rate)
    return model.to(memory_format=torch.channels_last)


def reset_classifier(model: nn.Module, num_classes: int) -> nn.Module:
    """Replaces the classifier of a model, in place, by a freshly initialised one.

    Args:
        model: A model from :func:`build_model`.
        num_classes: Number of logits of the new classifier.

    Returns:
        The same model.

    Raises:
        ArchError: The model is an FBNetClassifier, and the number of classes is not allowed.
    """
    if not isinstance(model, FBNetClassifier):
        return library_models.reset_classifier(model, num_classes)
    model.arch = with_num_classes(model.arch, num_classes)
    fc = model.head.fc
    model.head.fc = nn.Linear(
        fc.in_features, num_classes, device=fc.weight.device, dtype=fc.weight.dtype
    )
    init_weights(model.head.fc)
    return model
