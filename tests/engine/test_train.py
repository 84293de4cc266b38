"""Whole trainings in this process: what they leave, how they go on, how they end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from fbnetv3.arch import get_arch
from fbnetv3.classification.task import ClassificationTask
from fbnetv3.cli import predict
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.config.archs import arch_from_config
from fbnetv3.data import DataError
from fbnetv3.engine.checkpoint import Checkpointer, CheckpointError, load_checkpoint, read_weights
from fbnetv3.engine.hooks import NonFiniteWeightError, StoppedError
from fbnetv3.engine.metrics import read_metrics
from fbnetv3.engine.trainer import NonFiniteLossError
from fbnetv3.errors import FBNetError
from fbnetv3.io import WriteError
from fbnetv3.modeling import build_model
from fbnetv3.training import evaluate, prepare, train
from fbnetv3.weights.load import load_weights

Make = Callable[..., CfgNode]
SCORES = {f"val/{name}{tag}" for name in ("top1", "top5", "loss") for tag in ("", "_ema")}


def last(folder: Path) -> dict[str, Any]:
    path = Checkpointer(folder).latest()
    assert path is not None
    return load_checkpoint(path)


def assert_same(one: Any, other: Any, where: str = "") -> None:
    assert type(one) is type(other), where
    if isinstance(one, Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    else:
        assert one == other, where


PARTS = ("model", "ema", "optimizer", "scheduler", "iteration", "rng", "data", "recipe", "classes")


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit: the last checkpoint, the exported weights and every score."""
    first, second = last(one), last(other)
    for part in PARTS:
        assert_same(first[part], second[part], part)
    for name in ("model.safetensors", "model_ema.safetensors"):
        assert_same(read_weights(one / name)[0], read_weights(other / name)[0], name)
    assert scores_by_iteration(one) == scores_by_iteration(other)


def scores_by_iteration(folder: Path) -> list[tuple[int, dict[str, float]]]:
    rows = read_metrics(folder / "metrics.json")
    found = [
        (row["iteration"], {k: v for k, v in row.items() if k.startswith("val/")})
        for row in rows
        if "val/top1" in row
    ]
    assert found
    return found


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def trained(
    tiny: Make, out: Path, tmp_path_factory: pytest.TempPathFactory, material: Path
) -> tuple[Path, dict[str, float]]:
    """The folder and scores of a finished run: made once, copied for each test."""
    kept = material / "trained"
    if not kept.exists():
        scores = train(tiny())
        shutil.copytree(out, kept)
        (kept / "scores").write_text(json.dumps(scores))
    else:
        shutil.copytree(kept, out)
    (out / "scores").unlink(missing_ok=True)
    return out, json.loads((kept / "scores").read_text())


# --- what a run leaves ---


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
    state = last(folder)
    assert set(PARTS) <= state.keys()
    assert state["iteration"] == 18
    assert state["recipe"]["mixup"] == 0.2
    assert state["classes"] == [str(i) for i in range(10)]
    assert "BASE_LR: 0.05" in state["config"]
    assert state["arch"].startswith("name: tiny")


def test_exported_weights_are_those_of_the_checkpoint(
    trained: tuple[Path, dict[str, float]],
) -> None:
    folder, _ = trained
    state = last(folder)
    raw, metadata = read_weights(folder / "model.safetensors")
    averaged, _ = read_weights(folder / "model_ema.safetensors")
    assert_same(raw, dict(state["model"]))
    assert_same(averaged, {name: state["ema"]["tensors"][name] for name in averaged})
    assert any(not torch.equal(raw[name], averaged[name]) for name in raw)
    assert json.loads(metadata["classes"]) == state["classes"]
    assert json.loads(metadata["resolution"]) == 16


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
        found = evaluate(tiny(MODEL__WEIGHTS=str(folder / f"{name}.safetensors")))
        assert found == {key: scores[f"{key}{tag}"] for key in found}
    assert scores["val/loss"] != scores["val/loss_ema"]


# --- evaluation alone ---


def test_evaluation_finds_the_last_scores(
    trained: tuple[Path, dict[str, float]], tiny: Make
) -> None:
    assert evaluate(tiny()) == trained[1]


def test_evaluation_needs_no_training_data(
    trained: tuple[Path, dict[str, float]], tiny: Make
) -> None:
    assert evaluate(tiny(DATASETS__TRAIN="nowhere")) == trained[1]


