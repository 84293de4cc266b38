"""Synchronised batch norm: what is converted, refused and left, and the plan's text about it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, NaiveSyncBatchNorm
from torch import nn

from fbnetv3.config import ConfigError
from fbnetv3.engine.distributed import (
    batch_norm_text,
    can_synchronise,
    sync_batch_norm,
    unsynchronised_norms,
)
from fbnetv3.modeling import build_model
from tests.runs import one_line

timm = pytest.importorskip("timm")
layers = pytest.importorskip("timm.layers")
BatchNormAct2d = layers.BatchNormAct2d


def test_conversion_keeps_names_and_the_very_tensors() -> None:
    model = build_model("fbnetv3_a0", num_classes=3)
    before = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    keys = list(model.state_dict())
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    synced = sync_batch_norm(model, torch.device("cpu"))
    assert synced is model
    assert list(synced.state_dict()) == keys
    after = {**dict(synced.named_parameters()), **dict(synced.named_buffers())}
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
    assert sum(isinstance(m, NaiveSyncBatchNorm) for m in synced.modules()) == len(norms) > 0
    assert not [m for m in synced.modules() if type(m) is nn.BatchNorm2d]


@pytest.mark.parametrize("training", [True, False])
def test_conversion_keeps_settings_and_mode(training: bool) -> None:
    model = nn.Sequential(nn.BatchNorm2d(3, eps=0.5, momentum=0.25), nn.ReLU()).train(training)
    sync_batch_norm(model, torch.device("cpu"))
    norm = model[0]
    assert (norm.eps, norm.momentum, norm.training) == (0.5, 0.25, training)


@pytest.mark.parametrize("affine", [True, False])
def test_a_converted_network_scores_the_same(affine: bool) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, affine=affine)
    keys = list(norm.state_dict())
    model = nn.Sequential(norm, build_model("fbnetv3_a0", num_classes=3)).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model(images)
        assert torch.equal(sync_batch_norm(model, torch.device("cpu"))(images), before)
    assert list(model[0].state_dict()) == keys


class Doubled(nn.BatchNorm2d):
    """A norm with a forward of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Named(nn.BatchNorm2d):
    """A norm that computes what its base class computes."""


