"""Real processes that train a detector, are killed and resumed: the same bits come out."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.detection.states import assert_same_run, last
from tests.processes import Start, finish

Command = Callable[..., list[str]]
LONG: dict[str, Any] = {
    "SOLVER__MAX_EPOCHS": 50.0,  # 200 iterations
    "SOLVER__CHECKPOINT_EPOCHS": 0.0,
    "SOLVER__CHECKPOINT_PERIOD": 3,
    "TEST__EVAL_EPOCHS": 10.0,
}


def iteration(folder: Path) -> int:
    """Returns the iteration of the latest checkpoint, 0 where there is none."""
    return max((int(p.stem.split("_")[1]) for p in folder.glob("checkpoint_*.pt")), default=0)


def kill_after(process: subprocess.Popen[str], folder: Path, wanted: int, pause: float) -> None:
    """Kills all ranks some time after the checkpoint of iteration ``wanted`` or a later one."""
    # by progress, not by the clock: on a busy machine all kills would come before the first step
    while process.poll() is None and iteration(folder) < wanted:
        time.sleep(0.005)
    time.sleep(pause)
    assert process.poll() is None, "it ended before it was killed: make the run longer"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_kills_at_random_iterations_change_nothing(
    command: Command, start: Start, tmp_path: Path, processes: int
) -> None:
    """Two processes have a count of anchors each, which a checkpoint must hold for both."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = ("--num-processes", str(processes))
    finish(start(command(*flags, OUTPUT_DIR=str(whole), **LONG)))
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw, reached = random.Random(seed), []
    for _ in range(4):
        process = start(command(*flags, "--resume", OUTPUT_DIR=str(killed), **LONG))
        wanted = iteration(killed) + 3 * draw.randint(1, 12)
        kill_after(process, killed, wanted, draw.uniform(0.0, 0.2))
        reached.append(iteration(killed))
    print(reached)
    finish(start(command(*flags, "--resume", OUTPUT_DIR=str(killed), **LONG)))
    assert_same_run(whole, killed)
    assert len(last(whole)["task"]["loss_normalizer"]) == processes
    assert len(set(last(whole)["task"]["loss_normalizer"])) == processes