def test_evaluation_writes_nothing(trained: tuple[Path, dict[str, float]], tiny: Make) -> None:
    before = sorted((p.name, p.stat().st_mtime_ns) for p in trained[0].iterdir())
    evaluate(tiny())
    assert sorted((p.name, p.stat().st_mtime_ns) for p in trained[0].iterdir()) == before


def test_evaluation_of_nothing(tiny: Make) -> None:
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        evaluate(tiny())


def test_evaluation_takes_no_new_head(
    trained: tuple[Path, dict[str, float]], tiny: Make, material: Path, tmp_path: Path
) -> None:
    two = tmp_path / "two"
    for name in "01":
        shutil.copytree(material / "test" / name, two / name)
    weights = str(trained[0] / "model.safetensors")
    with pytest.raises(FBNetError, match="head"):
        evaluate(tiny(MODEL__WEIGHTS=weights, DATASETS__TEST=str(two)))
    with pytest.raises(ConfigError, match="classes"):
        evaluate(tiny(DATASETS__TEST=str(two)))


# --- going on ---


def test_resuming_a_finished_run_changes_nothing(
    trained: tuple[Path, dict[str, float]], tiny: Make, material: Path
) -> None:
    assert train(tiny(), resume=True) == trained[1]
    assert_same_run(trained[0], material / "trained")


def test_a_used_folder_is_refused(trained: tuple[Path, dict[str, float]], tiny: Make) -> None:
    with pytest.raises(ConfigError, match=r"--resume.*--overwrite"):
        train(tiny())


def test_resuming_nothing_starts_anew(tiny: Make, out: Path, material: Path) -> None:
    train(tiny(SOLVER__MAX_EPOCHS=1.0), resume=True)
    assert last(out)["iteration"] == 6


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
    first, second = last(one), last(parts)
    for part in PARTS:
        assert_same(first[part], second[part], part)
    assert scores_by_iteration(one) == scores_by_iteration(parts)


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
    cfg, found = tiny(SOLVER__MAX_EPOCHS=1.0), []
    thread = threading.Thread(target=lambda: found.append(train(cfg, pictures=False)))
    thread.start()
    thread.join()
    assert found
    assert found[0].keys() == SCORES


def test_settings_of_the_present_config_hold(tiny: Make, out: Path, caplog: Any) -> None:
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
    state = last(out)
    groups = state["optimizer"]["param_groups"]
    assert {g["momentum"] for g in groups} == {0.5}
    assert max(g["weight_decay"] for g in groups) == 0.125
    assert max(g["lr"] for g in groups) <= 0.001
    assert state["ema"]["decay"] == 0.5


