"""Costs of the detectors of a space: backbone, feature pyramid and head at the test resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fbnetv3.arch import Arch, Block
from fbnetv3.arch.latency import LatencyTable
from fbnetv3.arch.ops import Cost
from fbnetv3.arch.retinanet_cost import (
    RetinaNetParts,
    count_trunk,
    head_cost,
    input_size,
    neck_cost,
    trunk,
)
from fbnetv3.config import CfgNode
from fbnetv3.config.archs import arch_from_config
from fbnetv3.registries import COUNTED, LATENCY
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.detector_fields import FIELDS
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.search.fbnet.space_table import Ref, resolve

_STRIDES = (8, 16, 32)
_META, _BACKBONE = "RetinaNet", "build_retinanet_fbnet_fpn_backbone"


def has_known_costs(cfg: CfgNode) -> bool:
    """Returns whether the detector of a config is a RetinaNet on an FBNet."""
    model = cfg.MODEL
    return bool(model.META_ARCHITECTURE == _META and model.BACKBONE.NAME == _BACKBONE)


def detector_statistics(
    space: FBNetSpace,
    cfg: CfgNode,
    num_classes: int,
    aspect_ratio: float,
    latency: LatencyTable | None = None,
) -> DetectorStatistics | None:
    """Returns the function that computes the costs of a space's detectors.

    Args:
        space: Space of the candidates.
        cfg: Config with which winners are trained after the search (see :func:`final_training`); a
            candidate's values replace those of the keys that the space sets.
        num_classes: Number of classes of the data.
        aspect_ratio: Longer side of an image divided by its shorter side.
        latency: Measured latencies. If None, the statistic ``latency_ms`` is left out.

    Returns:
        The function. None if the space sets neither the architecture nor the resolution, and has no
        variable for the width of the pyramid or the depth of the head: all candidates then cost the
        same.

    Raises:
        SearchError: The function is needed, but the config's detector is no RetinaNet on an FBNet
            with a pyramid on C3 to C5 and a head on P3 to P7, or INPUT.MIN_SIZE_TEST is 0, so that
            its costs are unknown.
    """
    if not _has_costs(space):
        return None
    check_input_size(space, cfg)
    if not has_known_costs(cfg):
        raise SearchError(
            "the space sets the architecture or resolution of a detector, whose costs are known "
            f"for {_META} on {_BACKBONE} only, not for {cfg.MODEL.META_ARCHITECTURE} on "
            f"{cfg.MODEL.BACKBONE.NAME}: change MODEL.META_ARCHITECTURE or MODEL.BACKBONE.NAME, or "
            "search the recipe alone"
        )
    _check_features(cfg)
    return DetectorStatistics(space, cfg, num_classes, aspect_ratio, latency)


def _has_costs(space: FBNetSpace) -> bool:
    """Returns whether the costs of a space's detectors may differ."""
    parts = (space.detector.get(name) for name in ("fpn_channels", "head_convs"))
    has_variable = any(isinstance(part, Ref) for part in parts)
    return space.has_architecture or space.sets_resolution or has_variable


def check_input_size(space: FBNetSpace, cfg: CfgNode) -> None:
    """Checks that detectors resize their images, if their costs or sizes depend on it.

    Args:
        space: Space of the candidates.
        cfg: Config with which winners are trained (see :func:`final_training`). Candidates have the
            same INPUT.MIN_SIZE_TEST if the space sets the resolution (see :func:`check_final`).

    Raises:
        SearchError: INPUT.MIN_SIZE_TEST is 0, with which images keep their sizes, but the space
            sets the resolution, or the costs of its detectors may differ.
    """
    if cfg.INPUT.MIN_SIZE_TEST == 0 and _has_costs(space):
        reason = (
            "the space sets the resolution, to which all sizes of INPUT keep their ratio"
            if space.sets_resolution
            else "the costs of the space's detectors are those of an image of this size"
        )
        raise SearchError(
            f"INPUT.MIN_SIZE_TEST is 0 (images keep their sizes), but {reason}; give the length of "
            "the shorter side of resized images in pixels, such as 800"
        )


