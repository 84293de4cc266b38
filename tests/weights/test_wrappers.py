"""Weights in the files of other programs: keys of averaged weights, prefixes, run folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.load import load_weights
from fbnetv3.weights.wrappers import unwrap

Tensors = dict[str, torch.Tensor]
EMA: Tensors = {
    "fc.weight": torch.arange(4.0),
    "bn.running_mean": torch.ones(2),
    "bn.num_batches_tracked": torch.tensor(3),
}
RAW = {key: torch.zeros_like(value) for key, value in EMA.items()}


def _prefixed(prefix: str, tensors: Tensors = EMA) -> Tensors:
    return {prefix + key: value for key, value in tensors.items()}


AVERAGED: dict[str, dict[str, Any]] = {
    "timm": {"state_dict": RAW, "state_dict_ema": EMA, "epoch": 1},
    "torchvision": {
        "model": _prefixed("module.", RAW),
        "model_ema": {"n_averaged": torch.tensor(3), **_prefixed("module.")},
        "epoch": 1,
    },
    "this project": {"model": RAW, "ema": {"decay": 0.9, "tensors": EMA}},
    "a number under ema": {"state_dict": EMA, "ema": 0.999},
    "no average": {"model": EMA, "model_ema": None},
    "an empty average": {"state_dict": EMA, "state_dict_ema": {}},
    "prefixes of one only": {"state_dict": RAW, "state_dict_ema": _prefixed("module.")},
    "prefixes of the other": {"state_dict": _prefixed("module.", RAW), "state_dict_ema": EMA},
    "nested": {"checkpoint": 1, "state_dict": {"model": RAW, "model_ema": EMA}},
    "averages of parameters": {
        "model": {**EMA, "fc.weight": torch.zeros(4)},
        "ema": {"fc.weight": EMA["fc.weight"]},
    },
}


@pytest.mark.parametrize("saved", AVERAGED.values(), ids=AVERAGED.keys())
def test_averaged_weights_are_preferred(saved: dict[str, Any]) -> None:
    unwrapped = unwrap(saved)
    assert unwrapped is not None
    _assert_same(unwrapped[0], EMA)


def _assert_same(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_averages_of_another_network_are_not_mixed_with_raw_weights() -> None:
    unwrapped = unwrap({"model": RAW, "model_ema": {"other.weight": torch.ones(1)}})
    assert unwrapped is not None
    assert list(unwrapped[0]) == ["other.weight"]


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "module.module.",
        "_orig_mod._orig_mod.module._orig_mod.",
        "model.",
        "model._orig_mod.",
    ],
)
def test_prefixes(prefix: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"w.{kind}"
    if kind == "pth":
        torch.save({"state_dict": _prefixed(prefix)}, path)
    else:
        save_file(_prefixed(prefix), path)
    _assert_same(read_tensors(path)[0], EMA)


@pytest.mark.parametrize(
    "names", [["module.a", "b"], ["model.a", "head.b"], ["a._orig_mod", "a"], ["submodule.a"]]
)
def test_names_that_stay(names: list[str]) -> None:
    unwrapped = unwrap({name: torch.zeros(1) for name in names})
    assert unwrapped is not None
    assert list(unwrapped[0]) == names


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": torch.compile,
    "parallel": nn.DataParallel,
    "averaged": AveragedModel,
    "averaged and compiled": lambda model: torch.compile(AveragedModel(model)),
    "compiled inside": lambda model: nn.DataParallel(torch.compile(model)),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_networks_in_the_wrappers_of_torch(
    wrap: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    def network() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))

    source, target = network(), network()
    torch.save({"model": wrap(source).state_dict()}, tmp_path / "w.pth")
    summary = load_weights(target, tmp_path / "w.pth")
    assert summary.source.endswith("w.pth (model)")
    _assert_same(dict(target.state_dict()), dict(source.state_dict()))


def test_the_summary_names_the_entry(tmp_path: Path) -> None:
    linear = nn.Linear(2, 2)
    state = linear.state_dict()
    torch.save({"state_dict": state, "state_dict_ema": state}, tmp_path / "w.pth")
    assert "w.pth (state_dict_ema)" in str(load_weights(linear, tmp_path / "w.pth"))


FOLDERS: dict[str, tuple[list[str], str | None]] = {
    "finished": (["model.safetensors", "model_ema.safetensors", "checkpoint_00000010.pt"], "ema"),
    "without an average": (["model.safetensors", "checkpoint_00000010.pt"], "model"),
    "interrupted": (["checkpoint_00000009.pt", "checkpoint_00000010.pt"], "10"),
    "a long run": (["checkpoint_99999999.pt", "checkpoint_100000000.pt"], "100000000"),
    "another folder": (["weights.pth", "config.yaml"], None),
    "empty": ([], None),
}


@pytest.mark.parametrize(("files", "expected"), FOLDERS.values(), ids=FOLDERS.keys())
def test_the_folder_of_a_run(files: list[str], expected: str | None, tmp_path: Path) -> None:
    for name in files:
        save_file({"x": torch.zeros(1)}, tmp_path / name, {"classes": json.dumps([name])})
    if expected is None:
        with pytest.raises(WeightsFileError, match="is a directory without weights"):
            read_tensors(tmp_path)
    else:
        (name,) = read_tensors(tmp_path)[1]["classes"]
        assert expected in name
