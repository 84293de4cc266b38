"""Keys of the config and what they change in a training."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.classification.prepare import prepare_classifier
from fbnetv3.cli import predict
from fbnetv3.config import CfgNode
from fbnetv3.engine.experiment import Experiment
from fbnetv3.engine.metrics import read_metrics
from fbnetv3.engine.process import runtime_context
from fbnetv3.training import evaluate, train
from tests.runs import last_state, scores_by_iteration, train_steps

Make = Callable[..., CfgNode]
SCORES = {f"val/{name}{tag}" for name in ("top1", "top5", "loss") for tag in ("", "_ema")}


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
    scores = train_steps(
        tiny,
        7,
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


@pytest.mark.parametrize("steps", [1, 6, 10])
def test_iterations_are_not_rounded_to_epochs(tiny: Make, out: Path, steps: int) -> None:
    """An epoch has 6 steps."""
    train_steps(tiny, steps, SOLVER__LOG_PERIOD=1)
    rows = read_metrics(out / "metrics.json")
    assert [row["iteration"] for row in rows] == [*range(steps)]
    assert "val/top1" in rows[-1]
    assert rows[-1]["lr"] == pytest.approx(0.05 * 0.5 * (1 + math.cos(math.pi * (1 - 1 / steps))))
    assert max(path.name for path in out.glob("checkpoint_*")) == f"checkpoint_{steps:08}.pt"


def prepared(cfg: CfgNode) -> Experiment:
    return prepare_classifier(cfg, runtime_context(cfg))


def test_clipping_bounds_the_step(tiny: Make, tmp_path: Path) -> None:
    moved = []
    for name, clip in (("free", {}), ("clipped", {"SOLVER__CLIP_GRADIENTS__ENABLED": True})):
        folder = tmp_path / name
        cfg = {
            "OUTPUT_DIR": str(folder),
            "SOLVER__CLIP_GRADIENTS__CLIP_VALUE": 1e-6,
            "SOLVER__WEIGHT_DECAY": 0.0,
        }
        start = prepared(tiny(**cfg)).model.state_dict()["head.fc.weight"].clone()
        train_steps(tiny, 1, **cfg, **clip)
        moved.append(float((last_state(folder)["model"]["head.fc.weight"] - start).abs().max()))
    assert moved[0] > 1e-5
    assert 0 < moved[1] <= 0.05 * 1e-6


def test_the_plan_says_how_lr_and_average_follow_the_batch(tiny: Make) -> None:
    experiment = prepared(tiny(SOLVER__IMS_PER_BATCH=40))
    text = "batch 40 / 20 = 2: lr x 2; EMA decay 0.9 per step, whatever the batch"
    assert dict(experiment.plan)["scaling with the batch"] == text
    assert (experiment.recipe.scaled_lr, experiment.recipe.ema_decay) == (0.1, 0.9)


@pytest.mark.parametrize("side", [0, 16, 24])
def test_the_plan_names_a_resolution_that_is_not_the_networks_own(tiny: Make, side: int) -> None:
    row = dict(prepared(tiny(INPUT__RESOLUTION=side, INPUT__RESIZE=32)).plan).get("resolution")
    other = "INPUT.RESOLUTION 24 px instead of the network's 16 px, which 0 selects"
    assert row == (other if side == 24 else None)


def test_no_averaging(tiny: Make, out: Path) -> None:
    scores = train_steps(tiny, 2, MODEL_EMA__ENABLED=False)
    assert scores.keys() == {"val/top1", "val/top5", "val/loss"}
    assert not (out / "model_ema.safetensors").exists()
    assert last_state(out)["ema"] is None
    assert evaluate(tiny(MODEL_EMA__ENABLED=False)) == scores


@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_mixup_changes_the_training_only_where_it_is_on(
    tiny: Make, out: Path, mixup: float
) -> None:
    scores = train_steps(tiny, 2, INPUT__MIXUP=mixup)
    assert scores.keys() == SCORES


def test_a_network_of_torchvision(tiny: Make, out: Path, material: Path, capsys: Any) -> None:
    cfg = {
        "MODEL__ARCH": "torchvision/resnet18",
        "MODEL__DROP_RATE": 0.0,
        "MODEL__DROP_PATH_RATE": 0.0,
        "INPUT__RESOLUTION": 32,
        "INPUT__RESIZE": 32,
    }
    scores = train_steps(tiny, 2, **cfg)
    assert evaluate(tiny(**cfg)) == scores
    image = next((material / "test").rglob("*.png"))
    weights = str(out / "model_ema.safetensors")
    assert predict.main(["--weights", weights, str(image)]) == 0
    assert "%" in capsys.readouterr().out
