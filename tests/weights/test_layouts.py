"""Tensor names of other projects, mapped from this project's names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fbnetv3.arch import get_arch
from fbnetv3.modeling import build_model
from fbnetv3.weights.errors import LoadError
from fbnetv3.weights.layouts import published_names, timm_names

PUBLISHED = [
    "FBNetV2_F1",
    "FBNetV2_L1",
    "FBNetV2_L2",
    *(f"FBNetV3_{letter}" for letter in ("A0", "A", "B", "C", "D", "E", "F", "G")),
    "fbnet_a",
    "fbnet_b",
    "fbnet_c",
]


def _empty(name: str) -> nn.Module:
    with torch.device("meta"):
        return build_model(name.lower())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_names_are_a_bijection_with_shapes(
    name: str, published_keys: dict[str, dict[str, tuple[int, ...]]]
) -> None:
    ours = {key: tuple(value.shape) for key, value in _empty(name).state_dict().items()}
    names = published_names(ours)
    assert list(names) == list(ours)
    mapped = {theirs: ours[key] for key, theirs in names.items()}
    assert len(mapped) == len(ours)
    classifier = mapped["head.conv.weight"]
    assert mapped | {"head.conv.weight": (*classifier, 1, 1)} == published_keys[name]


def test_every_published_list_is_tested(
    published_keys: dict[str, dict[str, tuple[int, ...]]],
) -> None:
    assert sorted(PUBLISHED) == sorted(published_keys)


@pytest.mark.parametrize("name", ["fbnetv3_b", "fbnetv3_d", "fbnetv3_g"])
def test_timm_names_are_a_bijection_but_for_the_stem_bias(name: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        theirs = timm.create_model(name, pretrained=False).state_dict()
    ours = _empty(name).state_dict()
    names = timm_names(get_arch(name), ours, theirs)
    assert len(set(names.values())) == len(names)
    assert set(names.values()) - set(theirs) == {"conv_stem.bias"}
    assert set(theirs) <= set(names.values())
    shapes = {key: theirs[names[key]].shape for key in ours if names[key] in theirs}
    assert shapes == {key: ours[key].shape for key in shapes}


def test_timm_weights_of_another_depth_are_refused() -> None:
    keys = _empty("fbnetv3_b").state_dict()
    with pytest.raises(LoadError, match=r"2 blocks do not fit fbnetv3_b"):
        timm_names(get_arch("fbnetv3_b"), keys, ["blocks.0.0.x.weight", "blocks.1.0.x.weight"])
