"""Backbones of detectors can be traced with torch's tools, and features taken."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from detectron2.layers import Conv2d
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from fbnetv3.config import get_cfg
from fbnetv3.detection.build import build_detector
from fbnetv3.resources import find_config
from tests.detection.conftest import ARCH
from tests.export.detectors.conftest import make_detector
from tests.modeling.networks import images, with_random_statistics


def _retinanet(folder: Path) -> nn.Module:
    return make_detector(folder).model


def _faster_rcnn(folder: Path) -> nn.Module:
    (folder / "tiny.yaml").write_text(ARCH)
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config("detection/faster_rcnn_fbnetv3_g_FPN.yaml")))
    values = ["MODEL.ARCH", str(folder / "tiny.yaml"), "MODEL.WEIGHTS", ""]
    cfg.merge_from_list([*values, "MODEL.FPN.OUT_CHANNELS", 16])
    torch.manual_seed(0)
    model, _ = build_detector(cfg, ["square", "disc"], torch.device("cpu"))
    return with_random_statistics(model).eval()


DETECTORS = {"RetinaNet": _retinanet, "Faster R-CNN": _faster_rcnn}


@pytest.fixture(scope="module", params=DETECTORS.values(), ids=DETECTORS.keys())
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return request.param(tmp_path_factory.mktemp("tiny")).backbone


@torch.no_grad()  # with gradients, frozen batch norms compute the same in another order
def test_symbolic_trace_of_the_bottom_up_part(backbone: nn.Module) -> None:
    traced, x = torch.fx.symbolic_trace(backbone.bottom_up), images(2, 96)
    torch.testing.assert_close(traced(x), backbone.bottom_up(x), rtol=0, atol=0)


@torch.no_grad()
def test_features_of_the_bottom_up_part(backbone: nn.Module) -> None:
    bottom_up, x = backbone.bottom_up, images()
    last = f"stages.{len(bottom_up.stages) - 1}"
    features = create_feature_extractor(bottom_up, {last: "c5"})(x)
    assert torch.equal(features["c5"], bottom_up(x)["c5"])


def test_jit_trace_of_the_pyramid(backbone: nn.Module) -> None:
    traced = torch.jit.trace(backbone, images(), strict=False, check_trace=False)
    x = images(3, 96)
    torch.testing.assert_close(traced(x), backbone(x), rtol=0, atol=0)


@torch.no_grad()
def test_features_of_the_pyramid(backbone: nn.Module) -> None:
    """Detectron2's convolution branches on the size of its input, so it is kept as a whole."""
    nodes = {"fpn_output3": "p3", "fpn_output5": "p5"}
    traced = create_feature_extractor(backbone, nodes, tracer_kwargs={"leaf_modules": [Conv2d]})
    x = images(2, 96)
    features, levels = traced(x), backbone(x)
    assert torch.equal(features["p3"], levels["p3"])
    assert torch.equal(features["p5"], levels["p5"])


def test_export_of_the_pyramid_for_images_of_any_size(backbone: nn.Module) -> None:
    """Sides are multiples of the divisor, to which detectors pad their images.

    With the channels last, torch's guards would compare the sides of the smallest level; if that
    has one row or column, they keep it so.
    """
    model = copy.deepcopy(backbone).to(memory_format=torch.contiguous_format)
    divisor = model.size_divisibility
    sides = {2: divisor * torch.export.Dim("h"), 3: divisor * torch.export.Dim("w")}
    example = images(2, 9 * divisor)[:, :, : 8 * divisor]
    shapes = ({0: torch.export.Dim("n"), **sides},)
    exported = torch.export.export(model, (example,), dynamic_shapes=shapes).module()
    for x in (images(1, 7 * divisor), images(3, 6 * divisor)[:, :, : 5 * divisor]):
        torch.testing.assert_close(exported(x), model(x), rtol=0, atol=0)
