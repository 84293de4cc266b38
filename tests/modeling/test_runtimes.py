"""Compiled deployed forms: outputs, failing runtimes, warnings."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fbnetv3.modeling import build_model, deploy, runtimes
from fbnetv3.modeling.deploy import DeployedModel
from fbnetv3.modeling.runtimes import RUNTIMES, Runner, Runtime
from tests.fixtures.training import ARCH
from tests.modeling.networks import (
    TOLERANCE,
    distance,
    images,
    published,
    with_random_statistics,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def fails(model: nn.Module, example: Tensor) -> Runner:
    raise RuntimeError("first line\nsecond line")


def wrong(model: nn.Module, example: Tensor) -> Runner:
    return lambda x: model(x) * 1.001


def right(model: nn.Module, example: Tensor) -> Runner:
    return lambda x: model(x)


def wrong_later(model: nn.Module, example: Tensor) -> Runner:
    """Returns a runner whose output is right only for the shape of the example."""
    return lambda x: model(x) * (1.0 if x.shape == example.shape else 2.0)


def runtime(name: str, build: Any) -> Runtime:
    return Runtime(name, lambda model: "", build)


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1)).eval()


@pytest.mark.parametrize("build", [fails, wrong])
def test_a_failing_runtime_is_replaced_by_the_next_one(
    build: Any, net: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    deployed = DeployedModel(net, [runtime("bad", build), runtime("good", right)])
    assert distance(deployed(images()), net(images())) < 1e-5
    assert deployed.runtime == "good"
    assert distance(deployed(images()), net(images())) < 1e-5
    (record,) = caplog.records
    assert "bad cannot run this model" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_the_eager_model_runs_if_all_runtimes_fail(
    net: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    deployed = DeployedModel(net, [runtime("bad", fails)])
    assert distance(deployed(images()), net(images())) < 1e-5
    assert deployed.runtime == "eager"
    assert "using eager instead" in caplog.text
    assert distance(deployed(images()), net(images())) < 1e-5


def test_each_new_shape_is_checked(net: nn.Module) -> None:
    deployed = DeployedModel(net, [runtime("bad", wrong_later)])
    deployed(images())
    assert deployed.runtime == "bad"
    other = images(3, 32)
    assert distance(deployed(other), net(other)) < 1e-5
    assert deployed.runtime == "eager"


def test_an_error_of_the_model_itself_is_raised(net: nn.Module) -> None:
    deployed = deploy(net, compile=True)
    with pytest.raises(RuntimeError, match="channels"):
        deployed(torch.zeros(1, 4, 8, 8))
    deployed(images())
    assert deployed.runtime == "onnxruntime"


def test_batch_and_resolution_may_change_when_compiled() -> None:
    model = published("FBNetV3_A0").eval()
    deployed = deploy(model, compile=True)
    for n, size in ((2, 64), (3, 64), (1, 96), (2, 64)):
        x = images(n, size)
        for _ in range(2):
            assert distance(deployed(x), model(x)) <= TOLERANCE
    assert deployed.runtime == "onnxruntime"


def test_without_any_runtime_the_model_runs_uncompiled(
    net: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    deployed = deploy(net, compile=True)
    assert deployed.runtime == "eager"
    assert distance(deployed(images()), net(images())) <= TOLERANCE
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "onnx and onnxruntime not installed" in record.getMessage()
    assert "no C++ compiler is installed (no-such-compiler)" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_onnxruntime_requires_float32(net: nn.Module) -> None:
    assert RUNTIMES[0].problem(net) == ""
    assert "float32" in RUNTIMES[0].problem(net.double())


@pytest.mark.slow
@pytest.mark.skipif(bool(RUNTIMES[1].problem(nn.Identity())), reason="no C++ compiler")
def test_inductor(tmp_path: Path) -> None:
    """The network has each kind of block once, since every layer is compiled by a C++ compiler."""
    (tmp_path / "tiny.yaml").write_text(ARCH)
    model = with_random_statistics(build_model(str(tmp_path / "tiny.yaml"))).eval()
    folded = deploy(model).model
    deployed = DeployedModel(folded, RUNTIMES[1:])
    for n in (2, 1):
        for _ in range(2):
            assert distance(deployed(images(n)), model(images(n))) <= TOLERANCE
    assert deployed.runtime == "inductor"


def not_finite(model: nn.Module, example: Tensor) -> Runner:
    return lambda x: model(x) * float("nan")


def test_a_nan_of_a_runtime_is_a_difference(net: nn.Module, caplog: Any) -> None:
    deployed = DeployedModel(net, [runtime("bad", not_finite), runtime("good", right)])
    assert torch.isfinite(deployed(images())).all()
    assert deployed.runtime == "good"
    assert "differs by nan" in caplog.text


@pytest.mark.parametrize(
    "batch",
    [
        torch.zeros(0, 3, 16, 16),
        torch.full((2, 3, 16, 16), float("nan")),
        torch.full((2, 3, 16, 16), float("inf")),
    ],
    ids=["empty", "NaN", "infinite"],
)
@pytest.mark.parametrize("build", [fails, right])
def test_an_output_that_cannot_be_compared_says_nothing_about_a_runtime(
    net: nn.Module, caplog: Any, batch: Tensor, build: Any
) -> None:
    deployed = DeployedModel(net, [runtime("first", build), runtime("good", right)])
    torch.testing.assert_close(deployed(batch), net(batch), equal_nan=True)
    assert deployed.runtime == "first"
    assert not caplog.records
    deployed(images())
    assert deployed.runtime == ("good" if build is fails else "first")
    assert deployed(batch).shape == net(batch).shape


@pytest.mark.parametrize("scale", [0.0, 1e-300, 1e-40, 1e30])
def test_outputs_of_any_scale_are_compared(scale: float) -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.double().mean((2, 3)) * scale

    good = DeployedModel(Scaled(), [runtime("good", right)])
    good(images())
    assert good.runtime == "good"
    bad = DeployedModel(Scaled(), [runtime("bad", wrong)])
    bad(images())
    assert bad.runtime == ("bad" if scale == 0.0 else "eager")
