"""MODEL.COMPILE: compiled steps, names in checkpoints, and compilers that fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fbnetv3.config import CfgNode
from fbnetv3.engine import loop
from fbnetv3.engine.compiling import CompiledNetwork, CompileError, backward_error
from fbnetv3.engine.ema import ModelEMA, unwrap
from fbnetv3.training import train
from tests.runs import assert_same_state, last_state

Make = Callable[..., CfgNode]
Compile = Callable[[nn.Module], Any]


def broken(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("no compiler on this machine")


def compiler(backend: Any) -> Compile:
    return partial(torch.compile, backend=backend)


def missing(model: nn.Module) -> Any:
    raise RuntimeError("torch.compile is not supported on this version of Python")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU())


def test_the_tensors_are_those_of_the_network() -> None:
    model = network()
    compiled = CompiledNetwork(model, compiler("eager"))
    assert unwrap(compiled) is model
    assert next(compiled.parameters()) is next(model.parameters())
    assert len(list(compiled.parameters())) == len(list(model.parameters()))
    ema = ModelEMA(model, 0.5)
    ema.update(compiled)
    assert ema.state_dict()["tensors"].keys() == model.state_dict().keys()
    compiled(torch.randn(2, 3, 8, 8)).sum().backward()
    assert compiled.is_compiled
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("compile_model", [compiler(broken), missing])
def test_a_compiler_that_fails_changes_nothing(compile_model: Compile, caplog: Any) -> None:
    outputs: list[Tensor] = []
    states = []
    for make in (lambda model: model, lambda model: CompiledNetwork(model, compile_model)):
        model = network()
        called = make(model)
        images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(1)  # of dropout
        with caplog.at_level(logging.WARNING, logger="fbnetv3"):
            outputs += [called(images), called(images)]
        states.append(model.state_dict())
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not called.is_compiled
    (text,) = caplog.messages
    assert text.startswith("MODEL.COMPILE: torch.compile failed (")
    assert text.endswith("; the training goes on without it")
    assert "no compiler on this machine" in text or "is not supported" in text
    assert "\n" not in text


def test_errors_of_the_network_itself_are_raised() -> None:
    compiled = CompiledNetwork(nn.BatchNorm1d(2), compiler("eager"))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        compiled(torch.randn(1, 2))


def test_a_backward_pass_that_fails_is_one_line() -> None:
    def fail(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler")

    try:
        torch.compile(nn.ReLU(), backend=fail)(torch.ones(1))
    except Exception as error:
        reason = backward_error(error)
    assert isinstance(reason, CompileError)
    assert "set MODEL.COMPILE False" in str(reason)
    assert "\n" not in str(reason)
    assert backward_error(ValueError("of the network")) is None


@pytest.mark.parametrize(("backend", "compiles"), [("eager", True), (broken, False)])
def test_a_training(
    tiny: Make, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, backend: Any, compiles: bool
) -> None:
    """torch's backend "eager" runs the operations of the network: all bits stay the same."""
    made: list[CompiledNetwork] = []

    def make(model: nn.Module) -> CompiledNetwork:
        made.append(CompiledNetwork(model, compiler(backend)))
        return made[-1]

    monkeypatch.setattr(loop, "CompiledNetwork", make)
    short = {"SOLVER__MAX_EPOCHS": 0.5, "SOLVER__WARMUP_EPOCHS": 0.0}
    folders = [tmp_path / name for name in ("plain", "compiled")]
    for folder, compiled in zip(folders, (False, True), strict=True):
        cfg = tiny(OUTPUT_DIR=str(folder), MODEL__COMPILE=compiled, **short)
        train(cfg, pictures=False)
    assert [network.is_compiled for network in made] == [compiles]
    assert not [name for name in last_state(folders[1])["model"] if "_orig_mod" in name]
    assert not [name for name in last_state(folders[1])["ema"]["tensors"] if "_orig_mod" in name]
    assert_same_state(*folders)
