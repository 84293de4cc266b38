"""The files that a finished training leaves, and their use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fbnetv3.cli import predict
from fbnetv3.config import CfgNode
from fbnetv3.config.archs import arch_from_config
from fbnetv3.engine.metrics import read_metrics
from fbnetv3.modeling import build_model
from fbnetv3.training import evaluate
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.load import load_weights
from tests.runs import assert_same, last_state, scores_by_iteration

Make = Callable[..., CfgNode]
SCORES = {f"val/{name}{tag}" for name in ("top1", "top5", "loss") for tag in ("", "_ema")}


def test_records(trained: tuple[Path, dict[str, float]]) -> None:
    folder, scores = trained
    assert scores.keys() == SCORES
    rows = read_metrics(folder / "metrics.json")
    assert [r["iteration"] for r in rows if "loss" in r] == list(range(1, 18, 2))
    assert [i for i, _ in scores_by_iteration(folder)] == [5, 11, 17]
    assert scores_by_iteration(folder)[-1][1] == scores
    assert all({"lr", "data_time"} <= row.keys() for row in rows)
    assert (folder / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not list(folder.glob(".*"))


def test_tensorboard_events(trained: tuple[Path, dict[str, float]]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, scores = trained
    events = EventAccumulator(str(folder)).Reload()
    assert [e.step for e in events.Scalars("val/top1_ema")] == [5, 11, 17]
    assert events.Scalars("val/top1_ema")[-1].value == pytest.approx(scores["val/top1_ema"])
    assert len(events.Scalars("loss")) == 9


def test_checkpoints_hold_everything(trained: tuple[Path, dict[str, float]]) -> None:
    folder, _ = trained
    names = sorted(path.name for path in folder.glob("checkpoint_*"))
    assert names == ["checkpoint_00000012.pt", "checkpoint_00000018.pt"]
    state = last_state(folder)
    parts = {"model", "ema", "optimizer", "scheduler", "rng", "data", "recipe", "classes", "task"}
    assert parts <= state.keys()
    assert state["iteration"] == 18
    assert state["recipe"]["mixup"] == 0.2
    assert state["classes"] == [str(i) for i in range(10)]
    assert "BASE_LR: 0.05" in state["config"]
    assert state["arch"].startswith("name: tiny")


def test_exported_weights_are_those_of_the_checkpoint(
    trained: tuple[Path, dict[str, float]],
) -> None:
    folder, _ = trained
    state = last_state(folder)
    raw, metadata = read_tensors(folder / "model.safetensors")
    averaged, _ = read_tensors(folder / "model_ema.safetensors")
    assert_same(raw, dict(state["model"]))
    assert_same(averaged, {name: state["ema"]["tensors"][name] for name in averaged})
    assert any(not torch.equal(raw[name], averaged[name]) for name in raw)
    assert metadata["classes"] == state["classes"]
    assert metadata["resolution"] == 16


def test_exported_weights_load_and_predict(
    trained: tuple[Path, dict[str, float]], tiny: Make, material: Path, capsys: Any
) -> None:
    folder, scores = trained
    arch = arch_from_config(tiny())
    model = build_model(arch, num_classes=10)
    load_weights(model, str(folder / "model_ema.safetensors"))
    images = sorted((material / "test").rglob("*.png"))
    arguments = ["--weights", str(folder / "model_ema.safetensors"), "--topk", "1"]
    assert predict.main([*arguments, *map(str, images)]) == 0
    lines = capsys.readouterr().out.splitlines()
    right = [
        line.split()[-1] == path.parent.name for path, line in zip(images, lines[1::2], strict=True)
    ]
    assert 100 * sum(right) / len(right) == pytest.approx(scores["val/top1_ema"])


def test_raw_and_averaged_weights_are_scored_apart(
    trained: tuple[Path, dict[str, float]], tiny: Make
) -> None:
    folder, scores = trained
    for name, tag in (("model", ""), ("model_ema", "_ema")):
        alone = evaluate(tiny(MODEL__WEIGHTS=str(folder / f"{name}.safetensors")))
        assert alone == {key: scores[f"{key}{tag}"] for key in alone}
    assert scores["val/loss"] != scores["val/loss_ema"]


def test_safetensors_is_plain(trained: tuple[Path, dict[str, float]]) -> None:
    loaded = safetensors.torch.load_file(trained[0] / "model.safetensors")
    assert all(torch.isfinite(x).all() for x in loaded.values())
