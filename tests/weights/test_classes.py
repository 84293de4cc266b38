"""Classes of weights and of data: compared by name, and rows put into the data's order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fbnetv3.arch import get_arch, low_resolution
from fbnetv3.modeling import build_model
from fbnetv3.weights.classes import (
    class_names,
    class_order,
    distinct_names,
    other_classes,
    reorder_rows,
)
from fbnetv3.weights.converters import heads_of
from fbnetv3.weights.errors import LoadError
from fbnetv3.weights.load import load_weights

ORDERS: dict[str, tuple[list[str], list[str], list[int] | None]] = {
    "the same": (["a", "b", "c"], ["a", "b", "c"], [0, 1, 2]),
    "another order": (["a", "b", "c"], ["c", "a", "b"], [2, 0, 1]),
    "other names": (["a", "b"], ["a", "x"], None),
    "a subset": (["a", "b", "c"], ["a", "b"], None),
    "more": (["a", "b"], ["a", "b", "c"], None),
    "another case": (["Cat"], ["cat"], None),
    "none": ([], ["a"], None),
    "repeated names in the same order": (["cell", "cell"], ["cell", "cell"], [0, 1]),
    "repeated names in another order": (["cell", "x", "cell"], ["cell", "cell", "x"], None),
    "repeated in the weights alone": (["a", "a", "b"], ["a", "b", "b"], None),
}


@pytest.mark.parametrize(("saved", "data", "order"), ORDERS.values(), ids=ORDERS.keys())
def test_class_order(saved: list[str], data: list[str], order: list[int] | None) -> None:
    assert class_order(saved, data) == order
    if order is not None:
        assert [saved[place] for place in order] == data


@pytest.mark.parametrize(
    ("saved", "names"),
    [
        (["a", "b"], ("a", "b")),
        (("a",), ("a",)),
        ([0, 1], ("0", "1")),
        ([], None),
        (None, None),
        (10, None),
        ("cat", None),
        ({"a": 0}, None),
        ([["a"]], None),
        (torch.arange(3), None),
    ],
    ids=str,
)
def test_class_names_of_metadata(saved: Any, names: tuple[str, ...] | None) -> None:
    assert class_names({"classes": saved}) == names


def test_a_difference_has_both_lists() -> None:
    text = other_classes(["a", "b"], ["b", "c"])
    assert text == "the weights have the classes (2: a, b), but the data has (2: b, c)"
    many = [f"class {i}" for i in range(1000)]
    text = other_classes(many, [*many[:500], "new", *many[501:]])
    assert "only in the weights: class 500; only in the data: new" in text


def test_distinct_names() -> None:
    assert distinct_names(["cell", "x", "cell"], [3, 4, 7]) == ["cell (3)", "x", "cell (7)"]


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("per_class", [1, 4])
@pytest.mark.parametrize("shape", [(), (5,), (5, 3, 3)])
def test_reordered_rows(groups: int, per_class: int, shape: tuple[int, ...]) -> None:
    order = [2, 0, 3, 1]
    tensor = torch.randn(groups, 4, per_class, *shape)
    expected = torch.stack([tensor[:, place] for place in order], dim=1)
    assert torch.equal(reorder_rows(tensor.flatten(0, 2), order, groups), expected.flatten(0, 2))


NETWORKS = ["fbnetv3_nano_a", "torchvision/squeezenet1_0", "torchvision/resnet18"]
DISTILLED = "timm/deit_tiny_distilled_patch16_224"


@pytest.fixture(params=[*NETWORKS, DISTILLED])
def network(request: pytest.FixtureRequest) -> str:
    if request.param.startswith("timm/"):
        pytest.importorskip("timm")
    return str(request.param)


@pytest.mark.parametrize("kind", ["safetensors", "checkpoint"])
def test_weights_of_the_same_classes_in_another_order(
    network: str, kind: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    source, target = (_network(network, 4) for _ in range(2))
    path, names, order = str(tmp_path / "w"), ["d", "a", "c", "b"], [1, 3, 2, 0]
    tensors = {key: value.contiguous() for key, value in source.state_dict().items()}
    if kind == "safetensors":
        save_file(tensors, path, {"classes": json.dumps(names)})
    else:
        torch.save({"model": tensors, "classes": names}, path)
    summary = load_weights(target, path, classes=sorted(names))
    assert summary.reordered
    assert "order of classes" in str(summary)
    x = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(target(x), source(x)[:, order])


def _network(name: str, num_classes: int) -> nn.Module:
    return build_model(name, num_classes).eval()


def test_distilled_networks_have_two_heads() -> None:
    pytest.importorskip("timm")
    assert heads_of(_network(DISTILLED, 4)) == {"head", "head_dist"}


@pytest.mark.parametrize("names", [["a", "b", "x", "d"], ["a", "b", "c"]])
def test_weights_of_other_classes(names: list[str], tmp_path: Path) -> None:
    path = str(tmp_path / "w")
    source, target = _network("fbnetv3_nano_a", len(names)), _network("fbnetv3_nano_a", 4)
    tensors = {key: value.contiguous() for key, value in source.state_dict().items()}
    save_file(tensors, path, {"classes": json.dumps(names)})
    before = target.state_dict()["head.fc.weight"].clone()
    with pytest.raises(LoadError, match="but the data has") as caught:
        load_weights(target, path, classes=["a", "b", "c", "d"])
    assert ("--ignore-class-names" in str(caught.value)) == (len(names) == 4)
    summary = load_weights(target, path, classes=["a", "b", "c", "d"], allow_new_head=True)
    assert set(summary.skipped) == {"head.fc.weight", "head.fc.bias"}
    assert "the data has (4: a, b, c, d)" in summary.other_classes
    assert torch.equal(target.state_dict()["head.fc.weight"], before)
    key = "backbone.stages.0.0.conv.weight"
    assert torch.equal(target.state_dict()[key], tensors[key])


@pytest.mark.parametrize(
    ("saved", "is_other"),
    [
        (low_resolution(get_arch("fbnetv3_nano_a")).to_yaml(), True),
        (get_arch("fbnetv3_nano_a").to_yaml(), False),
        ("fbnetv3_nano_a", False),
        (get_arch("fbnetv3_a").to_yaml(), False),  # with other rows
        ("timm/resnet18", False),
        ("[\n", False),
        (None, False),
    ],
)
def test_weights_of_a_network_with_other_strides(
    saved: str | None, is_other: bool, tmp_path: Path
) -> None:
    path, model = str(tmp_path / "w"), _network("fbnetv3_nano_a", 4)
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, path, {"arch": saved} if saved is not None else {})
    summary = str(load_weights(model, path))
    assert ("whose layers have other strides than fbnetv3_nano_a" in summary) == is_other
    assert ("MODEL.ARCH_VARIANT low_resolution" in summary) == is_other


@pytest.mark.parametrize("classes", [None, ["w", "x", "y", "z"]])
def test_weights_without_names_are_compared_by_number(
    classes: list[str] | None, tmp_path: Path
) -> None:
    source, target = (_network("fbnetv3_nano_a", 4) for _ in range(2))
    torch.save(source.state_dict(), tmp_path / "w.pth")
    summary = load_weights(target, tmp_path / "w.pth", classes=classes)
    assert not summary.other_classes
    assert torch.equal(target.state_dict()["head.fc.weight"], source.state_dict()["head.fc.weight"])
