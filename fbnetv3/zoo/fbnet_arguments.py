"""The arguments of ``build_model`` that only FBNets have, under timm's names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from torch import nn

from fbnetv3.arch import Arch, ArchError, get_arch, scaling
from fbnetv3.modeling import FBNetClassifier
from fbnetv3.modeling.features import FBNetFeatures


class FBNetKeywords(TypedDict, total=False):
    """Types of the keywords; :class:`FBNetArguments` describes them."""

    in_chans: int
    global_pool: str
    features_only: bool
    out_indices: Sequence[int] | None
    aligned: bool


@dataclass(frozen=True)
class FBNetArguments:
    """Input, head and output of an FBNet.

    Attributes:
        in_chans: Number of channels of the images. The first convolution of weights for RGB images
            is adapted as timm does (``modeling/input_channels.py``).
        global_pool: Global pool before the classifier: ``avg``, ``max``, ``avgmax`` (their mean),
            or "" for none, which needs ``num_classes=0``.
        features_only: Whether to return the network of feature maps, :class:`FBNetFeatures`.
        out_indices: Increasing indices of the feature maps to return; None: all of them. The
            network has one map for each reduction (ratio of the side of the image to that of the
            map).
        aligned: Whether to use the variant whose feature maps have exactly 1/reduction of the side
            of the image, if that side is a multiple of the reduction. The same weights fit.

    Raises:
        ArchError: ``out_indices`` is given without ``features_only``.
    """

    in_chans: int = 3
    global_pool: str = "avg"
    features_only: bool = False
    out_indices: Sequence[int] | None = None
    aligned: bool = False

    def __post_init__(self) -> None:
        if self.out_indices is not None and not self.features_only:
            value = tuple(self.out_indices)
            raise ArchError("needs features_only=True", key="out_indices", value=value)

    def given(self) -> list[str]:
        """Returns the names of the arguments that do not have their defaults."""
        default = FBNetArguments()
        return [key for key, value in vars(self).items() if value != getattr(default, key)]

    def variant(self, arch: str | Arch) -> str | Arch:
        """Returns the aligned variant of an architecture if ``aligned``, else the architecture."""
        if not self.aligned:
            return arch
        return scaling.aligned(get_arch(arch) if isinstance(arch, str) else arch)

    def of_fresh_networks(self) -> dict[str, Any]:
        """Returns the arguments of ``modeling.build_model`` for a network without weights.

        ``in_chans`` 3, the default here, becomes None, which keeps the architecture's number.
        """
        in_chans = None if self.in_chans == 3 else self.in_chans
        return {"in_chans": in_chans, "global_pool": self.global_pool}

    def change(self, model: nn.Module, num_classes: int | None) -> None:
        """Changes the input and the head of a network with loaded weights, in place.

        Args:
            model: The network.
            num_classes: 0: the classifier is removed; any other value keeps it.
        """
        assert isinstance(model, FBNetClassifier), "only FBNets have weights in the zoo"
        if num_classes == 0:
            model.reset_classifier(0, self.global_pool)
        else:
            model.head.set_pool(self.global_pool)
        model.change_input_channels(self.in_chans)

    def output(self, model: nn.Module) -> nn.Module:
        """Returns the network of feature maps if ``features_only``, else the network itself."""
        if not self.features_only or not isinstance(model, FBNetClassifier):
            return model
        return FBNetFeatures(model.arch, model.backbone, self.out_indices).train(model.training)
