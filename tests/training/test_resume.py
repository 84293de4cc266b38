"""Trainings that are stopped and resumed."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.engine.checkpoint import CheckpointError
from fbnetv3.engine.hooks import StoppedError
from fbnetv3.training import train
from tests.runs import assert_same_run, assert_same_state, last_state

Make = Callable[..., CfgNode]
SCORES = {f"val/{name}{tag}" for name in ("top1", "top5", "loss") for tag in ("", "_ema")}


def test_resuming_a_finished_run_changes_nothing(
    trained: tuple[Path, dict[str, float]], tiny: Make, material: Path
) -> None:
    assert train(tiny(), resume=True) == trained[1]
    assert_same_run(trained[0], material / "trained")


def test_a_used_folder_is_refused(trained: tuple[Path, dict[str, float]], tiny: Make) -> None:
    with pytest.raises(ConfigError, match=r"--resume.*--overwrite"):
        train(tiny())


def test_resuming_without_a_checkpoint_trains_from_scratch(
    tiny: Make, out: Path, material: Path
) -> None:
    train(tiny(SOLVER__MAX_EPOCHS=1.0), resume=True)
    assert last_state(out)["iteration"] == 6


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"SOLVER__OPTIMIZER": "rmsprop", "SOLVER__LR_SCHEDULER_NAME": "exponential"},
        {"MODEL_EMA__ENABLED": False, "SOLVER__CLIP_GRADIENTS__ENABLED": True},
    ],
    ids=["sgd", "rmsprop", "clipped"],
)
def test_a_run_in_parts_is_the_run_in_one(
    tiny: Make, tmp_path: Path, changes: dict[str, Any]
) -> None:
    one, parts = tmp_path / "one", tmp_path / "parts"
    train(tiny(OUTPUT_DIR=str(one), **changes), pictures=False)
    for epochs in (1.0, 2.0, None):
        cfg = tiny(OUTPUT_DIR=str(parts), **changes)
        train(cfg, resume=True, stop_after=epochs, pictures=False)
    assert_same_state(one, parts)


def test_a_stop_by_signal_is_resumed(
    tiny: Make, tmp_path: Path, material: Path, trained: Any
) -> None:
    folder = tmp_path / "stopped"
    cfg = tiny(OUTPUT_DIR=str(folder))

    def stop(epochs: float, scores: dict[str, float]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match=r"SIGTERM.*checkpoint_00000006\.pt.*--resume"):
        train(cfg, on_eval=stop)
    train(cfg, resume=True)
    assert_same_run(folder, material / "trained")


def test_training_outside_the_main_thread(tiny: Make, out: Path) -> None:
    cfg, results = tiny(SOLVER__MAX_EPOCHS=1.0), []
    thread = threading.Thread(target=lambda: results.append(train(cfg, pictures=False)))
    thread.start()
    thread.join()
    assert results
    assert results[0].keys() == SCORES


def test_a_resumed_run_has_the_settings_of_the_present_config(
    tiny: Make, out: Path, caplog: Any
) -> None:
    train(tiny(), stop_after=1.0, pictures=False)
    changed = {
        "SOLVER__BASE_LR": 0.001,
        "SOLVER__MOMENTUM": 0.5,
        "SOLVER__WEIGHT_DECAY": 0.125,
        "MODEL_EMA__DECAY": 0.5,
        "SOLVER__WARMUP_EPOCHS": 0.0,
    }
    with caplog.at_level(logging.WARNING, logger="fbnetv3"):
        train(tiny(**changed), resume=True, stop_after=2.0, pictures=False)
    assert "BASE_LR: 0.001" in caplog.text
    state = last_state(out)
    groups = state["optimizer"]["param_groups"]
    assert {g["momentum"] for g in groups} == {0.5}
    assert max(g["weight_decay"] for g in groups) == 0.125
    assert max(g["lr"] for g in groups) <= 0.001
    assert state["ema"]["decay"] == 0.5


def test_averaging_switched_on_later_starts_from_the_weights(tiny: Make, out: Path) -> None:
    train(tiny(MODEL_EMA__ENABLED=False), stop_after=2.0, pictures=False)
    weight = "head.fc.weight"
    before = last_state(out)["model"][weight]
    train(tiny(MODEL_EMA__DECAY=0.999999), resume=True, pictures=False)
    torch.testing.assert_close(last_state(out)["ema"]["tensors"][weight], before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"SOLVER__OPTIMIZER": "rmsprop"}, ConfigError, "SOLVER.OPTIMIZER"),
        ({"MODEL__WIDTH": 2.0}, CheckpointError, "another network"),
        ({"MODEL__NUM_CLASSES": 12}, ConfigError, "classes"),
    ],
)
def test_a_checkpoint_that_does_not_fit_the_config(
    trained: Any, tiny: Make, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        train(tiny(**changes), resume=True)
    assert "\n" not in str(caught.value)


def test_leftovers_of_kills_are_removed(tiny: Make, out: Path) -> None:
    out.mkdir()
    names = [".curves.png.x1", ".metrics.json.x2", ".checkpoint_00000007.pt.x3", ".config.yaml.x"]
    for name in [*names, ".mine", "notes.txt"]:
        (out / name).write_text("half")
    train(tiny(SOLVER__MAX_EPOCHS=1.0))
    assert {p.name for p in out.glob(".*")} == {".mine"}
    assert (out / "notes.txt").exists()
