"""Network, data sets, preprocessing and loaders built from a config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fbnetv3.arch import Arch, get_arch
from fbnetv3.arch.scaling import aligned, low_resolution, scale
from fbnetv3.classification.build import (
    class_names_from_config,
    datasets_from_config,
    eval_loader_from_config,
    evaluation_set_from_config,
    network_from_config,
    preprocessing_from_config,
    train_loader_from_config,
)
from fbnetv3.classification.prepare import prepare_classifier
from fbnetv3.config import CfgNode, ConfigError, recipe_from_config
from fbnetv3.config.archs import arch_from_config, own_resolution
from fbnetv3.engine.process import Process, device_from_config, runtime_context

Make = Callable[..., CfgNode]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, lambda a: a),
        ({"MODEL__ARCH_VARIANT": "aligned"}, aligned),
        ({"MODEL__ARCH_VARIANT": "low_resolution"}, low_resolution),
        ({"MODEL__WIDTH": 0.5}, lambda a: scale(a, 0.5, 1.0)),
        ({"MODEL__DEPTH": 2.0}, lambda a: scale(a, 1.0, 2.0)),
        ({"INPUT__RESOLUTION": 96}, lambda a: a.replace(resolution=96)),
        ({"MODEL__ARCH_VARIANT": "low_resolution_scaled"}, low_resolution),
    ],
)
def test_variants_of_an_architecture(tiny: Make, changes: dict[str, Any], expected: Any) -> None:
    arch = arch_from_config(tiny(MODEL__ARCH="fbnetv3_a0", **changes))
    assert arch == expected(get_arch("fbnetv3_a0"))


@pytest.mark.parametrize(("name", "side"), [("a", 32), ("b", 36), ("e", 38), ("g", 46)])
def test_small_images_grow_with_the_network(tiny: Make, name: str, side: int) -> None:
    changes = {"MODEL__ARCH": f"fbnetv3_{name}", "MODEL__ARCH_VARIANT": "low_resolution_scaled"}
    arch = arch_from_config(tiny(**changes))
    assert arch == low_resolution(get_arch(f"fbnetv3_{name}"), side)  # 32 x resolution / 224
    assert own_resolution(tiny(**changes, INPUT__RESOLUTION=40)) == side
    assert own_resolution(tiny(MODEL__ARCH="torchvision/resnet18")) is None


def test_the_yaml_of_an_architecture(tiny: Make) -> None:
    arch = arch_from_config(tiny())
    assert isinstance(arch, Arch)
    assert arch.name == "tiny"


@pytest.mark.parametrize("key", ["MODEL__WIDTH", "MODEL__DEPTH"])
def test_networks_of_torchvision_have_no_width_and_depth(tiny: Make, key: str) -> None:
    assert arch_from_config(tiny(MODEL__ARCH="torchvision/resnet18")) == "torchvision/resnet18"
    reset = f"{key.replace('__', '.')} 1.0 if a file sets them"
    with pytest.raises(ConfigError, match=rf"cannot modify .* \({reset}"):
        arch_from_config(tiny(MODEL__ARCH="torchvision/resnet18", **{key: 2.0}))


def test_library_networks_have_a_low_resolution_variant(tiny: Make) -> None:
    cfg = tiny(MODEL__ARCH="timm/resnet18", MODEL__ARCH_VARIANT="low_resolution")
    assert arch_from_config(cfg) == "timm/resnet18?low_resolution=True"
    for variant in ("aligned", "low_resolution_scaled"):
        with pytest.raises(ConfigError, match=f"{variant} cannot modify"):
            arch_from_config(tiny(MODEL__ARCH="timm/resnet18", MODEL__ARCH_VARIANT=variant))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"MODEL__ARCH": "fbnetv3_x"}, "MODEL.ARCH: "),
        ({"MODEL__WIDTH": -1.0}, "MODEL.WIDTH and MODEL.DEPTH: "),
        ({"INPUT__RESOLUTION": -5}, "INPUT.RESOLUTION: "),
    ],
)
def test_a_bad_architecture_names_the_key(tiny: Make, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        arch_from_config(tiny(**changes))
    assert str(caught.value).startswith(key)


def test_bad_preprocessing_names_the_group(tiny: Make) -> None:
    cfg = tiny(INPUT__RESIZE=8)
    preprocessing = preprocessing_from_config(cfg, arch_from_config(cfg))
    with pytest.raises(ConfigError, match=r"^INPUT\.RESIZE=8"):
        eval_loader_from_config(cfg, evaluation_set_from_config(cfg), preprocessing, Process())


def test_resolution_and_resize(tiny: Make) -> None:
    def sizes(**changes: Any) -> tuple[int, int]:
        cfg = tiny(**{"INPUT__RESIZE": 0, **changes})
        preprocessing = preprocessing_from_config(cfg, arch_from_config(cfg))
        return preprocessing["resolution"], preprocessing["resize"]

    assert sizes() == (16, 24)  # the architecture's; 16 x 256 / 224, rounded up to a multiple of 8
    assert sizes(MODEL__ARCH="fbnetv3_a") == (224, 256)
    assert sizes(MODEL__ARCH="torchvision/resnet18") == (224, 256)
    assert sizes(INPUT__RESOLUTION=64, INPUT__RESIZE=70) == (64, 70)


def test_the_network_takes_the_recipe(tiny: Make) -> None:
    cfg = tiny(MODEL__DROP_RATE=0.25)
    arch, recipe = arch_from_config(cfg), recipe_from_config(cfg)
    model = network_from_config(arch, 7, recipe, torch.device("cpu"))
    dropouts = [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropouts == [0.25]
    weights = [p for p in model.parameters() if p.ndim == 4 and p.shape[1] > 1]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 7)


@pytest.mark.parametrize(("momentum", "expected"), [(0.0, 0.1), (0.3, 0.3)])
def test_the_momentum_of_batch_norm(tiny: Make, momentum: float, expected: float) -> None:
    cfg = tiny(MODEL__BN_MOMENTUM=momentum)
    model = prepare_classifier(cfg, runtime_context(cfg)).model
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {m.momentum for m in norms} == {expected}
    model.train()
    norms[0](torch.full((4, norms[0].num_features, 1, 1), 2.0))
    assert norms[0].running_mean is not None
    assert norms[0].running_mean.tolist() == pytest.approx([2 * expected] * norms[0].num_features)


def test_a_limited_training_set(tiny: Make) -> None:
    train, test = datasets_from_config(tiny(DATA__TRAIN_LIMIT=30))
    assert (len(train), len(test)) == (30, 50)
    assert [train.targets.count(i) for i in range(10)] == [3] * 10


def test_class_names(tiny: Make) -> None:
    _, test = datasets_from_config(tiny())
    names = [str(i) for i in range(10)]
    assert class_names_from_config(tiny(), test) == names
    assert class_names_from_config(tiny(MODEL__NUM_CLASSES=10), test) == names
    for other in (9, 11, 20, 1000, -1):
        with pytest.raises(ConfigError, match=rf"MODEL\.NUM_CLASSES is {other}, .* 10 classes"):
            class_names_from_config(tiny(MODEL__NUM_CLASSES=other), test)


def test_a_resize_below_the_resolution_is_named(tiny: Make) -> None:
    cfg = tiny(INPUT__RESOLUTION=33)
    _, test = datasets_from_config(cfg)
    preprocessing = preprocessing_from_config(cfg, arch_from_config(cfg))
    with pytest.raises(ConfigError, match=r"INPUT\.RESIZE=16 is below the resolution, 33 pixels"):
        eval_loader_from_config(cfg, test, preprocessing, Process())


@pytest.mark.parametrize(("name", "kind"), [("cpu", "cpu"), ("auto", None)])
def test_device(tiny: Make, name: str, kind: str | None) -> None:
    expected = kind or ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_from_config(tiny(MODEL__DEVICE=name)).type == expected


@pytest.mark.parametrize("name", ["meta", "CPU", "gpu", "cuda:99", "cuda:x", ""])
def test_an_unknown_device(tiny: Make, name: str) -> None:
    with pytest.raises(ConfigError, match=r"MODEL\.DEVICE"):
        device_from_config(tiny(MODEL__DEVICE=name))


def test_ranks_share_a_batch(tiny: Make) -> None:
    cfg = tiny()
    train, test = datasets_from_config(cfg)
    recipe = recipe_from_config(cfg)
    arch = arch_from_config(cfg)
    preprocessing = preprocessing_from_config(cfg, arch)
    parts, seen = [], 0
    for rank in (0, 1):
        process = Process(rank, 2)
        loader = train_loader_from_config(cfg, train, recipe, 16, process)
        parts.append(next(loader.batches(0))[1])
        scored = eval_loader_from_config(cfg, test, preprocessing, process)
        seen += sum(len(labels) for _, labels in scored)
    whole = train_loader_from_config(cfg, train, recipe, 16, Process())
    assert torch.equal(torch.cat(parts), next(whole.batches(0))[1])
    assert seen == 50
