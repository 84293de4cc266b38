"""A detector that two processes train, killed and resumed: the same bits come out."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kills import train_with_kills
from tests.processes import Command, Start, finish
from tests.runs import assert_same_run, last_state

LONG: dict[str, Any] = {
    "SOLVER__CHECKPOINT_EPOCHS": 0.0,
    "SOLVER__CHECKPOINT_PERIOD": 3,
    "TEST__EVAL_EPOCHS": 4.0,
}


@pytest.mark.slow
def test_kills_at_random_iterations_change_nothing(
    command: Command, fork: Start, tmp_path: Path, training_kills: int
) -> None:
    """Each process has its own running count of anchors; a checkpoint must hold both."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = ("--num-processes", "2")
    epochs = 4.0 * (training_kills + 1)  # of 4 steps, more than are drawn until the last kill
    changes = {**LONG, "SOLVER__MAX_EPOCHS": epochs}
    finish(fork(command(*flags, OUTPUT_DIR=str(whole), **changes)))

    def resume() -> subprocess.Popen[str]:
        return fork(command(*flags, "--resume", OUTPUT_DIR=str(killed), **changes))

    train_with_kills(resume, killed, training_kills, most_steps=13)
    finish(resume())
    assert_same_run(whole, killed)
    counts = last_state(whole)["task"]["loss_normalizer"]
    assert len(counts) == len(set(counts)) == 2
