"""``import fbnetv3.timm`` makes the zoo's networks known to timm."""

from __future__ import annotations

import importlib

import pytest
import timm
import torch
from timm.data import create_transform, resolve_model_data_config

import fbnetv3
from fbnetv3.arch import ArchError
from fbnetv3.benchmark.variants import has_timm
from fbnetv3.modeling import FBNetClassifier
from fbnetv3.zoo import preprocessing
from tests.modeling.networks import images


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    """Registers the networks with timm, for the rest of the process."""
    importlib.import_module("fbnetv3.timm")


def test_names_are_listed_and_those_of_timm_stay() -> None:
    assert {"fbnetv3_a", "fbnetv3_g", "fbnetv2_l1"} <= set(timm.list_models("fbnet*"))
    assert "fbnetv3_a0.cifar10" in timm.list_models("fbnet*", pretrained=True)
    assert not isinstance(timm.create_model("fbnetv3_b"), FBNetClassifier)
    assert isinstance(timm.create_model("fbnetv3_c"), FBNetClassifier)


def test_the_arguments_of_timm() -> None:
    model = timm.create_model("fbnetv3_a", num_classes=7, in_chans=4, drop_rate=0.1).eval()
    assert model(torch.randn(1, 4, 64, 64)).shape == (1, 7)
    assert model.num_features == model.get_classifier().in_features


def test_weights_are_those_of_the_zoo() -> None:
    ours = fbnetv3.build_model("fbnetv3_a0.cifar10", pretrained=True).eval()
    x = images(2, 32)
    for name in ("fbnetv3_a0.cifar10", "fbnetv3_a0"):
        theirs = timm.create_model(name, pretrained=True).eval()
        assert torch.equal(theirs(x), ours(x))


def test_features_fit_decoders() -> None:
    model = timm.create_model("fbnetv3_a", features_only=True, out_indices=(1, 2, 4)).eval()
    assert model.feature_info.reduction() == [4, 8, 32]
    sides = [map.shape[2:] for map in model(torch.randn(1, 3, 96, 64))]
    assert sides == [(24, 16), (12, 8), (3, 2)]


def test_the_preprocessing_is_that_of_the_zoo() -> None:
    model = timm.create_model("fbnetv3_a0.cifar10")
    config, rule = resolve_model_data_config(model), preprocessing("fbnetv3_a0.cifar10")
    assert config["input_size"] == (3, rule.resolution, rule.resolution)
    assert (config["mean"], config["std"]) == (rule.mean, rule.std)
    assert config["interpolation"] == rule.interpolation
    assert create_transform(**config)


def test_arguments_without_effect_are_refused() -> None:
    with pytest.raises(ArchError, match="cache_dir: 'x': not supported here"):
        timm.create_model("fbnetv3_a", cache_dir="x")
    with pytest.raises(TypeError, match="'widht'"):
        timm.create_model("fbnetv3_a", widht=2)


def test_benchmarks_compare_with_networks_of_timm_alone() -> None:
    assert has_timm("fbnetv3_b")
    assert not has_timm("fbnetv3_a")
