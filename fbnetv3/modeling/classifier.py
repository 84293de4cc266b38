"""Classifiers, and ``build_model``, which builds one by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fbnetv3 import imagenet
from fbnetv3.arch import Arch, ArchError, get_arch
from fbnetv3.arch.library_names import is_library_name
from fbnetv3.arch.scaling import with_num_classes
from fbnetv3.modeling import library_models
from fbnetv3.modeling.backbone import FBNetBackbone
from fbnetv3.modeling.features import feature_levels
from fbnetv3.modeling.head import ClassifierHead
from fbnetv3.modeling.init import init_weights
from fbnetv3.modeling.input_channels import change_input_channels


class FBNetClassifier(nn.Module):
    """A classifier of the FBNet family, with freshly initialised weights.

    Args:
        arch: Table of the network. Its ``num_classes`` is the number of logits; 0: there is no
            classifier, and the output is the pooled features.
        drop_rate: Dropout rate before the linear layer, in [0, 1).
        drop_path_rate: Rate of stochastic depth of the last block, in [0, 1). The rate grows
            linearly over the blocks, from 0 at the first.
        global_pool: Global pool before the classifier: ``avg``, ``max``, ``avgmax`` (their mean),
            or "" for none, which needs ``num_classes`` 0.

    Attributes:
        arch: Table that the network was built from.
        backbone: All stages, a :class:`FBNetBackbone`.
        head: Pooling and classifier, a :class:`ClassifierHead`. Its linear layer is ``head.fc``.
        num_features: Number of pooled features, the input of the classifier.
        feature_info: A dict per level of feature maps; see ``feature_levels`` in ``features.py``.

    Raises:
        ArchError: A rate is not in [0, 1), or the pool is not allowed.
    """

    def __init__(
        self,
        arch: Arch,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        for key, value in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
            check_rate(key, value)
        self.arch = arch
        self.backbone = FBNetBackbone(arch, drop_path_rate)
        self.num_features = arch.blocks[-1].c
        self.head = ClassifierHead(self.num_features, arch.num_classes, drop_rate, global_pool)
        self.feature_info = feature_levels(arch)
        init_weights(self)

    @property
    def num_classes(self) -> int:
        """Number of logits; 0 if there is no classifier."""
        return self.arch.num_classes

    @property
    def stage_channels(self) -> list[int]:
        """Output channels of each stage."""
        return self.backbone.stage_channels

    @property
    def stage_strides(self) -> list[int | None]:
        """Input pixels per output pixel along a side, by stage; None from a global pool on."""
        return self.backbone.stage_strides

    def forward_features(self, x: Tensor) -> Tensor:
        """Returns the last stage's output, (N, C, h, w), for images (N, in_channels, H, W)."""
        return self.backbone(x)

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """Returns the outputs of all stages, in order, for images (N, in_channels, H, W)."""
        return self.backbone.forward_stages(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Returns the logits of the last stage's output; its pooled features if ``pre_logits``."""
        return self.head(x, pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits (N, classes) of images (N, in_channels, H, W)."""
        return self.head(self.backbone(x))

    def get_classifier(self) -> nn.Module:
        """Returns the layer that computes the logits; an identity if there is none."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the classifier by a freshly initialised one.

        Args:
            num_classes: Number of logits; 0: none, the output is the pooled features.
            global_pool: Global pool; None keeps it.

        Raises:
            ArchError: The number of classes or the pool is not allowed.
        """
        arch = with_num_classes(self.arch, num_classes)
        parameter = next(self.backbone.parameters())
        rate, pool = self.head.dropout.p, self.head.global_pool
        pool = pool if global_pool is None else global_pool
        head = ClassifierHead(self.num_features, num_classes, rate, pool)
        init_weights(head)
        self.arch, self.head = arch, head.to(parameter).train(self.training)

    def change_input_channels(self, in_channels: int) -> None:
        """Adapts the first convolution to images with another number of channels, as timm does.

        Raises:
            ArchError: The number is not at least 1, or the first convolution has several groups.
        """
        arch = self.arch.replace(in_channels=in_channels)
        change_input_channels(self, in_channels)
        self.arch = arch

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Chooses whether layers compute their activations again in the backward pass."""
        self.backbone.grad_checkpointing = enable


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


def refuse_for_libraries(name: str, given: Sequence[str]) -> None:
    """Refuses arguments that only FBNets have, for a network of another library.

    Args:
        name: Name of the network.
        given: Names of the arguments that were given.

    Raises:
        ArchError: ``given`` is not empty.
    """
    if given:
        raise ArchError(
            f"{name}: {', '.join(given)} can be given for FBNets only; for timm's networks, give "
            "arguments in the name, such as timm/resnet18?in_chans=1"
        )


def build_model(
    name_or_arch: str | Arch | Mapping[str, Any],
    num_classes: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    *,
    in_chans: int | None = None,
    global_pool: str = "avg",
) -> nn.Module:
    """Builds a classifier with fresh weights, in channels_last memory format and training mode.

    ``fbnetv3.build_model`` does the same and also loads weights of the zoo.

    Args:
        name_or_arch: An architecture, its table as a dict, its name (``fbnetv3_a``) or yaml file;
            ``torchvision/NAME``, ``timm/NAME`` or a registered network (``arch/library_names.py``).
        num_classes: Number of logits; 0: the output is the pooled features. None: as in the
            architecture, 1000 for a network of another library.
        drop_rate: Dropout rate before the classifier, in [0, 1). This rate replaces torchvision's
            default, so that ``torchvision/alexnet`` has no dropout unless a rate is given.
        drop_path_rate: Stochastic-depth rate of the last block, in [0, 1); the rates rise from 0.
        in_chans: Number of channels of an FBNet's images; None: as in the architecture.
        global_pool: Global pool of an FBNet, see :class:`FBNetClassifier`.

    Returns:
        An :class:`FBNetClassifier`, or the library's network.

    Raises:
        ArchError: The name is unknown, or the table or an argument is not allowed.
    """
    if isinstance(name_or_arch, str) and is_library_name(name_or_arch):
        count = imagenet.NUM_CLASSES if num_classes is None else num_classes
        if in_chans not in (None, 3) or global_pool != "avg":
            refuse_for_libraries(name_or_arch, ["in_chans or global_pool"])
        return library_models.build(name_or_arch, count, drop_rate, drop_path_rate)
    arch = get_arch(name_or_arch) if isinstance(name_or_arch, str) else as_arch(name_or_arch)
    changes = {"num_classes": num_classes, "in_channels": in_chans}
    arch = arch.replace(**{key: value for key, value in changes.items() if value is not None})
    model = FBNetClassifier(arch, drop_rate, drop_path_rate, global_pool)
    return model.to(memory_format=torch.channels_last)


def reset_classifier(model: nn.Module, num_classes: int) -> nn.Module:
    """Replaces the classifier of a model, in place, by a freshly initialised one.

    For networks of libraries, the last linear or convolutional layer counts as the classifier.

    Args:
        model: A model from :func:`build_model`.
        num_classes: Number of logits of the new classifier; 0 removes the classifier of FBNets and
            of timm's networks.

    Returns:
        The same model.

    Raises:
        ArchError: The number of classes is not allowed, or is 0 although the network of a library
            needs a classifier.
    """
    if not isinstance(model, FBNetClassifier):
        return library_models.reset_classifier(model, num_classes)
    model.reset_classifier(num_classes)
    return model
