"""A detector trained by two processes: started by the flag, by torchrun, or on two machines."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.detection.states import assert_same_run
from tests.engine.test_distributed import TORCHRUN
from tests.processes import Command, Start, finish, two_machines


@pytest.mark.slow
def test_two_processes_train_the_same_however_they_were_started(
    command: Command, start: Start, tmp_path: Path
) -> None:
    flag, torchrun, machines = tmp_path / "flag", tmp_path / "torchrun", tmp_path / "machines"
    finish(start(command("--num-processes", "2", OUTPUT_DIR=str(flag))))
    finish(start(command(launcher=TORCHRUN, OUTPUT_DIR=str(torchrun))))
    for process in two_machines(command, start, OUTPUT_DIR=str(machines)):
        finish(process)
    assert_same_run(flag, torchrun)
    assert_same_run(flag, machines)


@pytest.mark.slow
def test_a_killed_machine_stops_the_other_and_both_go_on(
    command: Command, start: Start, tmp_path: Path
) -> None:
    long = {"SOLVER__MAX_EPOCHS": 12.0, "SOLVER__CHECKPOINT_EPOCHS": 1.0}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(command("--num-processes", "2", OUTPUT_DIR=str(whole), **long)))
    first, second = two_machines(command, start, OUTPUT_DIR=str(broken), **long)
    deadline = time.monotonic() + 200
    while not list(broken.glob("checkpoint_*")):
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert first.poll() is None, "it ended before the other was killed: make the run longer"
    os.killpg(second.pid, signal.SIGKILL)
    begun = time.monotonic()
    _, stderr = finish(first, 2)
    assert time.monotonic() - begun < 15
    assert "error (rank 0): lost the connection to another rank" in stderr
    for process in two_machines(command, start, "--resume", OUTPUT_DIR=str(broken), **long):
        finish(process)
    assert_same_run(whole, broken)