class Residual(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), norm)
        self.same = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.same(self.inner(x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: timm.create_model("efficientnet_b0", num_classes=5),
        lambda: BatchNormAct2d(3, act_layer=nn.SiLU, drop_layer=nn.Identity),
        lambda: Residual(BatchNormAct2d(3)),
        lambda: Residual(Named(3)),
        lambda: nn.Sequential(layers.SyncBatchNormAct(3)),
        lambda: nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Flatten(), nn.BatchNorm1d(3072)),
        lambda: nn.Sequential(nn.BatchNorm2d(3, momentum=None, track_running_stats=False)),
    ],
    ids=["efficientnet", "itself", "shared", "subclass", "done", "several", "no averages"],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_conversion_keeps_what_a_network_computes(
    make: Callable[[], nn.Module], device: str
) -> None:
    """The tensors stay on the CPU: in evaluation mode synchronised norms run there."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    model = make().eval()
    for buffers in (m for m in model.modules() if getattr(m, "running_mean", None) is not None):
        buffers.running_mean.uniform_(-1, 1)
    names = list(model.state_dict())
    with torch.no_grad():
        before = model(images)
        synced = sync_batch_norm(model, torch.device(device))
        assert torch.equal(synced(images), before)
    assert list(synced.state_dict()) == names
    if device == "cuda":
        assert unsynchronised_norms(synced) == []
        norms = [m for m in synced.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert norms
        assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)


def test_a_shared_norm_stays_one_norm() -> None:
    for device in ("cpu", "cuda"):
        model = sync_batch_norm(Residual(nn.BatchNorm2d(3)), torch.device(device))
        assert model.inner[1] is model.same
        assert unsynchronised_norms(model) == []


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ([nn.BatchNorm2d(4), BatchNormAct2d(4)], True),
        ([BatchNormAct2d(4)], False),
        ([nn.BatchNorm1d(4), nn.BatchNorm2d(4, momentum=None)], False),
        ([nn.Linear(4, 4)], True),
    ],
)
def test_which_norms_can_be_synchronised_on_cpus(modules: list[nn.Module], expected: bool) -> None:
    model = nn.Sequential(*modules)
    assert can_synchronise(model, torch.device("cuda"))
    assert can_synchronise(model, torch.device("cpu")) == expected
    count = len(unsynchronised_norms(model))
    synced = sync_batch_norm(model, torch.device("cpu"))
    assert (len(unsynchronised_norms(synced)) < count or not count) == expected


@pytest.mark.parametrize("make", [Doubled, layers.SplitBatchNorm2d])
def test_a_norm_of_another_computation_is_refused_on_gpus(make: Callable[[int], nn.Module]) -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(make(3)))
    message = rf"MODEL.SYNC_BN is True.* 1\.0 .*{make.__name__}.*allowed: .*; set .* False"
    with pytest.raises(ConfigError, match=message) as error:
        sync_batch_norm(model, torch.device("cuda"))
    one_line(error)
    assert type(model[0]) is nn.BatchNorm2d


@pytest.mark.parametrize(
    ("norm", "is_left"),
    [
        (nn.BatchNorm2d(3), False),
        (nn.BatchNorm2d(3, momentum=None), True),  # detectron2's norm needs a momentum
        (nn.BatchNorm2d(3, track_running_stats=False), False),  # has no running statistics
        (nn.BatchNorm1d(3), True),
        (BatchNormAct2d(3), True),
        (Doubled(3), True),
        (nn.InstanceNorm2d(3, track_running_stats=True), True),
        (nn.InstanceNorm2d(3), False),
        (nn.GroupNorm(1, 3), False),
        (FrozenBatchNorm2d(3), False),
    ],
)
def test_norms_that_stay_unsynchronised_on_cpus(norm: nn.Module, is_left: bool) -> None:
    model = sync_batch_norm(nn.Sequential(nn.BatchNorm2d(3), norm), torch.device("cpu"))
    assert unsynchronised_norms(model) == ([norm] if is_left else [])


APART = "over the 10 images of each of 2 processes"
TOGETHER = "over the 20 images of all 2 processes (MODEL.SYNC_BN True)"
TWO_KINDS = "(MODEL.SYNC_BN cannot synchronise BatchNorm1d, BatchNormAct2d here)"
ONE_D = "(MODEL.SYNC_BN cannot synchronise BatchNorm1d here)"
OF_RANK_0 = "; running statistics are those of rank 0"


@pytest.mark.parametrize(
    ("norms", "processes", "sync_bn", "says"),
    [
        ([nn.BatchNorm2d(3)], 1, True, "over the 20 images of a step"),
        ([nn.BatchNorm2d(3)], 2, False, f"{APART} (MODEL.SYNC_BN False){OF_RANK_0}"),
        ([NaiveSyncBatchNorm(3)], 2, True, TOGETHER),
        ([nn.SyncBatchNorm(3)], 4, True, TOGETHER.replace(" 2 ", " 4 ")),
        (
            [nn.BatchNorm1d(3), BatchNormAct2d(3)],
            2,
            True,
            APART
            + " (MODEL.SYNC_BN cannot synchronise BatchNorm1d, BatchNormAct2d here)"
            + OF_RANK_0,
        ),
        (
            [nn.SyncBatchNorm(3), nn.BatchNorm1d(3), nn.SyncBatchNorm(3)],
            2,
            True,
            f"2 of 3 norms {TOGETHER}; the others {APART} {ONE_D}{OF_RANK_0}",
        ),
        ([FrozenBatchNorm2d(3)], 2, True, "none: no layer takes statistics of a batch"),
    ],
)
def test_the_plan_describes_batch_norm(
    norms: list[nn.Module], processes: int, sync_bn: bool, says: str
) -> None:
    model = nn.Sequential(*norms, nn.ReLU())
    assert batch_norm_text(model, processes, 20, sync_bn=sync_bn) == says
