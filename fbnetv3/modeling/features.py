"""Feature maps of a network at several reductions, with the interface of timm's ``features_only``.

The reduction is the number of pixels of the image per pixel of the map, along a side. A level is
the last of the stages that have the same reduction. The stages from the first pooling op on, and
the stages of 1x1 convolutions right before them, belong to the head and are no levels. If there is
no pooling op, the stages of 1x1 convolutions at the end belong to the head.
``feature_info`` describes the levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fbnetv3.arch import Arch, ArchError
from fbnetv3.arch.ops import get_op
from fbnetv3.modeling.backbone import FBNetBackbone


def feature_levels(arch: Arch) -> list[dict[str, Any]]:
    """Returns the levels of a network, from the lowest reduction to the highest.

    Returns:
        For each level, timm's keys ``num_chs`` (channels), ``reduction`` (pixels of the image per
        pixel of the map, along a side), ``module`` (name of the stage) and ``index`` (of the
        level); also ``stage``, the number of the stage, and ``exact``: whether the side of the map
        is the side of the image divided by the reduction, whenever that is a whole number.
        A layer whose ``dw_padding`` is not half its kernel size, rounded down, makes the levels
        from its stage on inexact.
    """
    strides = arch.stage_strides[: _num_stages_of_maps(arch)]
    last = {stride: stage for stage, stride in enumerate(strides)}
    inexact = [layer.stage for layer in arch.layers() if not _is_exact(layer.options, layer.k)]
    return [
        {
            "num_chs": arch.stage_channels[stage],
            "reduction": reduction,
            "module": f"backbone.stages.{stage}",
            "index": index,
            "stage": stage,
            "exact": all(stage < first for first in inexact),
        }
        for index, (reduction, stage) in enumerate(last.items())
    ]


def _num_stages_of_maps(arch: Arch) -> int:
    """Returns the number of stages that are not part of the head."""
    count = sum(stride is not None for stride in arch.stage_strides)
    while count > 1 and all(
        get_op(layer.op).is_conv and layer.k == 1
        for layer in arch.layers()
        if layer.stage == count - 1
    ):
        count -= 1
    return count


def _is_exact(options: Any, kernel: int | None) -> bool:
    padding = options.get("dw_padding")
    return padding is None or kernel is None or padding == kernel // 2


class FeatureInfo:
    """The levels that a feature network returns, with the interface of timm's ``FeatureInfo``.

    Args:
        levels: All levels; see :func:`feature_levels`.
        out_indices: Indices of the returned levels.
    """

    def __init__(self, levels: Sequence[dict[str, Any]], out_indices: Sequence[int]) -> None:
        self.info, self.out_indices = list(levels), tuple(out_indices)

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> Any:
        """Returns the value of ``key`` for the returned levels, or for the levels ``idx``."""
        if isinstance(idx, int):
            return self.info[idx][key]
        return [self.info[i][key] for i in (self.out_indices if idx is None else idx)]

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Returns the channels of the returned levels, or of the levels ``idx``."""
        return self.get("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """Returns the reductions of the returned levels, or of the levels ``idx``."""
        return self.get("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """Returns the names of the stages of the returned levels, or of the levels ``idx``."""
        return self.get("module", idx)

    def get_dicts(
        self, keys: Sequence[str] | None = None, idx: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Returns the returned levels (or the levels ``idx``) as dicts, with all or some keys."""
        levels = [self.info[i] for i in (self.out_indices if idx is None else idx)]
        return levels if keys is None else [{k: level[k] for k in keys} for level in levels]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.info[index]

    def __len__(self) -> int:
        return len(self.info)


class FBNetFeatures(nn.Module):
    """The maps of some levels: images (N, in_channels, H, W) to a list of (N, C_i, H_i, W_i).

    Args:
        arch: Architecture of the network.
        backbone: Backbone of the network. Its stages behind the last returned level are deleted.
        out_indices: Indices of the levels, increasing; negative ones count from the last. None:
            all levels.

    Attributes:
        arch: Architecture of the network.
        feature_info: The levels, a :class:`FeatureInfo`.

    Raises:
        ArchError: An index has no level, the indices do not increase, or there are none.
    """

    def __init__(
        self, arch: Arch, backbone: FBNetBackbone, out_indices: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.arch = arch
        levels = feature_levels(arch)
        self.feature_info = FeatureInfo(levels, _indices(levels, out_indices))
        self._returned = frozenset(self.feature_info.get("stage"))
        self.backbone = backbone
        del backbone.stages[max(self._returned) + 1 :]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the maps of the levels ``out_indices``, in order."""
        maps = self.backbone.forward_stages(x)
        return [map for stage, map in enumerate(maps) if stage in self._returned]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Chooses whether layers compute their activations again in the backward pass."""
        self.backbone.grad_checkpointing = enable


def _indices(levels: Sequence[Any], out_indices: Sequence[int] | None) -> list[int]:
    count = len(levels)
    if out_indices is None:
        return list(range(count))
    indices = [i + count if isinstance(i, int) and i < 0 else i for i in out_indices]
    if not indices or indices != sorted({i for i in indices if i in range(count)}):
        raise ArchError(
            "not allowed",
            key="out_indices",
            value=tuple(out_indices),
            allowed=f"increasing numbers from {-count} to {count - 1}, one or more",
        )
    return indices
