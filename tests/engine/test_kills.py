"""Trainings in processes that are killed, stopped and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.engine.checkpoint import Checkpointer, load_checkpoint
from tests.kills import train_with_kills
from tests.processes import Command, Start, finish
from tests.runs import assert_same_run, last_state

LONG: dict[str, Any] = {
    "SOLVER__MAX_EPOCHS": 6.0,  # 36 iterations
    "SOLVER__CHECKPOINT_EPOCHS": 0.0,
    "SOLVER__CHECKPOINT_PERIOD": 7,
    "TEST__EVAL_EPOCHS": 2.0,
}


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"no {pattern}"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_kills_at_random_iterations_change_nothing(
    command: Command,
    start: Start,
    fork: Start,
    tmp_path: Path,
    workers: int,
    training_kills: int,
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    epochs = 7.0 * (training_kills + 1)  # of 6 steps, more than are drawn until the last kill
    changes = {**LONG, "SOLVER__MAX_EPOCHS": epochs, "DATALOADER__NUM_WORKERS": workers}
    begin = start if workers else fork  # data workers of a fork may outlive its training
    finish(begin(command(OUTPUT_DIR=str(undisturbed), **changes)))

    def resume() -> subprocess.Popen[str]:
        return begin(command("--resume", OUTPUT_DIR=str(killed), **changes))

    iterations = train_with_kills(resume, killed, training_kills, most_steps=28)
    assert len(set(iterations)) > 1, "the kills came too early"
    finish(resume())
    assert_same_run(killed, undisturbed)


@pytest.mark.slow
def test_a_changed_system_clock_changes_nothing(
    command: Command, start: Start, fork: Start, tmp_path: Path, moved_clock: dict[str, str]
) -> None:
    undisturbed, moved = tmp_path / "undisturbed", tmp_path / "moved"
    changes = {**LONG, "SOLVER__MAX_EPOCHS": 10.0}  # the kill must come before the end
    finish(fork(command(OUTPUT_DIR=str(undisturbed), **changes)))
    (tmp_path / "clock").write_text("+400d")
    process = start(command("--resume", OUTPUT_DIR=str(moved), **changes), **moved_clock)
    wait_for(moved, "checkpoint_*14.pt", process)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    (tmp_path / "clock").write_text("-400d")
    finish(start(command("--resume", OUTPUT_DIR=str(moved), **changes), **moved_clock))
    times = [int(path.name.split(".")[3]) for path in moved.glob("events.out.tfevents.*")]
    assert max(times) - min(times) > 700 * 86400, "the clock was not moved"
    assert_same_run(moved, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "name"), [(0, "SIGTERM"), (2, "SIGINT")])
def test_a_signal_to_all_saves_and_stops(
    command: Command, start: Start, fork: Start, tmp_path: Path, workers: int, name: str
) -> None:
    out = tmp_path / "out"
    begin = start if workers else fork
    process = begin(
        command(**{**LONG, "SOLVER__MAX_EPOCHS": 1000.0, "DATALOADER__NUM_WORKERS": workers})
    )
    wait_for(out, "checkpoint_*", process)
    os.killpg(process.pid, signal.Signals[name])  # as Ctrl-C and batch systems do
    _, stderr = finish(process, 2)
    assert last_line(stderr).startswith(f"error: stopped by {name}; saved ")
    assert "--resume" in last_line(stderr)
    latest = Checkpointer(out).latest()
    assert latest is not None
    assert latest.name in last_line(stderr)
    assert load_checkpoint(latest)["iteration"] >= 7


@pytest.mark.slow
def test_a_full_disk_is_one_line(command: Command, fork: Start, full_disk: Path) -> None:
    keep = {"SOLVER__KEEP_CHECKPOINTS": 50, "SOLVER__LOG_PERIOD": 1}
    process = fork(command(OUTPUT_DIR=str(full_disk / "out"), **{**LONG, **keep}))
    _, stderr = finish(process, 2)
    assert "No space left" in last_line(stderr)
    assert last_line(stderr).startswith("error: ")
    assert "Exception" not in stderr
    assert last_state(full_disk / "out")["iteration"] >= 7


def test_json_on_stdout(command: Command, fork: Start) -> None:
    stdout, _ = finish(fork(command(SOLVER__MAX_EPOCHS=1.0)))
    assert {"val/top1", "val/top1_ema"} <= json.loads(stdout).keys()
