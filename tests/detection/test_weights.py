"""Initial weights of detectors: loaded, fresh and unused tensors, and equal outputs."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from fbnetv3.arch import Arch
from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.detection.build import build_detector
from fbnetv3.detection.weights import load_detector_weights
from fbnetv3.modeling import build_model
from fbnetv3.resources import find_config
from fbnetv3.weights.errors import LoadError

Make = Callable[..., CfgNode]
CPU = torch.device("cpu")


def test_weights_of_a_classifier(tiny: Make, shapes: Path, tmp_path: Path) -> None:
    arch = Arch.from_yaml((shapes / "tiny.yaml").read_text(), file="tiny.yaml")
    classifier = build_model(arch, num_classes=5).eval()
    state = {key: value.contiguous() for key, value in classifier.state_dict().items()}
    save_file(state, tmp_path / "classifier.safetensors")
    model, full = build_detector(tiny(), ["a", "b"], CPU)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    summary = load_detector_weights(model, str(tmp_path / "classifier.safetensors"), full)

    loaded, fresh = set(summary.loaded), set(summary.fresh)
    assert loaded | fresh == set(model.state_dict())
    assert not loaded & fresh
    assert len(summary.loaded) + len(summary.unused) == len(state)
    assert all(key.startswith("backbone.bottom_up.stages.") for key in loaded)
    assert all(torch.equal(before[key], model.state_dict()[key]) for key in fresh)
    line = str(summary)
    fresh_part = f"{len(fresh)} are freshly initialised"
    assert all(part in line for part in (f"loaded {len(loaded)} tensors", fresh_part))
    assert all(name in line for name in ("head", "stages.5"))
    x = torch.rand(1, 3, 64, 64)
    maps = model.eval().backbone.bottom_up(x)
    torch.testing.assert_close(maps["c5"], classifier.forward_stages(x)[4])


def test_weights_of_a_detector_with_other_classes(tiny: Make, tmp_path: Path) -> None:
    first, full = build_detector(tiny(), ["a", "b"], CPU)
    state = {key: value.contiguous() for key, value in first.state_dict().items()}
    save_file(state, tmp_path / "detector.safetensors")
    path = str(tmp_path / "detector.safetensors")
    same, _ = build_detector(tiny(), ["c", "d"], CPU)
    assert load_detector_weights(same, path, full).fresh == ()
    more, _ = build_detector(tiny(), ["a", "b", "c"], CPU)
    assert {k.rpartition(".")[0] for k in load_detector_weights(more, path, full).fresh} == {
        "head.cls_score"
    }
    wider, _ = build_detector(tiny(MODEL__FPN__OUT_CHANNELS=32), ["a", "b"], CPU)
    with pytest.raises(LoadError, match="another detector"):
        load_detector_weights(wider, path, full)


def _resnet_detector() -> tuple[nn.Module, CfgNode]:
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config("detection/retinanet_R_50_FPN_3x.yaml")))
    cfg.merge_from_list(["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64])
    cfg.freeze()
    return build_detector(cfg, ["a"], CPU)


def test_weights_of_a_resnet_of_torchvision(tmp_path: Path) -> None:
    resnet = torchvision.models.resnet18(weights=None)
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.weight)
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    model, full = _resnet_detector()
    summary = load_detector_weights(model, str(tmp_path / "resnet18.pth"), full)
    assert {name.rpartition(".")[0] for name in summary.unused if "linear" in name} == {"linear"}
    assert not any("bottom_up" in name for name in summary.fresh)
    x = torch.rand(1, 3, 64, 64)
    resnet.eval()
    expected = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x))))
    for layer in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        expected = layer(expected)
    maps = model.eval().backbone.bottom_up(x)
    torch.testing.assert_close(maps["res5"], expected, rtol=1e-4, atol=1e-4)


def _caffe2_blobs(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Returns the weights of a ResNet, increased by 1, under the names of Caffe2."""
    blobs: dict[str, np.ndarray] = OrderedDict()
    for key, value in state.items():
        name = key.replace("stem.conv1.norm", "res_conv1_bn").replace("stem.", "")
        name = name.replace("shortcut", "branch1").replace(".norm", "_bn")
        for number, letter in (("1", "a"), ("2", "b")):
            name = name.replace(f".conv{number}", f".branch2{letter}")
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue  # these files have them folded into scale and shift
        suffix = "_s" if "bn.weight" in name else "_w" if name.endswith("weight") else "_b"
        blobs[name.rpartition(".")[0].replace(".", "_") + suffix] = value.numpy() + 1
    return blobs


def test_weights_of_a_pickle_of_caffe2(tmp_path: Path) -> None:
    model, full = _resnet_detector()
    blobs = _caffe2_blobs(model.backbone.bottom_up.state_dict())
    path = tmp_path / "R.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    summary = load_detector_weights(model, str(path), full)
    assert len(summary.loaded) == len(blobs)
    after = model.backbone.bottom_up.state_dict()
    np.testing.assert_array_equal(after["res3.0.conv2.weight"].numpy(), blobs["res3_0_branch2b_w"])