def test_averaging_switched_on_later_starts_from_the_weights(tiny: Make, out: Path) -> None:
    train(tiny(MODEL_EMA__ENABLED=False), stop_after=2.0, pictures=False)
    weight = "head.fc.weight"
    before = last(out)["model"][weight]
    train(tiny(MODEL_EMA__DECAY=0.999999), resume=True, pictures=False)
    torch.testing.assert_close(last(out)["ema"]["tensors"][weight], before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"SOLVER__OPTIMIZER": "rmsprop"}, ConfigError, "SOLVER.OPTIMIZER"),
        ({"MODEL__WIDTH": 2.0}, CheckpointError, "another network"),
        ({"MODEL__NUM_CLASSES": 12}, ConfigError, "classes"),
    ],
)
def test_a_resumed_run_of_another_kind(
    trained: Any, tiny: Make, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        train(tiny(**changes), resume=True)
    assert "\n" not in str(caught.value)


def test_leftovers_of_kills_are_cleared(tiny: Make, out: Path) -> None:
    out.mkdir()
    names = [".curves.png.x1", ".metrics.json.x2", ".checkpoint_00000007.pt.x3", ".config.yaml.x"]
    for name in [*names, ".mine", "notes.txt"]:
        (out / name).write_text("half")
    train(tiny(SOLVER__MAX_EPOCHS=1.0))
    assert {p.name for p in out.glob(".*")} == {".mine"}
    assert (out / "notes.txt").exists()


# --- the same again ---


def test_the_same_command_gives_the_same_weights(
    trained: Any, tiny: Make, tmp_path: Path, material: Path
) -> None:
    folder = tmp_path / "again"
    torch.manual_seed(123)  # what happened before must not matter
    torch.rand(7)
    train(tiny(OUTPUT_DIR=str(folder)))
    assert_same_run(folder, material / "trained")


def test_workers_change_nothing(trained: Any, tiny: Make, tmp_path: Path, material: Path) -> None:
    folder = tmp_path / "workers"
    train(tiny(OUTPUT_DIR=str(folder), DATALOADER__NUM_WORKERS=2))
    assert_same_run(folder, material / "trained")


def test_another_seed_gives_other_weights(trained: Any, tiny: Make, tmp_path: Path) -> None:
    folder = tmp_path / "seed"
    train(tiny(OUTPUT_DIR=str(folder), SEED=1), pictures=False)
    ours, theirs = (last(f)["model"]["head.fc.weight"] for f in (folder, trained[0]))
    assert not torch.equal(ours, theirs)


# --- settings ---


def short(tiny: Make, **changes: Any) -> dict[str, float]:
    return train(tiny(SOLVER__MAX_EPOCHS=0.0, SOLVER__WARMUP_EPOCHS=0.0, **changes))


@pytest.mark.parametrize("schedule", ["exponential", "cosine", "constant"])
@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_optimizers_and_schedules(tiny: Make, out: Path, optimizer: str, schedule: str) -> None:
    cfg = tiny(
        SOLVER__OPTIMIZER=optimizer,
        SOLVER__LR_SCHEDULER_NAME=schedule,
        SOLVER__EPOCH_DECAY=0.5,
        SOLVER__LOG_PERIOD=1,
        TEST__EVAL_EPOCHS=0.0,
    )
    train(cfg, pictures=False)
    lrs = {r["iteration"]: r["lr"] for r in read_metrics(out / "metrics.json") if "lr" in r}
    peak = 0.05
    assert lrs[0] == pytest.approx(0.1 * peak)  # warm-up over half an epoch of 6 steps
    assert lrs[3] == pytest.approx(peak)
    expected = {"exponential": peak * 0.25, "constant": peak}
    if schedule == "cosine":
        assert lrs[17] < 0.02 * peak
    else:
        assert lrs[17] == pytest.approx(expected[schedule])


def test_length_and_periods_in_iterations(tiny: Make, out: Path) -> None:
    scores = short(
        tiny,
        SOLVER__MAX_ITER=7,
        TEST__EVAL_EPOCHS=0.0,
        TEST__EVAL_PERIOD=3,
        SOLVER__CHECKPOINT_EPOCHS=0.0,
        SOLVER__CHECKPOINT_PERIOD=2,
        SOLVER__KEEP_CHECKPOINTS=3,
    )
    assert [i for i, _ in scores_by_iteration(out)] == [2, 5, 6]
    names = [p.name for p in sorted(out.glob("checkpoint_*"))]
    assert names == [f"checkpoint_0000000{i}.pt" for i in (4, 6, 7)]
    assert scores.keys() == SCORES


def test_clipping_bounds_the_step(tiny: Make, tmp_path: Path) -> None:
    moved = []
    for name, clip in (("free", {}), ("clipped", {"SOLVER__CLIP_GRADIENTS__ENABLED": True})):
        folder = tmp_path / name
        cfg = {
            "OUTPUT_DIR": str(folder),
            "SOLVER__CLIP_GRADIENTS__CLIP_VALUE": 1e-6,
            "SOLVER__WEIGHT_DECAY": 0.0,
            "SOLVER__MAX_ITER": 1,
        }
        start = prepare(tiny(**cfg)).model.state_dict()["head.fc.weight"].clone()
        short(tiny, **cfg, **clip)
        moved.append(float((last(folder)["model"]["head.fc.weight"] - start).abs().max()))
    assert moved[0] > 1e-5
    assert 0 < moved[1] <= 0.05 * 1e-6


def test_the_plan_says_how_lr_and_average_follow_the_batch(tiny: Make) -> None:
    run = prepare(tiny(SOLVER__IMS_PER_BATCH=40))
    text = "batch 40 / 20 = 2: lr x 2; EMA decay 0.9 per step, whatever the batch"
    assert dict(run.plan)["follows the batch"] == text
    assert (run.recipe.scaled_lr, run.recipe.ema_decay) == (0.1, 0.9)


def test_no_averaging(tiny: Make, out: Path) -> None:
    scores = short(tiny, SOLVER__MAX_ITER=2, MODEL_EMA__ENABLED=False)
    assert scores.keys() == {"val/top1", "val/top5", "val/loss"}
    assert not (out / "model_ema.safetensors").exists()
    assert last(out)["ema"] is None
    assert evaluate(tiny(MODEL_EMA__ENABLED=False)) == scores


@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_mixup_changes_the_training_only_where_it_is_on(
    tiny: Make, out: Path, mixup: float
) -> None:
    scores = short(tiny, SOLVER__MAX_ITER=2, INPUT__MIXUP=mixup)
    assert scores.keys() == SCORES


def test_a_network_of_torchvision(tiny: Make, out: Path, material: Path, capsys: Any) -> None:
    cfg = {
        "MODEL__ARCH": "torchvision/resnet18",
        "MODEL__DROP_RATE": 0.0,
        "MODEL__DROP_PATH_RATE": 0.0,
        "INPUT__RESOLUTION": 32,
        "INPUT__RESIZE": 32,
    }
    scores = short(tiny, SOLVER__MAX_ITER=2, **cfg)
    assert evaluate(tiny(**cfg)) == scores
    image = next((material / "test").rglob("*.png"))
    weights = str(out / "model_ema.safetensors")
    assert predict.main(["--weights", weights, str(image)]) == 0
    assert "%" in capsys.readouterr().out


def test_more_outputs_than_classes(tiny: Make, out: Path, material: Path, capsys: Any) -> None:
    short(tiny, SOLVER__MAX_ITER=1, MODEL__NUM_CLASSES=12)
    image = next((material / "test").rglob("*.png"))
    arguments = ["--weights", str(out / "model.safetensors"), "--topk", "12", str(image)]
    assert predict.main(arguments) == 0
    assert "class 11" in capsys.readouterr().out


# --- fine-tuning ---


@pytest.fixture(params=["folder", "zip"])
def own_images(request: Any, material: Path, tmp_path: Path) -> tuple[str, str]:
    """Three classes of one's own, as class folders or a zip of them."""
    made = []
    for part in ("train", "test"):
        root = tmp_path / f"own_{part}"
        for name, digit in (("ant", "3"), ("bee", "5"), ("cat", "8")):
            shutil.copytree(material / part / digit, root / name)
        made.append(str(root))
        if request.param == "zip":
            made[-1] = f"{root}.zip"
            with zipfile.ZipFile(made[-1], "w") as archive:
                for path in sorted(root.rglob("*.png")):
                    archive.write(path, path.relative_to(root))
            shutil.rmtree(root)
    return made[0], made[1]


def test_fine_tuning_to_other_classes(
    tiny: Make, material: Path, trained: Any, tmp_path: Path, own_images: tuple[str, str]
) -> None:
    weights = trained[0] / "model_ema.safetensors"
    folder = tmp_path / "tuned"
    cfg = tiny(
        OUTPUT_DIR=str(folder),
        MODEL__WEIGHTS=str(weights),
        DATASETS__TRAIN=own_images[0],
        DATASETS__TEST=own_images[1],
        SOLVER__BASE_LR=1e-9,
        SOLVER__MAX_EPOCHS=1.0,
        SOLVER__WEIGHT_DECAY=0.0,
        MODEL_EMA__ENABLED=False,
    )
    scores = train(cfg)
    assert scores.keys() == {"val/top1", "val/loss"}  # no top-5 of three classes
    tuned, metadata = read_weights(folder / "model.safetensors")
    before, _ = read_weights(weights)
    assert json.loads(metadata["classes"]) == ["ant", "bee", "cat"]
    assert tuned["head.fc.weight"].shape[0] == 3
    # at so small a rate the weights are still the loaded ones
    name = "backbone.stages.1.0.pw.conv.weight"
    assert name in tuned, sorted(tuned)
    torch.testing.assert_close(tuned[name], before[name])
    # a resumed run does not need the weights it began with
    shutil.move(weights, tmp_path / "gone")
    again = cfg.clone()
    again.defrost()
    again.SOLVER.MAX_EPOCHS = 2.0
    assert train(again, resume=True).keys() == scores.keys()


# --- bad input ---


def one_line(caught: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_classes_that_differ(tiny: Make, material: Path, tmp_path: Path) -> None:
    test = tmp_path / "test"
    shutil.copytree(material / "test", test)
    (test / "3").rename(test / "three")
    with pytest.raises(DataError) as caught:
        train(tiny(DATASETS__TEST=str(test)))
    assert "three" in one_line(caught)


def test_fewer_outputs_than_classes(tiny: Make) -> None:
    with pytest.raises(ConfigError, match=r"MODEL\.NUM_CLASSES is 3"):
        train(tiny(MODEL__NUM_CLASSES=3))


@pytest.fixture
def truncated(material: Path, tmp_path: Path) -> Path:
    root = tmp_path / "broken"
    shutil.copytree(material / "train", root)
    path = sorted((root / "4").glob("*.png"))[0]
    path.write_bytes(path.read_bytes()[:60])
    return path


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_stops(tiny: Make, truncated: Path, workers: int) -> None:
    root = str(truncated.parents[1])
    with pytest.raises(DataError) as caught:
        train(tiny(DATASETS__TRAIN=root, DATALOADER__NUM_WORKERS=workers), pictures=False)
    assert truncated.name in one_line(caught)


def test_a_truncated_image_is_skipped_and_counted(
    tiny: Make, truncated: Path, caplog: Any, capsys: Any
) -> None:
    root = str(truncated.parents[1])
    with caplog.at_level(logging.WARNING):
        short(tiny, SOLVER__MAX_ITER=6, DATASETS__TRAIN=root, DATA__SKIP_BROKEN=True)
    assert truncated.name in caplog.text
    assert "119" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"SOLVER__IMS_PER_BATCH": 0},
        {"SOLVER__IMS_PER_BATCH": 1000},
        {"SOLVER__KEEP_CHECKPOINTS": 0},
        {"SOLVER__OPTIMIZER": "adam"},
        {"MODEL__ARCH": "fbnetv3_z"},
        {"MODEL__ARCH": "nowhere.yaml"},
        {"MODEL__ARCH": "torchvision/resnet19"},
        {"MODEL__ARCH_VARIANT": "alined"},
        {"MODEL__WIDTH": -1.0},
        {"MODEL__WEIGHTS": "nowhere.safetensors"},
        {"MODEL__WEIGHTS": "zoo://nothing"},
        {"MODEL__DEVICE": "tpu"},
        {"MODEL__DEVICE": "cuda:99"},
        {"MODEL__DROP_RATE": 1.0},
        {"INPUT__AUTO_AUGMENT": "best"},
        {"INPUT__INTERPOLATION": "best"},
        {"INPUT__TRAIN_CROP": "best"},
        {"INPUT__MEAN": [0.5]},
        {"INPUT__MEAN": ["a", "b", "c"]},
        {"INPUT__STD": [0.0, 1.0, 1.0]},
        {"INPUT__RESOLUTION": -5},
        {"INPUT__RESIZE": 8},
        {"DATASETS__TRAIN": "nowhere"},
        {"DATASETS__TRAIN": ("a", "b")},
        {"DATASETS__TRAIN": ()},
        {"DATA__TRAIN_LIMIT": -1},
        {"DATA__TRAIN_LIMIT": 10000},
        {"DATALOADER__NUM_WORKERS": -1},
        {"SOLVER__MAX_EPOCHS": -1.0},
        {"TEST__BATCH_SIZE": 0},
        {"TEST__EVAL_EPOCHS": -1.0},
        {"SOLVER__CHECKPOINT_EPOCHS": -1.0},
    ],
    ids=str,
)
def test_bad_values_are_told_in_one_line(tiny: Make, changes: dict[str, Any]) -> None:
    with pytest.raises(FBNetError) as caught:
        train(tiny(**{"SOLVER__MAX_EPOCHS": 1.0, **changes}), pictures=False)
    one_line(caught)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("SEED", -1, "SEED=-1 is out of range; allowed: 0 to 18446744073709551615"),
        ("SEED", 2**64, "allowed: 0 to 18446744073709551615"),
        ("DATALOADER__NUM_WORKERS", -1, "DATALOADER.NUM_WORKERS=-1 is out of range; allowed: >= 0"),
        ("SOLVER__KEEP_CHECKPOINTS", 0, "KEEP_CHECKPOINTS=0 is out of range; allowed: >= 1"),
        ("TEST__EVAL_EPOCHS", float("inf"), "TEST.EVAL_EPOCHS=inf is out of range"),
        ("DATA__TRAIN_LIMIT", 10000, "DATA.TRAIN_LIMIT: .*10000.*allowed: 1 to 120"),
        ("SOLVER__IMS_PER_BATCH", 1000, "SOLVER.IMS_PER_BATCH: .* has 120 images"),
    ],
)
def test_numbers_out_of_range_name_the_key(tiny: Make, key: str, value: Any, allowed: str) -> None:
    with pytest.raises(FBNetError, match=allowed) as caught:
        train(tiny(**{"SOLVER__MAX_EPOCHS": 1.0, key: value}), pictures=False)
    one_line(caught)


