"""The best checkpoint, and trainings that end because they no longer improve."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.classification.task import ClassificationTask
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.engine.best import BestScore
from fbnetv3.engine.checkpoint import load_checkpoint
from fbnetv3.training import train
from tests.runs import assert_same, assert_same_run, last_state, one_line

Make = Callable[..., CfgNode]
SCORE = "val/top1_ema"
NAMES = "val/top1, val/top5, val/loss, val/top1_ema, val/top5_ema, val/loss_ema"


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the scores of the averaged weights, by the number of steps of the average."""

    def set_scores(*by_epoch: float) -> None:
        real = ClassificationTask.evaluate
        evaluations: list[int] = []

        def evaluate(self: Any, model: Any, weights: str = "raw") -> dict[str, float]:
            result = real(self, model, weights)
            if weights == "raw":
                evaluations.append(int(model.get_buffer(BATCHES)) // 6 - 1)
                return result
            return {**result, "val/top1": by_epoch[evaluations[-1]]}

        monkeypatch.setattr(ClassificationTask, "evaluate", evaluate)

    return set_scores


BATCHES = "backbone.stages.0.0.bn.num_batches_tracked"


@pytest.mark.parametrize(
    ("metric", "scores", "best", "waits"),
    [
        ("val/top1", [3, 5, 4, 5, 6], [3, 5, 5, 5, 6], [0, 0, 1, 2, 0]),  # ties keep the earlier
        ("val/loss_ema", [3, 5, 2, 2], [3, 3, 2, 2], [0, 1, 0, 1]),
        ("bbox/AP", [0, math.nan, 1, math.inf], [0, 0, 1, 1], [0, 1, 0, 1]),
    ],
)
def test_the_best_score(
    metric: str, scores: list[float], best: list[float], waits: list[int]
) -> None:
    record = BestScore(metric, patience=2)
    for iteration, score in enumerate(scores):
        record = copied(record)
        record.improves(score, iteration, iteration / 2)
        assert record.score == best[iteration]
        assert record.waited == waits[iteration]
        assert record.is_over == (record.waited >= 2)
        assert scores[record.iteration] == record.score
        assert record.epoch == record.iteration / 2


def copied(record: BestScore) -> BestScore:
    """Returns the record as a resumed training has it."""
    again = BestScore(record.metric, patience=2)
    again.load_state(json.loads(json.dumps(record.state())), {})
    return again


def test_states_of_other_runs_are_left_out() -> None:
    record = BestScore("val/top1")
    record.load_state(None, {})
    record.load_state(BestScore("val/loss").state() | {"score": 1.0}, {})
    assert record.score is None
    assert not record.is_over


@pytest.mark.parametrize(
    ("data", "epoch"),
    [
        ({"iters_per_epoch": 100}, 2.0),
        ({"iters_per_epoch": 80, "offset": 0}, 2.5),
        ({"iters_per_epoch": 50, "offset": 150}, 1.0),
        ({"iters_per_epoch": 100, "offset": -100}, 3.0),
    ],
)
def test_the_epoch_of_an_older_checkpoint_follows_from_its_steps(
    data: dict[str, int], epoch: float
) -> None:
    record, state = BestScore(SCORE), {"metric": SCORE, "score": 1.0, "iteration": 200, "waited": 3}
    record.load_state(state, data)
    assert record.epoch == epoch
    record.load_state({**state, "epoch": 7.5}, data)
    assert record.epoch == 7.5


@pytest.mark.parametrize("batch", [40, 30, 10])
def test_the_epoch_of_the_best_score_outlasts_another_number_of_steps(
    tiny: Make, out: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """The best score is that after the first of three epochs; then the batch changes."""
    values = iter([50.0, 40.0, 30.0, 20.0])

    def evaluate(self: Any, model: Any, weights: str = "raw") -> dict[str, float]:
        return {"val/top1": next(values)}

    monkeypatch.setattr(ClassificationTask, "evaluate", evaluate)
    options = {
        "SOLVER__MAX_EPOCHS": 6.0, "SOLVER__KEEP_BEST": "val/top1", "MODEL_EMA__ENABLED": False,
        "SOLVER__EARLY_STOP_PATIENCE": 3,
    }  # fmt: skip
    train(tiny(**options), pictures=False, stop_after=3.0)
    options["SOLVER__IMS_PER_BATCH"] = batch
    with caplog.at_level(logging.WARNING, logger="fbnetv3"):
        result = train(tiny(**options), pictures=False, resume=True)
    assert (result["best/epoch"], result["stopped_early/epoch"]) == (1.0, 4.0)
    assert "after 4 epochs: val/top1 has not improved since epoch 1" in caplog.text
    again = train(tiny(**options), pictures=False, resume=True)
    assert again["best/epoch"] == 1.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"SOLVER__KEEP_BEST": "val/top2"}, f"'val/top2' is no score of .*: '' and {NAMES}"),
        ({"SOLVER__KEEP_BEST": "bbox/AP_ema"}, "no score of this training"),
        (
            {"SOLVER__KEEP_BEST": SCORE, "MODEL_EMA__ENABLED": False},
            "allowed: '' and val/top1, val/top5, val/loss; did you mean val/top1",
        ),
        ({"SOLVER__EARLY_STOP_PATIENCE": 3}, "SOLVER.KEEP_BEST, which is empty"),
        ({"SOLVER__EARLY_STOP_PATIENCE": -1}, "SOLVER.EARLY_STOP_PATIENCE=-1 is out of range"),
    ],
)
def test_names_and_numbers_are_checked_before_the_training(
    tiny: Make, out: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        train(tiny(**changes))
    one_line(caught)
    assert not list(out.glob("*.pt"))


def test_the_best_checkpoint_is_kept(tiny: Make, tmp_path: Path, scores: Any, capsys: Any) -> None:
    """Also by a run that is stopped, resumed and ends with the same bits."""
    scores(30.0, 50.0, 50.0, 40.0)
    options = {"SOLVER__MAX_EPOCHS": 4.0, "SOLVER__KEEP_BEST": SCORE, "SOLVER__KEEP_CHECKPOINTS": 1}
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    result = train(tiny(OUTPUT_DIR=str(whole), **options), pictures=False)
    assert result["best/val/top1_ema"] == 50.0
    assert result["best/epoch"] == 2.0
    assert "stopped_early/epoch" not in result
    train(tiny(OUTPUT_DIR=str(resumed), **options), pictures=False, stop_after=3.0)
    again = train(tiny(OUTPUT_DIR=str(resumed), **options), pictures=False, resume=True)
    assert again == result
    assert_same_run(whole, resumed)
    states = [load_checkpoint(folder / "checkpoint_best.pt") for folder in (whole, resumed)]
    for state in states:
        assert state.pop("iteration") == 12
        assert state.pop("config")
    assert_same(*states)
    assert last_state(whole)["iteration"] == 24
    assert len(list(whole.glob("checkpoint_*"))) == 2


def test_without_the_key_checkpoints_are_as_before(trained_state: dict[str, Any]) -> None:
    assert "best" not in trained_state


@pytest.fixture
def trained_state(tiny: Make, out: Path) -> dict[str, Any]:
    train(tiny(SOLVER__MAX_EPOCHS=0.2, SOLVER__WARMUP_EPOCHS=0.0), pictures=False)
    assert not (out / "checkpoint_best.pt").exists()
    return last_state(out)


def test_a_training_that_no_longer_improves_ends(
    tiny: Make, out: Path, scores: Any, caplog: Any
) -> None:
    scores(30.0, 20.0, 30.0, 40.0, 50.0)
    options = {
        "SOLVER__MAX_EPOCHS": 5.0, "SOLVER__KEEP_BEST": SCORE, "SOLVER__EARLY_STOP_PATIENCE": 2,
        "SOLVER__CHECKPOINT_EPOCHS": 5.0,
    }  # fmt: skip
    with caplog.at_level(logging.WARNING, logger="fbnetv3"):
        result = train(tiny(**options), pictures=False)
    assert "stopped early after 3 epochs: val/top1_ema has not improved since epoch 1" in (
        caplog.text
    )
    assert (result["best/epoch"], result["stopped_early/epoch"]) == (1.0, 3.0)
    assert result[SCORE] == 30.0
    assert last_state(out)["iteration"] == 18
    assert (out / "model_ema.safetensors").exists()
    # resuming trains nothing more, until the patience is raised
    assert train(tiny(**options), pictures=False, resume=True) == result
    assert "raise SOLVER.EARLY_STOP_PATIENCE" in caplog.text
    options["SOLVER__EARLY_STOP_PATIENCE"] = 3
    result = train(tiny(**options), pictures=False, resume=True)
    assert (result["best/epoch"], result["best/val/top1_ema"]) == (5.0, 50.0)
    assert "stopped_early/epoch" not in result
    assert last_state(out)["iteration"] == 30


def test_the_last_evaluation_is_no_early_stop(tiny: Make, scores: Any) -> None:
    scores(30.0, 20.0, 10.0)
    result = train(tiny(SOLVER__KEEP_BEST=SCORE, SOLVER__EARLY_STOP_PATIENCE=2), pictures=False)
    assert "stopped_early/epoch" not in result
