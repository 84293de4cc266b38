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
    "SOLVER__MAX_EPOCHS": 50.0,  # 200 iterations
    "SOLVER__CHECKPOINT_EPOCHS": 0.0,
    "SOLVER__CHECKPOINT_PERIOD": 3,
    "TEST__EVAL_EPOCHS": 10.0,
}


@pytest.mark.slow
def test_kills_at_random_iterations_change_nothing(
    command: Command, start: Start, tmp_path: Path
) -> None:
    """Each process has its own running count of anchors; a checkpoint must hold both."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = ("--num-processes", "2")
    finish(start(command(*flags, OUTPUT_DIR=str(whole), **LONG)))

    def resume() -> subprocess.Popen[str]:
        return start(command(*flags, "--resume", OUTPUT_DIR=str(killed), **LONG))

    train_with_kills(resume, killed, kills=4, most_steps=36)
    finish(resume())
    assert_same_run(whole, killed)
    counts = last_state(whole)["task"]["loss_normalizer"]
    assert len(counts) == len(set(counts)) == 2
