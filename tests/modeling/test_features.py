"""Feature maps, heads and inputs of FBNets behave like those of timm's networks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from timm.models._manipulate import adapt_input_conv
from torch import nn

import fbnetv3
from fbnetv3.arch import Arch, ArchError, aligned, count_cost, get_arch
from fbnetv3.modeling import FBNetClassifier
from fbnetv3.modeling.backbone import FBNetBackbone
from fbnetv3.modeling.features import FBNetFeatures, feature_levels
from fbnetv3.modeling.input_channels import adapted_weight
from tests.modeling.networks import images, with_random_statistics

A0 = get_arch("fbnetv3_a0")
NAMES = ["fbnet_a", "fbnetv2_f1", "fbnetv3_a", "fbnetv3_g", "efficientnet_b0"]


def features_of(arch: Arch, *indices: int) -> FBNetFeatures:
    return FBNetFeatures(arch, FBNetBackbone(arch), indices or None).eval()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(96, 128), (160, 192)])
def test_maps_have_the_stated_channels_and_sides(name: str, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = features_of(aligned(get_arch(name)))
        maps = model(torch.empty(1, 3, *size))
    info = model.feature_info
    assert info.reduction() == [2, 4, 8, 16, 32]
    assert info.get("exact") == [True] * 5
    for map, channels, reduction in zip(maps, info.channels(), info.reduction(), strict=True):
        assert map.shape == (1, channels, size[0] // reduction, size[1] // reduction)


@pytest.mark.parametrize("name", NAMES)
def test_levels_that_are_said_to_be_exact_are(name: str) -> None:
    arch = get_arch(name)
    with torch.device("meta"):
        model = features_of(arch)
        shapes = [map.shape for map in model(torch.empty(1, 3, 160, 192))]
    for level, shape in zip(feature_levels(arch), shapes, strict=True):
        is_exact = shape[2:] == (160 // level["reduction"], 192 // level["reduction"])
        assert level["exact"] == is_exact


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv3_large_100", "fbnetv3_b"])
def test_feature_info_equals_that_of_timm(name: str) -> None:
    theirs = timm.create_model(name, features_only=True).feature_info
    levels = feature_levels(get_arch(name))
    assert [level["reduction"] for level in levels] == theirs.reduction()
    # timm's last level of the other two includes the expansion before the pool
    count = 5 if name == "efficientnet_b0" else 4
    channels = [level["num_chs"] for level in levels]
    assert channels[:count] == theirs.channels()[:count]


def test_chosen_levels_are_those_of_all() -> None:
    every, some = features_of(A0), features_of(A0, 1, -2)
    some.load_state_dict({k: v for k, v in every.state_dict().items() if k in some.state_dict()})
    x = images(2, 64)
    maps = every(x)
    for actual, expected in zip(some(x), (maps[1], maps[3]), strict=True):
        assert torch.equal(actual, expected)
    assert some.feature_info.channels() == [maps[1].shape[1], maps[3].shape[1]]
    assert some.feature_info.channels(0) == maps[0].shape[1]
    assert some.feature_info.get_dicts(["index"]) == [{"index": 1}, {"index": 3}]
    assert len(some.backbone.stages) < len(every.backbone.stages)
    nodes = dict.fromkeys(some.feature_info.module_name(), "map")
    assert all(name in dict(some.named_modules()) for name in nodes)


@pytest.mark.parametrize("indices", [(5,), (-6,), (1, 1), (2, 1), (), (0.5,)])
def test_levels_that_do_not_exist_are_refused(indices: tuple[Any, ...]) -> None:
    with pytest.raises(ArchError, match=r"out_indices: .*increasing numbers from -5 to 4"):
        FBNetFeatures(A0, FBNetBackbone(A0), indices)


def test_the_parts_of_a_classifier_compose() -> None:
    model, x = with_random_statistics(FBNetClassifier(A0)).eval(), images()
    features = model.forward_features(x)
    assert torch.equal(model.forward_head(features), model(x))
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (len(x), model.num_features)
    assert torch.equal(model.get_classifier()(pooled), model(x))


@pytest.mark.parametrize("pool", ["avg", "max", "avgmax"])
def test_pools_equal_those_of_timm(pool: str) -> None:
    from timm.layers import SelectAdaptivePool2d

    model = FBNetClassifier(A0, global_pool=pool).eval()
    features = model.forward_features(images())
    expected = SelectAdaptivePool2d(pool_type=pool, flatten=True)(features)
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), expected)


def test_a_network_without_classifier_returns_features() -> None:
    with_classifier = FBNetClassifier(A0).eval()
    without = FBNetClassifier(A0.replace(num_classes=0)).eval()
    without.backbone.load_state_dict(with_classifier.backbone.state_dict())
    x = images()
    pooled = with_classifier.forward_head(with_classifier.forward_features(x), pre_logits=True)
    assert torch.equal(without(x), pooled)
    with_classifier.reset_classifier(0)
    assert torch.equal(with_classifier(x), pooled)
    assert with_classifier.num_classes == without.num_classes == 0
    with_classifier.reset_classifier(0, "")
    assert torch.equal(with_classifier(x), with_classifier.forward_features(x))
    with_classifier.reset_classifier(7, "max")
    assert with_classifier(x).shape == (len(x), 7)
    assert count_cost(without.arch).params == sum(p.numel() for p in without.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_pool": "sum"}, r"'sum': not allowed; allowed: 'avg', 'max', 'avgmax'; ''"),
        ({"global_pool": ""}, "'' needs num_classes=0"),
        ({"global_pool": "catavgmax"}, "'catavgmax': not allowed"),
        ({"in_chans": 0}, r"in_channels: 0: not allowed; allowed: integers >= 1"),
        ({"num_classes": -1}, "num_classes: -1: not allowed; allowed: 0, or integers >= 1"),
        ({"out_indices": (1,)}, "needs features_only=True"),
    ],
)
def test_arguments_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArchError, match=message):
        fbnetv3.build_model("fbnetv3_a0", **changes)


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/resnet18"])
@pytest.mark.parametrize(
    "changes", [{"in_chans": 1}, {"global_pool": "max"}, {"features_only": True}, {"aligned": True}]
)
def test_networks_of_libraries_refuse_them(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ArchError, match=f"{next(iter(changes))} can be given for FBNets only"):
        fbnetv3.build_model(name, **changes)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_the_first_convolution_is_adapted_as_timm_does(channels: int) -> None:
    weight = torch.randn(4, 3, 3, 3)
    expected = adapt_input_conv(channels, weight.clone())
    torch.testing.assert_close(adapted_weight(weight, channels), expected)
    model = FBNetClassifier(A0).eval()
    model.change_input_channels(channels)
    assert model(torch.randn(1, channels, 64, 64)).shape == (1, 1000)
    assert model.arch.in_channels == channels
    assert count_cost(model.arch).params == sum(p.numel() for p in model.parameters())


def test_grey_images_give_what_they_give_as_rgb() -> None:
    rgb = with_random_statistics(FBNetClassifier(A0)).eval()
    grey = copy.deepcopy(rgb)
    grey.change_input_channels(1)
    x = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(grey(x), rgb(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_tables_with_other_channels_are_kept() -> None:
    arch = A0.replace(in_channels=5)
    assert Arch.from_yaml(arch.to_yaml()) == arch
    assert "in_channels" not in A0.to_yaml()
    assert FBNetClassifier(arch).eval()(torch.randn(1, 5, 64, 64)).shape == (1, 1000)


def _trained(model: nn.Module) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        torch.manual_seed(step)  # for stochastic depth and dropout
        x = torch.randn(4, 3, 64, 64, generator=generator)
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_checkpointed_gradients_change_nothing() -> None:
    plain = FBNetClassifier(A0, drop_rate=0.2, drop_path_rate=0.3)
    other = copy.deepcopy(plain)
    other.set_grad_checkpointing()
    expected, actual = _trained(plain).state_dict(), _trained(other).state_dict()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def test_checkpointed_gradients_keep_fewer_activations() -> None:
    def saved(model: nn.Module) -> int:
        elements = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal elements
            elements += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(2, 3, 64, 64))
        return elements

    model = FBNetClassifier(A0)
    before = saved(model)
    model.set_grad_checkpointing()
    assert saved(model) < before / 2
