"""Initial weights of detectors: loaded, fresh and unused tensors, and equal outputs."""

from __future__ import annotations

import json
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from fbnetv3.arch import Arch
from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.detection.build import build_detector
from fbnetv3.detection.prepare import detector_metadata, prepare_detector
from fbnetv3.detection.recipe import detection_recipe
from fbnetv3.detection.resnet_weights import resnet_names
from fbnetv3.detection.weights import load_detector_weights
from fbnetv3.engine.process import runtime_context
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


MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
CIFAR_MEAN, CIFAR_STD = [125.307, 122.961, 113.8575], [62.985, 62.0925, 66.708]
RGB = ["INPUT.FORMAT", "RGB", "MODEL.PIXEL_MEAN", MEAN, "MODEL.PIXEL_STD", STD]
R18 = ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64]
STRIDE = ["MODEL.RESNETS.STRIDE_IN_1X1", False]


def _resnet_detector(*options: Any) -> tuple[nn.Module, CfgNode]:
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config("detection/retinanet_R_50_FPN_3x.yaml")))
    cfg.merge_from_list(list(options))
    cfg.freeze()
    return build_detector(cfg, ["a"], CPU)


def test_weights_of_a_resnet_of_torchvision(tmp_path: Path) -> None:
    resnet = torchvision.models.resnet18(weights=None)
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.weight)
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    model, full = _resnet_detector(*R18, *RGB)
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
    model, full = _resnet_detector(*R18)
    blobs = _caffe2_blobs(model.backbone.bottom_up.state_dict())
    path = tmp_path / "R.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    summary = load_detector_weights(model, str(path), full)
    assert len(summary.loaded) == len(blobs)
    assert summary.other_input == ""
    after = model.backbone.bottom_up.state_dict()
    np.testing.assert_array_equal(after["res3.0.conv2.weight"].numpy(), blobs["res3_0_branch2b_w"])
    model, full = _resnet_detector(*R18, "INPUT.FORMAT", "RGB")
    assert "INPUT.FORMAT BGR (not RGB)" in load_detector_weights(model, str(path), full).other_input


@pytest.fixture(scope="module")
def resnet_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with torchvision's ResNet-18 and -50, plain, converted and trained on CIFAR-10."""
    folder = tmp_path_factory.mktemp("resnets")
    for depth in (18, 50):
        state = getattr(torchvision.models, f"resnet{depth}")(weights=None).state_dict()
        torch.save(state, folder / f"{depth}.pth")
        own = {"mean": CIFAR_MEAN, "std": CIFAR_STD}
        metadata = {key: json.dumps([v / 255 for v in values]) for key, values in own.items()}
        save_file(state, folder / f"{depth}.safetensors", metadata)
        own = {"arch": f"torchvision/resnet{depth}", "mean": json.dumps([0.485, 0.456, 0.406])}
        save_file(state, folder / "own.safetensors", own)
        torch.save({"state_dict": state, "mean": "none", "arch": "resnet"}, folder / "unusable.pth")
        arrays = {key: value.numpy() for key, value in resnet_names(state).items()}
        converted = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
        (folder / f"{depth}.pkl").write_bytes(pickle.dumps(converted, protocol=2))
    return folder


