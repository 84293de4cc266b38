"""Costs of RetinaNets, compared with fvcore's counts on the detectors that are trained."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("detectron2")

from detectron2.data.transforms import ResizeShortestEdge
from fvcore.nn import FlopCountAnalysis

from fbnetv3.arch.latency import LatencyTable, MeasuredBlock
from fbnetv3.arch.retinanet_cost import input_size
from fbnetv3.benchmark.detectors import build_timed_detector, distinct_designs
from fbnetv3.detection.build import build_detector
from fbnetv3.resources import find_config
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.detector_costs import DetectorStatistics
from fbnetv3.search.fbnet.keys import get_search_cfg
from fbnetv3.search.fbnet.tasks import statistics_of
from fbnetv3.search.fbnet.trainings import winner_config

_CLASSES = ["red", "white", "platelet"]


def _setup(*opts: Any) -> SearchSetup:
    cfg = get_search_cfg()
    cfg.merge_from_file(str(find_config("search/retinanet_bccd.yaml")))
    cfg.merge_from_list(["SEARCH.FINAL_CLASSES", 3, *opts])
    return SearchSetup(cfg)


def _statistics(setup: SearchSetup) -> DetectorStatistics:
    statistics = statistics_of(setup)
    assert isinstance(statistics, DetectorStatistics)
    return statistics


class _Network(nn.Module):
    """A RetinaNet up to its scores and offsets, without anchors and decoding."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Any:
        features = self.detector.backbone(images)
        return self.detector.head([features[f] for f in self.detector.head_in_features])


def _counted(network: nn.Module, size: tuple[int, int]) -> int:
    """Returns fvcore's count of convs, linear layers and global pools, as Cost.macs counts."""
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    counts = FlopCountAnalysis(network, torch.zeros(1, 3, *size)).by_operator()
    return round(sum(counts[op] for op in ("conv", "linear", "adaptive_avg_pool2d")))


@pytest.mark.parametrize(
    ("seed", "opts"),
    [
        (0, []),
        (1, ["MODEL.FPN.NORM", "", "MODEL.RETINANET.NORM", "", "SEARCH.ASPECT_RATIO", 1.0]),
        (2, ["MODEL.FPN.NORM", "GN", "MODEL.RETINANET.NORM", "FrozenBN"]),
        (3, ["SEARCH.FINAL", ["INPUT.MIN_SIZE_TEST", 72], "MODEL.ARCH_NORM", "BN"]),
        (4, ["SEARCH.SPACE", "photos", "SEARCH.ASPECT_RATIO", 2.0]),
    ],
)
def test_costs_are_those_of_the_built_detector(seed: int, opts: list[Any], tmp_path: Path) -> None:
    setup = _setup(*opts)
    space, statistics = setup.space.space, _statistics(setup)
    levels = np.random.default_rng(seed).integers(0, space.sizes, (1, len(space)))
    (config,) = space.configs(space.canonical(levels))
    if "GN" in opts:
        config["fpn_channels"] = 64  # a multiple of the 32 groups
    cfg = winner_config(setup, config, tmp_path / "best")
    cfg.MODEL.ARCH = str(tmp_path / cfg.MODEL.ARCH)
    detector, _ = build_detector(cfg, _CLASSES, torch.device("cpu"))
    counted = _counted(_Network(detector.eval()), statistics.design(config)[3])
    costs = {name: int(values[0]) for name, values in statistics([config]).items()}
    assert costs["macs"] == counted
    assert costs["macs"] == sum(statistics.of_parts(config).values())
    assert costs["params"] == sum(p.numel() for p in detector.parameters())


def test_many_candidates_cost_what_each_costs_alone() -> None:
    setup = _setup("SEARCH.SPACE", "retinanet")
    space, statistics = setup.space.space, _statistics(setup)
    levels = space.canonical(np.random.default_rng(0).integers(0, space.sizes, (20, len(space))))
    together = statistics.of_columns(space.values_by_name(levels))
    for i, config in enumerate(space.configs(levels)):
        for name, values in statistics([config]).items():
            assert values[0] == together[name][i]


@pytest.mark.parametrize(("side", "ratio", "largest"), [(272, 4 / 3, 1333), (800, 2.0, 1333)])
def test_the_input_is_that_of_detectron2(side: int, ratio: float, largest: int) -> None:
    height, width = ResizeShortestEdge.get_output_shape(600, round(600 * ratio), side, largest)
    padded = tuple(-(-length // 32) * 32 for length in (height, width))
    assert input_size(side, ratio, largest) == padded


def test_a_fixed_backbone_is_priced_by_the_variables_of_the_head(tmp_path: Path) -> None:
    path = tmp_path / "head.yaml"
    path.write_text("detector:\n  fpn_channels: {range: [32, 64, 32]}\nrecipe: {lr: 0.01}\n")
    setup = _setup("SEARCH.SPACE", str(path), "SEARCH.FIX", [], "MODEL.ARCH", "fbnetv3_a0")
    macs = _statistics(setup)([{"fpn_channels": 32}, {"fpn_channels": 64}])["macs"]
    # the second is the whole of model_zoo/detection/retinanet_fbnetv3_a0_bccd.yaml at 160 px
    assert macs.tolist() == [195996160, 315243296]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"], "known for RetinaNet on build_retinanet"),
        (["MODEL.FPN.IN_FEATURES", ["c4", "c5"]], r"IN_FEATURES is \['c4', 'c5'\]; allowed"),
    ],
)
def test_other_detectors_have_no_costs(opts: list[Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        statistics_of(_setup(*opts))


def test_latencies_of_many_detectors_are_the_sums_of_their_parts(tmp_path: Path) -> None:
    """Every measured part has its measured latency, for each depth of the head."""
    setup = _setup("SEARCH.SPACE", "retinanet")
    space, statistics = setup.space.space, _statistics(setup)
    levels = space.canonical(np.random.default_rng(0).integers(0, space.sizes, (6, len(space))))
    configs = space.configs(levels)
    designs = distinct_designs(statistics, configs, 6)
    assert len(designs) == 6
    shapes = {shape for design in designs for shape in design.shapes}
    blocks = [MeasuredBlock(shape, 1.0 + i % 7) for i, shape in enumerate(sorted(shapes, key=repr))]
    LatencyTable(blocks, {"aspect_ratio": 1.3333333333}).save(tmp_path / "table.json")
    with_latency = _statistics(
        _setup("SEARCH.SPACE", "retinanet", "SEARCH.LATENCY_TABLE", str(tmp_path / "table.json"))
    )
    ms = {block.shape: block.ms for block in blocks}
    expected = [sum(ms[shape] for shape in design.shapes) for design in designs]
    assert with_latency(configs)["latency_ms"] == pytest.approx(expected)
    assert len({design.parts.convs for design in designs}) > 1


def test_the_timed_layers_of_a_detector_are_those_of_its_shapes() -> None:
    statistics = _statistics(_setup())
    space = _setup().space.space
    configs = space.configs(space.canonical(space.sizes[None] // 2))
    (design,) = distinct_designs(statistics, configs, 1)
    network = build_timed_detector(design, by_layer=True)
    assert len(network.layers) == len(design.shapes) - 1  # the frame is the rest of the time
    network.time_call(torch.zeros(1, 3, *network.image_size), lambda: 0.0)
    assert len(network.layer_times[0]) == len(design.shapes)
    convs = [layer for layer in network.layers if isinstance(layer, nn.Conv2d)][-8:]
    shapes = design.shapes[-9:-1]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in convs] == [
        (s.c_in, s.c_out, s.kind.k, s.kind.s) for s in shapes
    ]
