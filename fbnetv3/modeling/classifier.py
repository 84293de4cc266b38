"""A backbone with a classifier, and ``build_model`` which makes one by name."""

from __future__ import annotations

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
    """Global average pool, dropout, linear: (N, C, h, w) to logits (N, classes)."""

    def __init__(self, c_in: int, num_classes: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(c_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(F.adaptive_avg_pool2d(x, 1).flatten(1)))


class FBNetClassifier(nn.Module):
    """A network of the FBNet family.

    Args:
        arch: The table; its ``num_classes`` is the number of logits.
        drop_rate: Dropout before the classifier, in [0, 1).
        drop_path_rate: Stochastic depth of the last block, linear over depth, in [0, 1).

    Attributes:
        arch: The table it was built from.
        backbone: :class:`FBNetBackbone`.
        head: :class:`ClassifierHead`; its linear layer is ``head.fc``.
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
        """Pixels of input per pixel of each stage's output; None after a global pool."""
        return self.backbone.stage_strides

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps images (N, 3, H, W) to the last stage's output (N, C, h, w)."""
        return self.backbone(x)

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """Returns the output of every stage, in order."""
        return self.backbone.forward_stages(x)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N, 3, H, W) to logits (N, classes)."""
        return self.head(self.backbone(x))


def check_rate(key: str, value: float) -> None:
    """Raises an ArchError unless ``value`` is a rate in [0, 1)."""
    if not 0 <= value < 1:
        raise ArchError("not allowed", key=key, value=value, allowed="a number in [0, 1)")


def build_model(
    name_or_arch: str | Arch,
    num_classes: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Builds a classifier with fresh weights, in channels_last memory format and training mode.

    ``fbnetv3.build_model`` does the same and also loads weights of the zoo.

    Args:
        name_or_arch: An architecture, the name of one (``fbnetv3_a``), or a network of another
            library: ``torchvision/NAME``, ``timm/NAME`` (see ``arch/library_names.py``).
        num_classes: Number of logits, at least 1. None takes the architecture's own number, and
            1000 for a network of another library.
        drop_rate: Dropout rate before the classifier, in [0, 1). It replaces torchvision's own
            default as well: ``torchvision/alexnet`` has no dropout unless it is given.
        drop_path_rate: Stochastic depth of the last block, linear over depth, in [0, 1).

    Returns:
        An :class:`FBNetClassifier`, or the library's network.

    Raises:
        ArchError: An unknown name, or an argument outside of its range.
    """
    if isinstance(name_or_arch, str) and is_library_name(name_or_arch):
        count = imagenet.NUM_CLASSES if num_classes is None else num_classes
        return library_models.build(name_or_arch, count, drop_rate, drop_path_rate)
    arch = get_arch(name_or_arch) if isinstance(name_or_arch, str) else name_or_arch
    if num_classes is not None:
        arch = with_num_classes(arch, num_classes)
    model = FBNetClassifier(arch, drop_rate, drop_path_rate)
    return model.to(memory_format=torch.channels_last)


def reset_classifier(model: nn.Module, num_classes: int) -> nn.Module:
    """Gives a model a new, freshly initialised classifier, in place.

    Args:
        model: From :func:`build_model`.
        num_classes: Its outputs.

    Returns:
        The same model.

    Raises:
        ArchError: The model has no classifier known here.
    """
    if not isinstance(model, FBNetClassifier):
        return library_models.reset_classifier(model, num_classes)
    model.arch = with_num_classes(model.arch, num_classes)
    old = model.head.fc
    new = nn.Linear(old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype)
    init_weights(new)
    model.head.fc = new
    return model
