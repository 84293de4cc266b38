"""``deploy(detector)`` gives the same boxes, and refuses at once what it cannot convert."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from fbnetv3.detection.detector import DeployedDetector
from fbnetv3.modeling import deploy
from fbnetv3.modeling.deploy import DeployError
from tests.export.detectors.conftest import make_detector


@pytest.mark.parametrize("freeze_at", [0, 2, 5])
def test_a_deployed_detector_gives_the_same_boxes(freeze_at: int, tmp_path: Path) -> None:
    detector = make_detector(tmp_path, MODEL__BACKBONE__FREEZE_AT=freeze_at)
    deployed = deploy(detector)
    assert isinstance(deployed, DeployedDetector)
    # convolutions of detectron2 call their batch norms themselves: those of pyramid and heads stay
    before, after = (d.model.backbone.bottom_up.state_dict() for d in (detector, deployed))
    assert any("running_mean" in key for key in before)
    assert not any("running_mean" in key for key in after)
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    for _ in range(2):
        (expected,), (actual,) = detector([image]), deployed([image])
        assert len(expected["boxes"]) > 10
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)
    with pytest.raises(DeployError, match="a deployed detector cannot be trained"):
        deployed.train()
    with pytest.raises(DeployError, match="the detector is already deployed"):
        deploy(deployed)
    with pytest.raises(DeployError, match="a detector cannot be compiled; leave out compile"):
        deploy(detector, compile=True)


def test_networks_of_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"RetinaNet takes lists of images .*detector_from_file"):
        deploy(make_detector(tmp_path).model)
    other = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    with pytest.raises(DeployError, match="SSD takes lists of images"):
        deploy(other)
