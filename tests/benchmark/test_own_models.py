"""Measurements of networks by the files and folders of their trainings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fbnetv3.arch import get_arch
from fbnetv3.arch.scaling import with_num_classes
from fbnetv3.benchmark.comparison import Settings, compare
from fbnetv3.benchmark.variants import native_resolution
from fbnetv3.errors import FBNetError
from fbnetv3.modeling import build_model


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run of a network with three classes at 24 px."""
    arch = with_num_classes(get_arch("fbnetv3_nano_a"), 3)
    state = {key: value.contiguous() for key, value in build_model(arch).state_dict().items()}
    about = {"arch": arch.to_yaml(), "classes": json.dumps(["a", "b", "c"]), "resolution": "24"}
    save_file(state, tmp_path / "model_ema.safetensors", about)
    torch.save({"model": state, "arch": arch.to_yaml()}, tmp_path / "checkpoint_00000001.pt")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "side"), [("", 24), ("model_ema.safetensors", 24), ("checkpoint_00000001.pt", 32)]
)
def test_files_and_folders_of_a_run(run: Path, name: str, side: int) -> None:
    path = str(run / name)
    assert native_resolution(path) == side
    settings = Settings(measures=("latency", "training", "ema"), batch_sizes=(1,), rounds=1)
    rows = compare([path], settings)
    kinds = [(row.measure, row.variant) for row in rows]
    latency = [("latency", "ours"), ("latency", "deploy")]
    assert kinds == [*latency, ("training step", "ours"), ("EMA update", "ours")]
    assert all(row.model == path and row.resolution == side and row.value > 0 for row in rows)


@pytest.mark.parametrize("about", [{"task": "detection", "arch": "RetinaNet on fbnetv3_a0"}, {}])
def test_weights_of_a_detector_are_refused(tmp_path: Path, about: dict[str, str]) -> None:
    state = {"backbone.bottom_up.stages.0.weight": torch.zeros(1)}
    save_file(state, tmp_path / "model.safetensors", about)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(FBNetError, match=r"only classifiers are measured; .*MODEL\.ARCH"):
            compare([str(path)], Settings(measures=("latency",), rounds=1))


@pytest.mark.parametrize("name", ["fbnetv3_nano_a", "fbnetv3_nano_a.cifar10"])
def test_networks_with_fewer_classes_than_images(name: str) -> None:
    rows = compare([name], Settings(measures=("training", "loop"), train_batch=12, rounds=1))
    assert [row.measure for row in rows] == ["training step"] + 2 * ["step of the loop"]
    assert all(row.resolution == 32 for row in rows)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.safetensors", "No such file"),
        ("retinanet_fbnetv3_a0.bccd", "only classifiers are measured"),
        ("tests", "is a directory without weights"),
        ("no_such_network", "no_such_network"),
    ],
)
def test_what_cannot_be_measured(name: str, message: str) -> None:
    with pytest.raises(FBNetError, match=message):
        compare([name], Settings(measures=("latency",), rounds=1))
