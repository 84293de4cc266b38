"""Detectors whose weights have the data's classes in another order, or other classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.detection.build import build_detector
from fbnetv3.detection.class_layers import reorder_detector
from fbnetv3.detection.weights import load_detector_weights
from fbnetv3.resources import find_config
from fbnetv3.weights.errors import LoadError

Make = Callable[..., CfgNode]
CPU = torch.device("cpu")
SAVED, DATA, ORDER = ["c", "a", "b"], ["a", "b", "c"], [1, 2, 0]


def _save(state: dict[str, torch.Tensor], path: Path) -> str:
    tensors = {key: value.contiguous() for key, value in state.items()}
    save_file(tensors, path, {"task": "detection", "classes": json.dumps(SAVED)})
    return str(path)


@pytest.mark.parametrize("training", [True, False])
def test_a_retinanet_keeps_its_boxes(tiny: Make, tmp_path: Path, training: bool) -> None:
    source, full = build_detector(tiny(), SAVED, CPU)
    path = _save(source.state_dict(), tmp_path / "w.safetensors")
    target, _ = build_detector(tiny(), DATA, CPU)
    summary = load_detector_weights(target, path, full, classes=DATA, training=training)
    assert summary.reordered
    assert not summary.fresh
    features = [torch.rand(1, 16, 8, 8) for _ in range(5)]
    (before, *_), (boxes, *_) = source.head(features)
    (after, *_), (same_boxes, *_) = target.head(features)
    split = before.unflatten(1, (-1, 3))  # anchors, classes
    assert torch.equal(after.unflatten(1, (-1, 3)), split[:, :, ORDER])
    assert torch.equal(boxes, same_boxes)


@pytest.mark.parametrize("agnostic", [False, True])
def test_an_r_cnn_keeps_its_background(shapes: Path, agnostic: bool) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config("detection/faster_rcnn_fbnetv3_g_FPN.yaml")))
    options = ["MODEL.DEVICE", "cpu", "MODEL.ARCH", str(shapes / "tiny.yaml"), "MODEL.WEIGHTS", ""]
    cfg.merge_from_list([*options, "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", agnostic])
    source, _ = build_detector(cfg, SAVED, CPU)
    target, _ = build_detector(cfg, DATA, CPU)
    target.load_state_dict(reorder_detector(source.state_dict(), ORDER))
    features = torch.rand(5, source.roi_heads.box_predictor.cls_score.in_features)
    scores, deltas = source.roi_heads.box_predictor(features)
    new_scores, new_deltas = target.roi_heads.box_predictor(features)
    assert torch.equal(new_scores, scores[:, [*ORDER, 3]])
    if not agnostic:
        deltas = deltas.unflatten(1, (3, 4))[:, ORDER].flatten(1)
    assert torch.equal(new_deltas, deltas)


def test_other_classes(tiny: Make, tmp_path: Path) -> None:
    source, full = build_detector(tiny(), SAVED, CPU)
    path = _save(source.state_dict(), tmp_path / "w.safetensors")
    others = ["a", "b", "x"]
    target, _ = build_detector(tiny(), others, CPU)
    with pytest.raises(LoadError, match=r"\(3: c, a, b\), but the data has \(3: a, b, x\)"):
        load_detector_weights(target, path, full, classes=others, training=False)
    summary = load_detector_weights(target, path, full, classes=others)
    assert set(summary.fresh) == {"head.cls_score.weight", "head.cls_score.bias"}
    assert "(3: a, b, x)" in summary.other_classes
    ignored = load_detector_weights(target, path, full, training=False)
    assert not ignored.fresh
    assert torch.equal(target.head.cls_score.weight, source.head.cls_score.weight)


def test_a_classifier_cannot_be_scored_as_a_detector(tiny: Make) -> None:
    model, full = build_detector(tiny(), DATA, CPU)
    with pytest.raises(LoadError, match="does not hold a detector"):
        load_detector_weights(model, "zoo://fbnetv3_a0.cifar10", full, training=False)
