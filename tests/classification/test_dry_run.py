"""Networks that cannot process the batches of a config are refused in one line before a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fbnetv3.arch import get_arch
from fbnetv3.arch.scaling import low_resolution
from fbnetv3.classification.dry_run import check_network
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.modeling import build_model
from fbnetv3.training import evaluate, train
from tests.runs import one_line

A0 = get_arch("fbnetv3_a0")


class Case(NamedTuple):
    """A network, its images, and a part of the message; "" where it works."""

    name: str
    side: int
    batch: int
    message: str
    training: bool = True


CASES = [
    Case("fbnetv3_a0", 32, 1, "SOLVER.IMS_PER_BATCH gives batches of 1"),
    Case("fbnetv3_a0", 32, 2, ""),
    Case("fbnetv3_a0", 64, 1, ""),
    Case("fbnetv3_a0", 32, 1, "", training=False),
    Case("fbnetv3_a", 8, 2, "INPUT.RESOLUTION: .*too small"),
    Case("torchvision/resnet18", 32, 1, "use 2 or more images per process"),
    Case("torchvision/vgg11", 16, 2, "use a larger INPUT.RESOLUTION"),
    Case("torchvision/alexnet", 16, 2, "cannot process RGB images of 16 px", training=False),
    Case("torchvision/vit_b_16", 64, 2, "set INPUT.RESOLUTION to 224"),
    Case("torchvision/googlenet?aux_logits=True", 64, 2, "returns GoogLeNetOutputs"),
    Case("timm/vit_tiny_patch16_224", 32, 2, "set INPUT.RESOLUTION to 224"),
    Case("timm/vit_tiny_patch16_224", 224, 2, ""),
    Case("timm/vit_tiny_patch16_224?img_size=32", 32, 2, ""),
    Case("timm/resnet18?in_chans=1", 32, 2, r"leave out what follows \? in its name"),
    Case("timm/resnet18?features_only=True", 32, 2, r"returns list.*change what follows \? in"),
]


def test_a_module_of_the_caller_is_named_by_its_argument() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    with pytest.raises(ConfigError, match=r"^model module:Own cannot process RGB images of 16 px"):
        check_network(network, "module:Own", 3, 16, 2, training=True)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_networks_and_images(case: Case) -> None:
    if case.name.startswith("timm/"):
        pytest.importorskip("timm")
    model = build_model(case.name, 3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    arch = get_arch(case.name) if "/" not in case.name else case.name

    def check() -> None:
        check_network(model, arch, 3, case.side, case.batch, training=case.training)

    if case.message:
        with pytest.raises(ConfigError, match=case.message) as caught:
            check()
        assert case.name in one_line(caught)
    else:
        check()
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", ["timm/resnet18?output_stride=3", "timm/resnet18?block_args=1"])
def test_arguments_that_a_library_refuses(name: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(Exception, match="timm/resnet18") as caught:
        build_model(name, 3)
    one_line(caught)


class _NeedsValues(nn.Module):
    """A network with an op that has no result on torch's meta device."""

    def __init__(self, limit: float = 1.0) -> None:
        super().__init__()
        self.fc, self.limit = nn.Linear(3, 2), limit

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))
        if float(means.max()) > self.limit:
            raise RuntimeError("values are\ntoo large")
        return self.fc(means)


def test_networks_that_need_values() -> None:
    check_network(_NeedsValues(), "own", 2, 8, 4, training=True)
    with pytest.raises(ConfigError, match=r"8 px.*values are; use a larger") as caught:
        check_network(_NeedsValues(limit=-1.0), "own", 2, 8, 4, training=True)
    one_line(caught)
    with pytest.raises(ConfigError, match=r"returns \(2, 2\)"):
        check_network(_NeedsValues(), "own", 5, 8, 4, training=True)


def test_the_check_is_quick() -> None:
    model = build_model(low_resolution(A0, 32), 10)
    start = time.thread_time()
    check_network(model, A0, 10, 32, 4096, training=True)
    assert time.thread_time() - start < 2


@pytest.mark.parametrize("run", [train, partial(evaluate, weights="zoo://fbnetv3_a0.cifar10")])
def test_a_config(tiny: Callable[..., CfgNode], run: Callable[..., Any]) -> None:
    pytest.importorskip("timm")
    name = "timm/vit_tiny_patch16_224"
    cfg = tiny(MODEL__ARCH=name, MODEL__DROP_RATE=0.0, INPUT__RESOLUTION=16)
    with pytest.raises(ConfigError, match=r"images of 16 px.*set INPUT.RESOLUTION to 224"):
        run(cfg)
