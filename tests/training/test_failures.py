"""Trainings that fail: non-finite numbers and full disks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fbnetv3.classification.task import ClassificationTask
from fbnetv3.config import CfgNode
from fbnetv3.engine.hooks import NonFiniteWeightError
from fbnetv3.engine.trainer import NonFiniteLossError
from fbnetv3.io import WriteError
from fbnetv3.training import train
from tests.runs import last_state, one_line

Make = Callable[..., CfgNode]


def test_a_non_finite_loss_keeps_the_good_checkpoint(tiny: Make, out: Path) -> None:
    train(tiny(), stop_after=1.0, pictures=False)
    cfg = tiny(SOLVER__BASE_LR=1e12)
    with pytest.raises((NonFiniteLossError, NonFiniteWeightError)) as caught:
        train(cfg, resume=True, pictures=False)
    assert "iteration" in one_line(caught)
    assert "SOLVER.BASE_LR" in one_line(caught)
    assert last_state(out)["iteration"] == 6
    # the remedy that the message names works
    good = tiny(SOLVER__BASE_LR=0.001)
    train(good, resume=True, stop_after=2.0, pictures=False)
    assert last_state(out)["iteration"] == 12


def test_a_non_finite_loss_names_step_lr_and_batch(
    tiny: Make, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    real = ClassificationTask.losses

    def losses(self: Any, model: nn.Module, batch: Any, iteration: int) -> dict[str, Tensor]:
        loss = real(self, model, batch, iteration)["loss"]
        return {"loss": loss * (torch.inf if iteration == 8 else 1)}

    monkeypatch.setattr(ClassificationTask, "losses", losses)
    with pytest.raises(NonFiniteLossError) as caught:
        train(tiny())
    text = one_line(caught)
    for part in ("loss = inf", "iteration 8", "lr 0.0", "batch 8 of seed 0", "--resume"):
        assert part in text
    assert last_state(out)["iteration"] == 6


def test_non_finite_weights_are_not_saved(
    tiny: Make, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is finite, although a weight is not."""
    real = ClassificationTask.losses

    def losses(self: Any, model: nn.Module, batch: Any, iteration: int) -> dict[str, Tensor]:
        if iteration == 11:
            model.get_buffer("backbone.stages.0.0.bn.running_var").fill_(torch.nan)
        return real(self, model, batch, iteration)

    monkeypatch.setattr(ClassificationTask, "losses", losses)
    with pytest.raises(NonFiniteWeightError, match="running_var"):
        train(tiny(), pictures=False)
    assert last_state(out)["iteration"] == 6


@pytest.mark.parametrize("pictures", [True, False])
def test_a_full_disk_keeps_the_last_checkpoint(tiny: Make, full_disk: Path, pictures: bool) -> None:
    cfg = tiny(OUTPUT_DIR=str(full_disk / "out"), SOLVER__KEEP_CHECKPOINTS=100)
    with pytest.raises(WriteError) as caught:
        train(cfg, pictures=pictures)
    assert "No space left" in one_line(caught)
    kept = last_state(full_disk / "out")
    assert kept["iteration"] in (6, 12)
    assert not list((full_disk / "out").glob(".*"))


def test_a_disk_that_fills_between_checkpoints(tiny: Make, full_disk: Path) -> None:
    cfg = tiny(
        OUTPUT_DIR=str(full_disk / "out"),
        SOLVER__LOG_PERIOD=1,
        SOLVER__CHECKPOINT_EPOCHS=1.0,
        SOLVER__KEEP_CHECKPOINTS=1,
    )

    def fill(epochs: float, scores: dict[str, float]) -> None:
        if epochs == 2:
            with contextlib.suppress(OSError), (full_disk / "filler").open("wb", 0) as file:
                while True:
                    file.write(bytes(4096))

    with pytest.raises(WriteError) as caught:
        train(cfg, on_eval=fill)
    assert "No space left" in one_line(caught)
    assert last_state(full_disk / "out")["iteration"] == 6