@pytest.mark.parametrize(
    ("file", "options", "wrong"),
    [
        ("18.pth", [*R18, *RGB], set()),
        ("own.safetensors", RGB, {"MODEL.RESNETS.STRIDE_IN_1X1"}),
        ("own.safetensors", [*RGB, "INPUT.FORMAT", "BGR"],
         {"INPUT.FORMAT", "MODEL.RESNETS.STRIDE_IN_1X1"}),
        ("50.pkl", [*RGB, *STRIDE, "INPUT.FORMAT", "BGR"], {"INPUT.FORMAT"}),
        ("50.pkl", [*RGB, *STRIDE, "MODEL.PIXEL_MEAN", MEAN[::-1]], {"MODEL.PIXEL_MEAN"}),
        ("50.pkl", [*RGB, *STRIDE, "MODEL.PIXEL_STD", [1.0, 1.0, 1.0]], {"MODEL.PIXEL_STD"}),
        ("50.pth", [*RGB, *STRIDE, "MODEL.PIXEL_MEAN", [123.7, 116.8, 103.9]], set()),
        ("50.pkl", RGB, {"MODEL.RESNETS.STRIDE_IN_1X1"}),
        ("50.pkl", [*RGB, *STRIDE], set()),
        ("18.safetensors", [*R18, *RGB, "INPUT.FORMAT", "BGR"], {"INPUT.FORMAT"}),
        ("18.safetensors", [*R18, "INPUT.FORMAT", "RGB", "MODEL.PIXEL_MEAN", CIFAR_MEAN,
                            "MODEL.PIXEL_STD", CIFAR_STD], set()),
    ],
)  # fmt: skip
def test_a_config_that_is_not_that_of_torchvision(
    resnet_files: Path, file: str, options: list[Any], wrong: set[str]
) -> None:
    model, full = _resnet_detector(*options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    if not wrong:
        assert load_detector_weights(model, str(resnet_files / file), full).other_input == ""
        return
    with pytest.raises(LoadError, match=re.escape(file)) as caught:
        load_detector_weights(model, str(resnet_files / file), full)
    named = re.findall(r"([A-Z_.0-9]+) [^(]+ \(not ", str(caught.value))
    assert set(named) == wrong
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("file", "options", "named"),
    [
        ("18.pth", R18, {"INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"}),
        ("18.pth", [*R18, *RGB, "MODEL.PIXEL_STD", [1.0, 1.0, 1.0]], {"MODEL.PIXEL_STD"}),
        ("50.pth", [*RGB, *STRIDE, "INPUT.FORMAT", "BGR"], {"INPUT.FORMAT"}),
        ("50.pth", RGB, {"MODEL.RESNETS.STRIDE_IN_1X1"}),
        ("50.pth", [*RGB, "INPUT.FORMAT", "BGR"], {"INPUT.FORMAT", "MODEL.RESNETS.STRIDE_IN_1X1"}),
        ("unusable.pth", [*RGB, *STRIDE, "INPUT.FORMAT", "BGR"], {"INPUT.FORMAT"}),
        ("unusable.pth", [*RGB, "INPUT.FORMAT", "RGB"], {"MODEL.RESNETS.STRIDE_IN_1X1"}),
    ],
)
def test_a_resnet_of_ones_own_may_have_other_images_than_torchvisions(
    resnet_files: Path, file: str, options: list[Any], named: set[str]
) -> None:
    """Its file has torchvision's names, but does not say how it was trained.

    OpenMMLab's ResNets of Caffe have these names, the strides of MSRA's, and BGR images.
    """
    model, full = _resnet_detector(*options)
    warning = load_detector_weights(model, str(resnet_files / file), full).other_input
    assert set(re.findall(r"([A-Z_.0-9]+) [^(]+ \(not ", warning)) == named


@pytest.mark.parametrize(
    "metadata",
    [
        {"classes": 10}, {"resolution": (224, 224)}, {"mean": torch.zeros(3)}, {"std": [1.0]},
        {"config": "a: [b"}, {"mean": "black"}, {"std": [0.0, 1.0, 1.0]},
    ],
)  # fmt: skip
def test_metadata_of_other_programs_refuse_no_backbone(
    tiny: Make, shapes: Path, tmp_path: Path, metadata: dict[str, Any]
) -> None:
    arch = Arch.from_yaml((shapes / "tiny.yaml").read_text(), file="tiny.yaml")
    path = tmp_path / "other.pth"
    torch.save({"state_dict": build_model(arch, num_classes=5).state_dict(), **metadata}, path)
    detector, full = build_detector(tiny(), ["square", "disc"], CPU)
    assert load_detector_weights(detector, str(path), full).loaded


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, ""),
        ({"INPUT__FORMAT": "BGR"}, "INPUT.FORMAT RGB (not BGR)"),
        ({"MODEL__PIXEL_STD": [1.0, 1.0, 1.0]}, f"MODEL.PIXEL_STD {STD} (not [1.0, 1.0, 1.0])"),
        ({"MODEL__PIXEL_MEAN": MEAN[::-1]}, f"MODEL.PIXEL_MEAN {MEAN} (not {MEAN[::-1]})"),
        ({"MODEL__PIXEL_MEAN": CIFAR_MEAN, "MODEL__PIXEL_STD": CIFAR_STD}, ""),
    ],
)
def test_a_warning_of_other_images(
    tiny: Make, shapes: Path, tmp_path: Path, changes: dict[str, Any], wrong: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    arch = Arch.from_yaml((shapes / "tiny.yaml").read_text(), file="tiny.yaml")
    detector, full = build_detector(tiny(), ["square", "disc"], CPU)
    metadata = detector_metadata(full, ["square", "disc"], detection_recipe(full, 16))
    networks = {"classifier": build_model(arch, num_classes=5), "detector": detector}
    for name, network in networks.items():
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        is_detector = name == "detector"
        save_file(state, tmp_path / f"{name}.safetensors", metadata if is_detector else None)
    for name in networks:
        caplog.clear()
        cfg = tiny(MODEL__WEIGHTS=str(tmp_path / f"{name}.safetensors"), **changes)
        prepare_detector(cfg, runtime_context(cfg), weights=cfg.MODEL.WEIGHTS)
        warnings = [r.getMessage() for r in caplog.records if "other values" in r.getMessage()]
        assert len(warnings) == bool(wrong)
        assert all(wrong in line and line.startswith("MODEL.WEIGHTS: ") for line in warnings)
