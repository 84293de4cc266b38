"""Files that training writes contain everything that a classifier needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fbnetv3.arch import get_arch
from fbnetv3.arch.scaling import low_resolution, with_num_classes
from fbnetv3.modeling import build_model
from fbnetv3.weights.errors import LoadError, WeightsFileError
from fbnetv3.zoo.classifier import from_file

ARCH = with_num_classes(low_resolution(get_arch("fbnetv3_a0"), 32), 3)
CLASSES = ["cat", "dog", "fox"]


def _tensors(arch: Any = ARCH, num_classes: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = build_model(arch, num_classes=num_classes).state_dict()
    return {key: value.contiguous() for key, value in state.items()}


def _image(size: tuple[int, int] = (40, 32)) -> Image.Image:
    return Image.linear_gradient("L").resize(size).convert("RGB")


FORMS: dict[str, Any] = {"yaml": ARCH.to_yaml(), "json": json.dumps(ARCH.to_dict())}


@pytest.mark.parametrize("form", FORMS)
def test_exported_weights(tmp_path: Path, form: str) -> None:
    path = tmp_path / "w.safetensors"
    metadata = {
        "arch": FORMS[form],
        "classes": json.dumps(CLASSES),
        "mean": "[0.5, 0.5, 0.5]",
        "std": "[0.25, 0.25, 0.25]",
        "resolution": "32",
        "resize": "36",
    }
    tensors = _tensors()
    save_file(tensors, path, metadata)
    classifier = from_file(path)
    assert classifier.model.arch.to_dict() == ARCH.to_dict()
    assert not classifier.model.training
    assert torch.equal(classifier.model.state_dict()["head.fc.weight"], tensors["head.fc.weight"])
    top = classifier.top(_image())
    assert sorted(name for name, _ in top) == CLASSES
    assert [score for _, score in top] == sorted((s for _, s in top), reverse=True)
    assert sum(score for _, score in top) == pytest.approx(1.0, abs=1e-5)
    white = classifier.transform(Image.new("RGB", (50, 50), "white"))
    assert white.shape == (3, 32, 32)
    assert torch.allclose(white, torch.tensor(2.0))


def test_a_checkpoint_with_its_config(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_00000001.pt"
    average = _tensors()
    raw = {key: torch.zeros_like(value) for key, value in average.items()}
    config = (
        "INPUT:\n  RESOLUTION: 32\n  RESIZE: 0\n  MEAN: [0.0, 0.0, 0.0]\n  STD: [1.0, 1.0, 1.0]"
    )
    state = {"model": raw, "ema": {"tensors": average, "decay": 0.9}, "arch": ARCH.to_dict()}
    torch.save({**state, "classes": CLASSES, "config": config}, path)
    classifier = from_file(path)
    state_dict = classifier.model.state_dict()
    assert torch.equal(state_dict["head.fc.weight"], average["head.fc.weight"])
    white = classifier.transform(Image.new("RGB", (50, 50), "white"))
    assert torch.allclose(white, torch.ones(3, 32, 32))


def test_bare_weights_need_a_name(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(_tensors("fbnetv3_a0"), path)
    with pytest.raises(WeightsFileError, match="--model"):
        from_file(path)
    classifier = from_file(path, "fbnetv3_a0")
    assert classifier.classes == ("class 0", "class 1", "class 2")
    assert classifier.transform(_image()).shape == (3, 224, 224)
    with pytest.raises(LoadError, match="do not fit fbnetv3_a"):
        from_file(path, "fbnetv3_a")


def test_a_named_record_gives_its_preprocessing(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(_tensors("fbnetv3_b", 1000), path)
    classifier = from_file(path, "fbnetv3_b.ra2_in1k")
    assert classifier.transform(_image()).shape == (3, 256, 256)


@pytest.mark.parametrize(
    "name",
    ["torchvision/resnet18", "timm/resnet18?layers=[1,1,1,1]&channels=[8,8,8,8]&act_layer=gelu"],
)
def test_networks_of_libraries(tmp_path: Path, name: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file(_tensors(name), path, {"arch": name})
    assert from_file(path).classes == ("class 0", "class 1", "class 2")


def test_classes_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(_tensors(), path, {"arch": ARCH.to_yaml(), "classes": '["cat"]'})
    with pytest.raises(WeightsFileError, match="names 1 classes, but its classifier has 3"):
        from_file(path)


def test_images_of_every_kind(tmp_path: Path) -> None:
    save_file(_tensors(), tmp_path / "w.safetensors", {"arch": FORMS["yaml"]})
    classifier = from_file(tmp_path / "w.safetensors")
    image = _image()
    image.save(tmp_path / "a.png")
    golden = classifier.scores([image])
    pixels = np.array(image)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for other in (
        tmp_path / "a.png", (tmp_path / "a.png").read_bytes(), pixels, tensor, pixels / 255,
        image.convert("L"), image.convert("RGBA"), image.convert("F"), pixels[..., 0],
    ):  # fmt: skip
        assert torch.equal(classifier.scores([other]), golden)
    assert classifier.scores([]).shape == (0, 3)
    assert classifier.scores(torch.stack([tensor, tensor])).shape == (2, 3)
    assert classifier.top(Image.new("1", (1, 3000)))
