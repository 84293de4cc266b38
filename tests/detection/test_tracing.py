"""Backbones of detectors can be traced with torch's tools, and features taken."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import Conv2d
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from tests.export.detectors.conftest import make_detector
from tests.modeling.networks import images


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return make_detector(tmp_path_factory.mktemp("tiny")).model.backbone


def test_symbolic_trace_of_the_bottom_up_part(backbone: nn.Module) -> None:
    traced, x = torch.fx.symbolic_trace(backbone.bottom_up), images(2, 96)
    torch.testing.assert_close(traced(x), backbone.bottom_up(x), rtol=0, atol=0)


def test_features_of_the_bottom_up_part(backbone: nn.Module) -> None:
    bottom_up, x = backbone.bottom_up, images()
    last = f"stages.{len(bottom_up.stages) - 1}"
    features = create_feature_extractor(bottom_up, {last: "c5"})(x)
    assert torch.equal(features["c5"], bottom_up(x)["c5"])


def test_jit_trace_of_the_pyramid(backbone: nn.Module) -> None:
    traced = torch.jit.trace(backbone, images(), strict=False, check_trace=False)
    x = images(3, 96)
    torch.testing.assert_close(traced(x), backbone(x), rtol=0, atol=0)


def test_features_of_the_pyramid(backbone: nn.Module) -> None:
    """Detectron2's convolution branches on the size of its input, so it is kept as a whole."""
    nodes = {"top_block.p6": "p6", "fpn_output3": "p3"}
    traced = create_feature_extractor(backbone, nodes, tracer_kwargs={"leaf_modules": [Conv2d]})
    x = images(2, 96)
    features, levels = traced(x), backbone(x)
    assert torch.equal(features["p3"], levels["p3"])
    assert torch.equal(features["p6"], levels["p6"])