def test_an_evaluation_refuses_numbers_too(tiny: Make) -> None:
    with pytest.raises(FBNetError, match="NUM_WORKERS=-1 is out of range; allowed: >= 0"):
        evaluate(tiny(DATALOADER__NUM_WORKERS=-1))


# --- numbers that explode ---


def test_a_non_finite_loss_keeps_the_good_checkpoint(tiny: Make, out: Path) -> None:
    train(tiny(), stop_after=1.0, pictures=False)
    cfg = tiny(SOLVER__BASE_LR=1e12)
    with pytest.raises((NonFiniteLossError, NonFiniteWeightError)) as caught:
        train(cfg, resume=True, pictures=False)
    assert "iteration" in one_line(caught)
    assert "SOLVER.BASE_LR" in one_line(caught)
    assert last(out)["iteration"] == 6
    # and goes on with the remedy that the message names
    good = tiny(SOLVER__BASE_LR=0.001)
    train(good, resume=True, stop_after=2.0, pictures=False)
    assert last(out)["iteration"] == 12


def test_a_non_finite_loss_names_step_lr_and_batch(
    tiny: Make, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    real = ClassificationTask.losses

    def losses(self: Any, model: nn.Module, batch: Any, iteration: int) -> dict[str, Tensor]:
        found = real(self, model, batch, iteration)
        return {"loss": found["loss"] * (torch.inf if iteration == 8 else 1)}

    monkeypatch.setattr(ClassificationTask, "losses", losses)
    with pytest.raises(NonFiniteLossError) as caught:
        train(tiny())
    text = one_line(caught)
    for part in ("loss = inf", "iteration 8", "lr 0.0", "batch 8 of seed 0", "--resume"):
        assert part in text
    assert last(out)["iteration"] == 6


def test_non_finite_weights_are_not_saved(
    tiny: Make, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the last step is finite, its update is not."""
    real = ClassificationTask.losses

    def losses(self: Any, model: nn.Module, batch: Any, iteration: int) -> dict[str, Tensor]:
        if iteration == 11:
            model.get_buffer("backbone.stages.0.0.bn.running_var").fill_(torch.nan)
        return real(self, model, batch, iteration)

    monkeypatch.setattr(ClassificationTask, "losses", losses)
    with pytest.raises(NonFiniteWeightError, match="running_var"):
        train(tiny(), pictures=False)
    assert last(out)["iteration"] == 6


# --- disks ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    size = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    try:
        subprocess.run(size, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system can't be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("pictures", [True, False])
def test_a_full_disk_keeps_the_last_checkpoint(
    tiny: Make, small_disk: Path, pictures: bool
) -> None:
    cfg = tiny(OUTPUT_DIR=str(small_disk / "out"), SOLVER__KEEP_CHECKPOINTS=100)
    with pytest.raises(WriteError) as caught:
        train(cfg, pictures=pictures)
    assert "No space left" in one_line(caught)
    kept = last(small_disk / "out")
    assert kept["iteration"] in (6, 12)
    assert not list((small_disk / "out").glob(".*"))


def test_a_disk_that_is_full_of_records(tiny: Make, small_disk: Path) -> None:
    cfg = tiny(
        OUTPUT_DIR=str(small_disk / "out"),
        SOLVER__LOG_PERIOD=1,
        SOLVER__CHECKPOINT_EPOCHS=1.0,
        SOLVER__KEEP_CHECKPOINTS=1,
    )

    def fill(epochs: float, scores: dict[str, float]) -> None:
        if epochs == 2:
            with contextlib.suppress(OSError), (small_disk / "filler").open("wb", 0) as file:
                while True:
                    file.write(bytes(4096))

    with pytest.raises(WriteError) as caught:
        train(cfg, on_eval=fill)
    assert "No space left" in one_line(caught)
    assert last(small_disk / "out")["iteration"] == 6


def test_arch_names_still_resolve(tiny: Make) -> None:
    cfg = tiny(MODEL__ARCH="fbnetv3_a0", MODEL__ARCH_VARIANT="low_resolution")
    arch = arch_from_config(cfg)
    assert not isinstance(arch, str)
    assert arch.layers() != get_arch("fbnetv3_a0").layers()


def test_safetensors_is_plain(trained: tuple[Path, dict[str, float]]) -> None:
    loaded = safetensors.torch.load_file(trained[0] / "model.safetensors")
    assert all(torch.isfinite(x).all() for x in loaded.values())