def _check_features(cfg: CfgNode) -> None:
    """Raises a SearchError unless the pyramid is built on C3 to C5, and the head on P3 to P7."""
    for key, value, allowed in (
        ("MODEL.FPN.IN_FEATURES", cfg.MODEL.FPN.IN_FEATURES, ["c3", "c4", "c5"]),
        (
            "MODEL.RETINANET.IN_FEATURES",
            cfg.MODEL.RETINANET.IN_FEATURES,
            [f"p{level}" for level in range(3, 8)],
        ),
    ):
        if list(value) != allowed:
            raise SearchError(f"{key} is {list(value)}; allowed in a search: {allowed}")


class DetectorStatistics:
    """Computes MACs, parameters, activations and latencies of many RetinaNets at once.

    Args:
        space: Space of the candidates. If it does not search the architecture
            (``has_architecture`` is False), all candidates have the backbone of ``cfg``.
        cfg: Config with which winners are trained after the search (see :func:`final_training`); a
            candidate's values replace those of the keys that the space sets.
        num_classes: Number of classes of the data.
        aspect_ratio: Longer side of an image divided by its shorter side.
        latency: Measured latencies. If None, the statistic ``latency_ms`` is left out.
    """

    def __init__(
        self,
        space: FBNetSpace,
        cfg: CfgNode,
        num_classes: int,
        aspect_ratio: float,
        latency: LatencyTable | None = None,
    ) -> None:
        self._space, self._cfg, self._classes = space, cfg, num_classes
        self._aspect_ratio, self._latency = aspect_ratio, latency
        arch = space.arch(_first(space)) if space.has_architecture else arch_from_config(cfg)
        assert isinstance(arch, Arch)
        self._arch, self._divisor = trunk(arch), arch.width_divisor
        kept = {block.stage for block in self._arch.blocks}
        # A backbone ends before the stage of the classifier, which `trunk` leaves out.
        self._classifier_stages = {block.stage for block in arch.blocks} - kept
        anchors = cfg.MODEL.ANCHOR_GENERATOR
        self._anchors = len(anchors.SIZES[0]) * len(anchors.ASPECT_RATIOS[0])

    def __call__(self, configs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Returns each statistic of a list of configs as an array of shape (candidates,)."""
        return self.of_columns(_columns(configs))

    def of_columns(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns each statistic of the candidates as an array of shape (candidates,).

        Args:
            columns: Array of values by variable, each of shape (candidates,).
        """
        size = len(next(iter(columns.values())))
        parts = self.costs(columns)
        totals = {name: sum(getattr(cost, name) for cost in parts.values()) for name in COUNTED}
        if self._latency is not None:
            totals[LATENCY] = self._latency.of_detectors(
                self.rows(columns, 0),
                self.input_size(columns)[0],
                self.widths(columns),
                self.parts(columns),
                self._divisor,
            )
        return {name: np.broadcast_to(value, size) for name, value in totals.items()}

    def of_parts(self, config: Mapping[str, Any]) -> dict[str, int]:
        """Returns the MACs of a candidate's backbone, neck (the feature pyramid) and head."""
        costs = self.costs(_columns([config]))
        return {name: int(np.max(cost.macs)) for name, cost in costs.items()}

    def design(
        self, config: Mapping[str, Any]
    ) -> tuple[Arch, tuple[int, ...], RetinaNetParts, tuple[int, int]]:
        """Returns what the cost of a candidate depends on.

        Returns:
            The backbone, the channels (c3, c4, c5) of its feature maps, the sizes of pyramid and
            head, and the (height, width) of the input in pixels.
        """
        columns: dict[str, Any] = dict(config)
        arch = trunk(self._space.arch(config)) if self._space.has_architecture else self._arch
        height, width = self.input_size(columns)
        widths = tuple(block.c for block in _last_blocks(arch))
        return arch, widths, self.parts(columns), (int(height), int(width))

    def costs(self, columns: Mapping[str, np.ndarray]) -> dict[str, Cost]:
        """Returns the costs of ``backbone``, ``neck`` and ``head``, in ints or arrays."""
        size, parts = self.input_size(columns), self.parts(columns)
        return {
            "backbone": self._backbone(columns, size),
            "neck": neck_cost(self.widths(columns), size, parts),
            "head": head_cost(size, parts),
        }

    def _backbone(self, columns: Mapping[str, np.ndarray], size: tuple[Any, Any]) -> Cost:
        """Returns the cost of the backbone, extrapolated from backbones with more layers.

        ``FBNetSpace.rows_of`` turns each row of the space into a row for its first layer and one
        for its other layers. A candidate with one layer would have a row of zero layers, which
        ``count_trunk`` does not accept. Since cost is linear in the number of layers n of each row,
        it is extrapolated: cost(n) = 2 cost(n + 1) - cost(n + 2).
        """
        one, two = (count_trunk(self.rows(columns, extra), size, self._divisor) for extra in (1, 2))
        return one * 2 + two * -1

    def rows(self, columns: Mapping[str, np.ndarray], extra: int) -> list[dict[str, Any]]:
        """Returns the rows of the backbone; see :meth:`FBNetSpace.rows_of` for ``extra``."""
        if not self._space.has_architecture:
            return [block.row() for block in self._arch.blocks]  # the same cost for any `extra`
        rows = self._space.rows_of(columns, extra)
        return [row for row in rows if row["stage"] not in self._classifier_stages]

    def widths(self, columns: Mapping[str, np.ndarray]) -> list[Any]:
        """Returns the channels of the feature maps of strides 8, 16 and 32."""
        stride, width_of = 1, {}
        for row in self.rows(columns, 0):
            stride *= row.get("s", 1)
            width_of[stride] = row["c"]
        return [width_of[s] for s in _STRIDES]

    def parts(self, columns: Mapping[str, np.ndarray]) -> RetinaNetParts:
        """Returns width, depth, norms, anchors and classes of pyramid and head."""
        model = self._cfg.MODEL
        return RetinaNetParts(
            channels=self._field("fpn_channels", columns, model.FPN.OUT_CHANNELS),
            convs=self._field("head_convs", columns, model.RETINANET.NUM_CONVS),
            anchors=self._anchors,
            classes=self._classes,
            fpn_norm=model.FPN.NORM,
            head_norm=model.RETINANET.NORM,
        )

    def input_size(self, columns: Mapping[str, np.ndarray]) -> tuple[Any, Any]:
        """Returns height and width of the input in pixels, each an int or (candidates,)."""
        side, largest = self._cfg.INPUT.MIN_SIZE_TEST, self._cfg.INPUT.MAX_SIZE_TEST
        if self._space.sets_resolution:
            given = resolve(self._space.resolution, columns)
            side, largest = given, np.round(np.asarray(given) * largest / side)
        return input_size(side, self._aspect_ratio, largest)

    def _field(self, name: str, columns: Mapping[str, np.ndarray], default: int) -> Any:
        return resolve(self._space.detector.get(name, default), columns)


def _first(space: FBNetSpace) -> dict[str, Any]:
    """Returns the candidate with the first level of every variable."""
    return space.space.configs(space.space.canonical((space.space.sizes * 0)[None]))[0]


def _last_blocks(arch: Arch) -> list[Block]:
    """Returns the last block of each of the strides 8, 16 and 32."""
    stride, last = 1, {}
    for block in arch.blocks:
        stride *= block.s
        last[stride] = block
    return [last[s] for s in _STRIDES]


def _columns(configs: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    names = configs[0] if configs else ()
    return {name: np.array([config[name] for config in configs]) for name in names}


def final_training(search_cfg: CfgNode, training_cfg: CfgNode) -> CfgNode:
    """Returns the config with which winners are trained after the search.

    Args:
        search_cfg: Config of the search; SEARCH.FINAL has pairs KEY, VALUE, which replace values of
            ``training_cfg``.
        training_cfg: Config of the candidates' trainings.

    Raises:
        ConfigError: SEARCH.FINAL has an unknown key, or a value of the wrong type.
    """
    cfg: CfgNode = training_cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(search_cfg.SEARCH.FINAL))
    cfg.freeze()
    return cfg


def check_final(space: FBNetSpace, final: Sequence[Any]) -> None:
    """Checks that SEARCH.FINAL does not set a resolution or detector field that the space sets.

    Args:
        space: Space of the search.
        final: SEARCH.FINAL: KEY, VALUE, ...

    Raises:
        SearchError: SEARCH.FINAL sets the key of such a field; the message names it.
    """
    searched = {FIELDS[name].key: f"detector {name}" for name in space.detector}
    if space.sets_resolution:
        searched["INPUT.MIN_SIZE_TEST"] = "resolution"
    for key in final[::2]:
        if key in searched:
            raise SearchError(
                f"SEARCH.FINAL sets {key}, which the space's {searched[key]} sets; remove one of "
                "the two"
            )
