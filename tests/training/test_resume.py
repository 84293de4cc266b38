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
from fbnetv3.engine.errors import StoppedError
from fbnetv3.training import train
from tests.runs import assert_same_run, assert_same_state, last_state, rows_without_times

Make = Callable[..., CfgNode]
SCORES = {f"val/{name}{tag}" for name in ("top1", "top5", "loss") for tag in ("", "_ema")}


def test_resuming_a_finished_run_changes_nothing(
    trained: tuple[Path, dict[str, float]], tiny: Make, material: Path
) -> None:
    assert train(tiny(), resume=True) == trained[1]
    assert_same_run(trained[0], material / "trained")


def test_broken_lines_of_metrics_do_not_hinder_resumption(
    trained: Any, tiny: Make, out: Path, material: Path
) -> None:
    for path in (*out.glob("*.safetensors"), max(out.glob("checkpoint_*.pt"))):
        path.unlink()
    with (out / "metrics.json").open("a") as file:
        file.write('{"iteration": "x"}\n{"iteration": null}\n[]\n{"iteration": 1e400}\n{"it')
    train(tiny(), resume=True)
    assert_same_run(out, material / "trained")


def test_a_used_folder_is_refused(trained: tuple[Path, dict[str, float]], tiny: Make) -> None:
    with pytest.raises(ConfigError, match=r"--resume.*--overwrite"):
        train(tiny())


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_run_whose_checkpoints_cannot_be_read_is_kept(
    trained: Any, tiny: Make, out: Path, resume: bool, is_deleted: bool
) -> None:
    for path in out.glob("checkpoint_*.pt"):
        path.unlink() if is_deleted else path.write_bytes(path.read_bytes()[:-200])
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(CheckpointError, match=r"model_ema\.safetensors.*--overwrite"):
        train(tiny(), resume=resume)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    train(tiny(SOLVER__MAX_EPOCHS=1.0), overwrite=True)
    assert last_state(out)["iteration"] == 6


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
        {"SOLVER__MAX_EPOCHS": 0.0, "SOLVER__MAX_ITER": 16},
    ],
    ids=["sgd", "rmsprop", "clipped", "iterations"],
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


@pytest.mark.parametrize(
    ("changes", "start", "steps"),
    [
        # 120 images; the first part is 1.5 epochs of 6 steps
        ({"SOLVER__IMS_PER_BATCH": 10}, 18, 18),  # 12 steps per epoch
        ({"SOLVER__IMS_PER_BATCH": 40}, 4, 5),  # 3 steps per epoch, so 4.5 are rounded down
        ({"SOLVER__IMS_PER_BATCH": 120}, 1, 2),
        ({"DATA__TRAIN_LIMIT": 60}, 4, 5),  # the same batch, but half the images
        ({"SOLVER__MAX_EPOCHS": 4.0}, 9, 15),
    ],
    ids=str,
)
def test_a_resumed_run_trains_the_epochs_that_are_left(
    tiny: Make, out: Path, caplog: Any, changes: dict[str, Any], start: int, steps: int
) -> None:
    train(tiny(), stop_after=1.5, pictures=False)
    epochs: list[float] = []
    cfg = tiny(**{"SOLVER__MAX_EPOCHS": 3.0, **changes})
    with caplog.at_level(logging.WARNING, logger="fbnetv3"):
        train(cfg, resume=True, on_eval=lambda epoch, _: epochs.append(epoch), pictures=False)
    assert last_state(out)["iteration"] == 9 + steps
    assert epochs == [float(x) for x in range(2, int(cfg.SOLVER.MAX_EPOCHS) + 1)]
    assert ("continues after 1.5 epochs" in caplog.text) == (start != 9)
    rows = [row["iteration"] for row in rows_without_times(out)]
    assert rows == sorted(set(rows))
    before = last_state(out)["model"]["head.fc.weight"]
    train(cfg, resume=True, pictures=False)  # the position is kept
    assert torch.equal(last_state(out)["model"]["head.fc.weight"], before)


def test_another_batch_at_an_epoch_has_the_learning_rates_of_that_batch(
    tiny: Make, tmp_path: Path
) -> None:
    one, other = (str(tmp_path / name) for name in ("one", "other"))
    train(tiny(OUTPUT_DIR=one, SOLVER__IMS_PER_BATCH=40, SOLVER__LOG_PERIOD=1), pictures=False)
    train(tiny(OUTPUT_DIR=other, SOLVER__LOG_PERIOD=1), stop_after=1.0, pictures=False)
    cfg = tiny(OUTPUT_DIR=other, SOLVER__IMS_PER_BATCH=40, SOLVER__LOG_PERIOD=1)
    train(cfg, resume=True, pictures=False)
    rates = [[r["lr"] for r in rows_without_times(Path(folder))] for folder in (one, other)]
    assert rates[1][6:] == pytest.approx(rates[0][3:])


@pytest.mark.parametrize("epochs", [2.0, 3.0])
def test_nothing_left_to_train_is_reported(trained: Any, tiny: Make, caplog: Any, epochs) -> None:
    with caplog.at_level(logging.WARNING, logger="fbnetv3"):
        train(tiny(SOLVER__MAX_EPOCHS=epochs), resume=True)
    assert f"has 3 epochs, the training ends after {epochs:g}" in caplog.text


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
    names += [".checkpoint_best.pt.x4", ".predictions_raw.png.x5", ".ap_per_class.txt.x6"]
    names += [".scores.json.x7", ".result.json.x8"]
    for name in [*names, ".mine", "notes.txt"]:
        (out / name).write_text("half")
    train(tiny(SOLVER__MAX_EPOCHS=1.0))
    assert {p.name for p in out.glob(".*")} == {".mine"}
    assert (out / "notes.txt").exists()
