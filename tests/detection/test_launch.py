"""A detector trained by two processes: started by the flag, by torchrun, or on two machines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.detection.states import assert_same_run
from tests.processes import (
    ENDS_WITHIN,
    TORCHRUN,
    Command,
    Start,
    assert_torchrun_names,
    finish,
    kill_rank,
    two_machines,
    wait_for_checkpoint,
)

LONG = {"SOLVER__MAX_EPOCHS": 12.0, "SOLVER__CHECKPOINT_EPOCHS": 1.0}


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
@pytest.mark.parametrize("how", ["flag", "torchrun"])
def test_a_killed_rank_ends_the_other_and_both_go_on(
    command: Command, start: Start, tmp_path: Path, how: str
) -> None:
    flags = ("--num-processes", "2") if how == "flag" else ()
    launcher = TORCHRUN if how == "torchrun" else (sys.executable,)

    def run(folder: Path, *more: str) -> subprocess.Popen[str]:
        return start(command(*flags, *more, launcher=launcher, OUTPUT_DIR=str(folder), **LONG))

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _, stderr = finish(run(whole))
    assert "over the 4 images of all 2 processes" in stderr
    process = run(broken)
    wait_for_checkpoint(broken, process)
    kill_rank(process, 1)
    begun = time.monotonic()
    _, stderr = finish(process, 2 if how == "flag" else 1, traceback=how == "torchrun")
    assert time.monotonic() - begun < ENDS_WITHIN
    if how == "flag":
        last = stderr.strip().splitlines()[-1]
        assert last.startswith("error: rank 1 stopped with exit status -9 (SIGKILL); ")
    else:
        assert_torchrun_names(stderr, 1)
    finish(run(broken, "--resume"))
    assert_same_run(whole, broken)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_machine_stops_the_other_and_both_go_on(
    command: Command, start: Start, tmp_path: Path, killed: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(command("--num-processes", "2", OUTPUT_DIR=str(whole), **LONG)))
    jobs = two_machines(command, start, OUTPUT_DIR=str(broken), **LONG)
    wait_for_checkpoint(broken, jobs[0])
    os.killpg(jobs[killed].pid, signal.SIGKILL)
    begun = time.monotonic()
    _, stderr = finish(jobs[1 - killed], 2)
    assert time.monotonic() - begun < ENDS_WITHIN
    last = stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: machine {killed} (rank {killed}) does not answer any more; ")
    for process in two_machines(command, start, "--resume", OUTPUT_DIR=str(broken), **LONG):
        finish(process)
    assert_same_run(whole, broken)
