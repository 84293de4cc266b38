"""A detector trained by two processes, started in three ways: the same bits come out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import (
    TORCHRUN,
    Command,
    Start,
    finish,
    two_machines,
)
from tests.runs import assert_same_run

LONG = {"SOLVER__MAX_EPOCHS": 12.0, "SOLVER__CHECKPOINT_EPOCHS": 1.0}


@pytest.mark.slow
def test_two_processes_train_the_same_however_they_were_started(
    command: Command, start: Start, fork: Start, tmp_path: Path
) -> None:
    flag, torchrun, machines = tmp_path / "flag", tmp_path / "torchrun", tmp_path / "machines"
    finish(fork(command("--num-processes", "2", OUTPUT_DIR=str(flag))))
    finish(start(command(launcher=TORCHRUN, OUTPUT_DIR=str(torchrun))))
    for process in two_machines(command, fork, OUTPUT_DIR=str(machines)):
        finish(process)
    assert_same_run(flag, torchrun)
    assert_same_run(flag, machines)
