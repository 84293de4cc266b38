"""Trainings of two machines, simulated by two launches with --dist-url."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.engine.machines import call_with_timeout
from tests.processes import ENDS_WITHIN, Command, Start, finish, two_machines
from tests.runs import assert_same_run, last_iteration, wait_for_steps

LONG: dict[str, Any] = {
    "SOLVER__MAX_EPOCHS": 16.0,  # 96 steps
    "SOLVER__CHECKPOINT_EPOCHS": 0.0,
    "SOLVER__CHECKPOINT_PERIOD": 3,
}


@pytest.mark.slow
def test_a_killed_machine_ends_the_other_and_both_resume(
    command: Command, fork: Start, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    first, _ = two_machines(command, fork, OUTPUT_DIR=str(whole), **LONG)
    undisturbed = json.loads(finish(first)[0])
    for killed in (0, 1):
        before = last_iteration(broken)
        processes = two_machines(command, fork, "--resume", OUTPUT_DIR=str(broken), **LONG)
        wait_for_steps(broken, before, processes[0])
        os.killpg(processes[killed].pid, signal.SIGKILL)
        begun = time.monotonic()
        _, stderr = finish(processes[1 - killed], 2)
        assert time.monotonic() - begun < ENDS_WITHIN
        last = stderr.strip().splitlines()[-1]
        assert last.startswith(
            f"error: machine {killed} (rank {killed}) does not answer any more; "
        )
        assert "--resume" in last

    first, _ = two_machines(command, fork, "--resume", OUTPUT_DIR=str(broken), **LONG)
    assert json.loads(finish(first)[0]) == undisturbed
    assert_same_run(whole, broken)


@pytest.mark.slow
def test_machines_that_do_not_share_the_folder_are_refused(
    command: Command, fork: Start, tmp_path: Path
) -> None:
    steps = {**LONG, "SOLVER__MAX_EPOCHS": 0.5}  # 3 steps
    finish(fork(command(OUTPUT_DIR=str(tmp_path / "machine0" / "run"), **steps)))

    def start_in_own_folder(line: list[str]) -> Any:
        rank = line[line.index("--machine-rank") + 1]
        return fork([part.replace("RANK", rank) for part in line])

    folder = str(tmp_path / "machineRANK" / "run")
    for process in two_machines(
        command, start_in_own_folder, "--resume", OUTPUT_DIR=folder, **steps
    ):
        _, stderr = finish(process, 2)
        assert "rank 0 after 3 steps, rank 1 from scratch; set OUTPUT_DIR" in stderr
    assert not list((tmp_path / "machine1").glob("run/checkpoint_*"))


def test_a_call_that_does_not_return_is_abandoned() -> None:
    end = threading.Event()
    with pytest.raises(TimeoutError, match=r"a call did not return within 0\.05 s"):
        call_with_timeout(end.wait, 0.05)
    end.set()


def test_errors_of_a_call_with_a_timeout_are_raised() -> None:
    def fail() -> None:
        raise TimeoutError("of the store")

    assert call_with_timeout(lambda: 3, 60.0) == 3
    with pytest.raises(TimeoutError, match="of the store"):
        call_with_timeout(fail, 60.0)
