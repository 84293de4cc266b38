"""What ``fbnetv3.build_model`` returns: the network, its number of classes, and its weights."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from safetensors.torch import save

import fbnetv3
from fbnetv3 import modeling, zoo
from fbnetv3.arch import Arch, ArchError, get_arch
from fbnetv3.arch.scaling import aligned, low_resolution, scale, with_num_classes
from fbnetv3.weights import records
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.records import find_record


class Case(NamedTuple):
    """A call of ``build_model`` without weights, and its result."""

    model: str | Arch | dict[str, Any]
    num_classes: int | None
    expected_classes: int
    blocks_of: Arch


A0 = get_arch("fbnetv3_a0")
LOW = low_resolution(A0, 32)
B = get_arch("fbnetv3_b")
UNTRAINED = {
    "a name": Case("fbnetv3_a0", None, 1000, A0),
    "a name with classes": Case("fbnetv3_a0", 10, 10, A0),
    "a name with a tag": Case("fbnetv3_a0.cifar10", None, 10, LOW),
    "a tag with classes": Case("fbnetv3_a0.cifar10", 1000, 1000, LOW),
    "one class": Case("fbnetv3_a0", 1, 1, A0),
    "a network of the search": Case("fbnetv3_nano_a", None, 10, get_arch("fbnetv3_nano_a")),
    "an architecture": Case(A0, None, 1000, A0),
    "an architecture with 10 classes": Case(with_num_classes(A0, 10), None, 10, A0),
    "an architecture with others": Case(with_num_classes(A0, 10), 7, 7, A0),
    "a scaled architecture": Case(scale(LOW, 0.25), 5, 5, scale(LOW, 0.25)),
    "a name with a scheme": Case("zoo://fbnetv3_a0.cifar10", None, 10, LOW),
    "a dict": Case(LOW.to_dict(), None, 1000, LOW),
    "a dict with other classes": Case(with_num_classes(A0, 10).to_dict(), 7, 7, A0),
    "timm's weights without them": Case("fbnetv3_b.ra2_in1k", None, 1000, aligned(B)),
    "an aligned architecture": Case(aligned(B), None, 1000, aligned(B)),
}


@pytest.mark.parametrize("case", UNTRAINED.values(), ids=UNTRAINED.keys())
def test_without_weights(case: Case) -> None:
    with torch.device("meta"):
        model: Any = fbnetv3.build_model(case.model, case.num_classes)
    assert model.training
    assert model.head.fc.out_features == model.arch.num_classes == case.expected_classes
    assert model.arch.blocks == case.blocks_of.blocks


@pytest.mark.parametrize(
    ("name", "head"), [("torchvision/resnet18", "fc"), ("timm/resnet18", "fc")]
)
@pytest.mark.parametrize(("num_classes", "expected"), [(None, 1000), (10, 10)])
def test_networks_of_other_libraries(
    name: str, head: str, num_classes: int | None, expected: int
) -> None:
    if importlib.util.find_spec(name.partition("/")[0]) is None:
        pytest.skip("not installed")
    model = fbnetv3.build_model(name, num_classes)
    assert getattr(model, head).out_features == expected


@pytest.mark.parametrize(
    ("name", "full_name"),
    [
        ("fbnetv3_a0.cifar10", "fbnetv3_a0.cifar10"),
        ("fbnetv3_nano_a.cifar10", "fbnetv3_nano_a.cifar10"),
        ("fbnetv3_nano_a", "fbnetv3_nano_a.cifar10"),
        (get_arch("fbnetv3_nano_a"), "fbnetv3_nano_a.cifar10"),
        (get_arch("fbnetv3_nano_a").to_dict(), "fbnetv3_nano_a.cifar10"),
        ("zoo://fbnetv3_nano_b", "fbnetv3_nano_b.cifar10"),
    ],
    ids=["tag", "tag of nano", "name", "architecture", "dict", "scheme"],
)
def test_packaged_weights(name: str | Arch, full_name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model: Any = fbnetv3.build_model(name, pretrained=True)
    assert model.head.fc.out_features == 10
    tensors, _ = read_tensors(zoo.fetch(find_record(full_name)))
    state = model.state_dict()
    assert all(
        torch.equal(state[key], value.to(state[key].dtype)) for key, value in tensors.items()
    )


@pytest.mark.parametrize("num_classes", [1, 3, 1000])
def test_another_number_of_classes_replaces_the_classifier(num_classes: int) -> None:
    name = "fbnetv3_nano_a"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model: Any = fbnetv3.build_model(name, num_classes, pretrained=True)
    assert len(caught) == 1
    assert "fbnetv3_nano_a.cifar10 has weights for 10 classes" in str(caught[0].message)
    assert "newly initialised" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert model.head.fc.out_features == num_classes
    tensors, _ = read_tensors(zoo.fetch(find_record(name)))
    key = "backbone.stages.0.0.conv.weight"
    assert torch.equal(model.state_dict()[key], tensors[key].float())


def test_the_same_number_of_classes_keeps_the_classifier() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one: Any = fbnetv3.build_model("fbnetv3_nano_a", pretrained=True)
        other: Any = fbnetv3.build_model("fbnetv3_nano_a", 10, pretrained=True)
    assert torch.equal(one.head.fc.weight, other.head.fc.weight)


def test_weights_serve_an_architecture_and_its_aligned_form(
    site: Any, make_record: Callable[..., zoo.WeightRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    arch = with_num_classes(get_arch("fbnetv3_a"), 7)
    state = modeling.build_model(arch).state_dict()
    site.body = save({key: value.contiguous() for key, value in state.items()})
    record = make_record(name="fbnetv3_a", num_classes=7)
    monkeypatch.setattr(records, "all_records", lambda: (record,))
    monkeypatch.setattr(type(record), "fits_architecture", True)
    for form in (arch, aligned(arch)):
        model: Any = fbnetv3.build_model(form, pretrained=True)
        assert model.arch == form
        assert torch.equal(model.head.fc.weight, state["head.fc.weight"])


MODELS = ["fbnetv3_a0", "fbnetv3_a0.cifar10", "torchvision/resnet18", A0, with_num_classes(A0, 10)]


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_fewer_classes_than_none_are_an_error(model: str | Arch) -> None:
    with pytest.raises(ArchError, match="num_classes: -1: not allowed"):
        fbnetv3.build_model(model, -1)


def test_networks_of_torchvision_keep_their_classifier() -> None:
    with pytest.raises(ArchError, match="num_classes: 0: torchvision/resnet18: only timm's"):
        fbnetv3.build_model("torchvision/resnet18", 0)


@pytest.mark.parametrize("name", ["net.yaml", "my.net.yaml", "folder.v2/net.yml"])
def test_a_yaml_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(get_arch("fbnetv3_nano_a").to_yaml())
    for path in (name, str(tmp_path / name)):
        model: Any = fbnetv3.build_model(path)
        assert model.head.fc.out_features == 10
        assert zoo.transform(path)(Image.new("RGB", (50, 40))).shape == (3, 32, 32)


@pytest.mark.parametrize("model", [None, 5, ["fbnetv3_a0"], {"name": "x"}], ids=str)
def test_other_values_are_an_error(model: Any) -> None:
    for build in (fbnetv3.build_model, modeling.build_model):
        with pytest.raises(ArchError):
            build(model)


@pytest.mark.parametrize(
    "name", ["fbnetv3_nano_a.", "fbnetv3_nano_a.CIFAR10", ".cifar10", "FBNetV3_nano_a", ""]
)
def test_other_spellings_are_an_error(name: str) -> None:
    with pytest.raises((ArchError, zoo.RecordError)):
        fbnetv3.build_model(name, pretrained=True)


def test_without_classes_the_weights_give_features() -> None:
    classifier: Any = fbnetv3.build_model("fbnetv3_nano_a", pretrained=True).eval()
    pooled: Any = fbnetv3.build_model("fbnetv3_nano_a", 0, pretrained=True).eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(classifier.get_classifier()(pooled(x)), classifier(x))


def test_other_inputs_and_outputs_keep_the_weights() -> None:
    classifier: Any = fbnetv3.build_model("fbnetv3_nano_a", pretrained=True).eval()
    grey: Any = fbnetv3.build_model("fbnetv3_nano_a", pretrained=True, in_chans=1).eval()
    x = torch.randn(2, 1, 32, 32)
    rgb = x.expand(-1, 3, -1, -1)
    torch.testing.assert_close(grey(x), classifier(rgb), rtol=1e-4, atol=1e-4)
    maps = fbnetv3.build_model("fbnetv3_nano_a", pretrained=True, features_only=True).eval()
    levels = [level["stage"] for level in classifier.feature_info]
    stages = classifier.forward_stages(rgb)
    for actual, stage in zip(maps(rgb), levels, strict=True):
        assert torch.equal(actual, stages[stage])


@pytest.mark.parametrize("model", ["torchvision/resnet18", "fbnetv2_l3", low_resolution(A0, 32)])
def test_models_without_weights(model: str | Arch) -> None:
    with pytest.raises(zoo.RecordError, match="no weights for"):
        fbnetv3.build_model(model, pretrained=True)


def test_a_name_without_a_tag_never_means_weights_of_other_classes() -> None:
    with pytest.raises(zoo.RecordError, match=r"fbnetv3_a0\.cifar10"):
        fbnetv3.build_model("fbnetv3_a0", pretrained=True)


def test_a_detector() -> None:
    pytest.importorskip("detectron2")
    model = fbnetv3.build_model("retinanet_fbnetv3_a0.bccd", pretrained=True)
    assert type(model).__name__ == "Detector"
    assert list(model.classes) == ["RBC", "WBC", "Platelets"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments", [{"num_classes": 3}, {"num_classes": 0}, {"drop_rate": 0.1}], ids=str
)
def test_a_detector_keeps_its_classes(arguments: dict[str, Any]) -> None:
    with pytest.raises(zoo.RecordError, match="are fixed; leave out"):
        fbnetv3.build_model("retinanet_fbnetv3_a0.bccd", **arguments)
