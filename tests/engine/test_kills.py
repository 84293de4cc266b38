"""Real processes that are killed, stopped and resumed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fbnetv3.engine.checkpoint import Checkpointer, load_checkpoint, read_weights
from fbnetv3.engine.metrics import read_metrics
from tests.processes import Start, finish

Command = Callable[..., list[str]]
LONG: dict[str, Any] = {
    "SOLVER__MAX_EPOCHS": 10.0,  # 60 iterations
    "SOLVER__CHECKPOINT_EPOCHS": 0.0,
    "SOLVER__CHECKPOINT_PERIOD": 7,
    "TEST__EVAL_EPOCHS": 2.0,
}
PARTS = ("model", "ema", "optimizer", "scheduler", "iteration", "rng", "data", "recipe")


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"no {pattern}"
        time.sleep(0.02)


def differences(one: Any, other: Any, where: str) -> list[str]:
    if isinstance(one, Tensor):
        return [] if torch.equal(one, other) else [where]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [where]
        return [d for key in one for d in differences(one[key], other[key], f"{where}.{key}")]
    if isinstance(one, (list, tuple)):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, pair in pairs for d in differences(*pair, f"{where}[{i}]")]
    return [] if one == other else [where]


def assert_same_run(one: Path, other: Path) -> None:
    states = []
    for folder in (one, other):
        path = Checkpointer(folder).latest()
        assert path is not None
        states.append(load_checkpoint(path))
    for part in PARTS:
        assert differences(states[0][part], states[1][part], part) == []
    for name in ("model.safetensors", "model_ema.safetensors"):
        weights = [read_weights(folder / name)[0] for folder in (one, other)]
        assert differences(*weights, name) == []
    assert scores(one) == scores(other)
    assert [p.name for p in one.glob(".*")] == []


def scores(folder: Path) -> list[tuple[int, dict[str, float]]]:
    rows = [row for row in read_metrics(folder / "metrics.json") if "val/top1" in row]
    return [(r["iteration"], {k: v for k, v in r.items() if k[:4] == "val/"}) for r in rows]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_kills_at_random_times_change_nothing(
    command: Command, start: Start, tmp_path: Path, workers: int
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    changes = {**LONG, "DATALOADER__NUM_WORKERS": workers}
    begun = time.monotonic()
    finish(start(command(OUTPUT_DIR=str(undisturbed), **changes)))
    whole = time.monotonic() - begun
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw, kills = random.Random(seed), 0
    while kills < 5:
        process = start(command("--resume", OUTPUT_DIR=str(killed), **changes))
        try:
            # most of a short run is the start of Python: aim at the rest
            process.wait(draw.uniform(0.4, 1.0) * whole)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0, process.communicate()[1]
        break
    assert kills > 0
    finish(start(command("--resume", OUTPUT_DIR=str(killed), **changes)))
    assert_same_run(killed, undisturbed)


def _iteration(folder: Path) -> int:
    """Returns the iteration of the latest checkpoint, 0 where there is none."""
    return max((int(p.stem.split("_")[1]) for p in folder.glob("checkpoint_*.pt")), default=0)


@pytest.mark.slow
def test_kills_while_training_change_nothing(
    command: Command, start: Start, tmp_path: Path
) -> None:
    """Each kill comes at a random moment after as many further checkpoints as were drawn."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    changes = {**LONG, "SOLVER__MAX_EPOCHS": 50.0}  # 300 iterations
    finish(start(command(OUTPUT_DIR=str(undisturbed), **changes)))
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw, reached = random.Random(seed), []
    for _ in range(8):
        # counted in checkpoints, of which there are 42: by the clock, all kills on a busy machine
        # come before the second one
        further = draw.randint(0, 3)
        wanted = _iteration(killed) + 7 * further
        process = start(command("--resume", OUTPUT_DIR=str(killed), **changes))
        events = len(list(killed.glob("events.*")))
        while process.poll() is None and (
            len(list(killed.glob("events.*"))) == events or _iteration(killed) < wanted
        ):
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.3))
        assert process.poll() is None, "it ended before it was killed: make the run longer"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        reached.append(_iteration(killed))
    print(reached)
    assert len(set(reached)) > 2, "the kills came too early"
    finish(start(command("--resume", OUTPUT_DIR=str(killed), **changes)))
    assert_same_run(killed, undisturbed)


def test_a_clock_that_was_set_back_changes_nothing(
    command: Command, start: Start, tmp_path: Path, moved_clock: dict[str, str]
) -> None:
    undisturbed, moved = tmp_path / "undisturbed", tmp_path / "moved"
    finish(start(command(OUTPUT_DIR=str(undisturbed), **LONG)))
    for clock, wanted in (("+400d", 14), ("-400d", 35)):
        (tmp_path / "clock").write_text(clock)
        process = start(command("--resume", OUTPUT_DIR=str(moved), **LONG), **moved_clock)
        wait_for(moved, f"checkpoint_*{wanted}.pt", process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    finish(start(command("--resume", OUTPUT_DIR=str(moved), **LONG), **moved_clock))
    times = [int(path.name.split(".")[3]) for path in moved.glob("events.out.tfevents.*")]
    assert max(times) - min(times) > 700 * 86400, "the clock was not moved"
    assert_same_run(moved, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_to_all_saves_and_stops(
    command: Command, start: Start, tmp_path: Path, workers: int, name: str
) -> None:
    out = tmp_path / "out"
    process = start(
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
def test_a_full_disk_is_one_line(command: Command, start: Start, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system can't be mounted here: {error}")
    try:
        keep = {"SOLVER__KEEP_CHECKPOINTS": 50, "SOLVER__LOG_PERIOD": 1}
        process = start(command(OUTPUT_DIR=str(disk / "out"), **{**LONG, **keep}))
        _, stderr = finish(process, 2)
        assert "No space left" in last_line(stderr)
        assert last_line(stderr).startswith("error: ")
        assert "Exception" not in stderr
        latest = Checkpointer(disk / "out").latest()
        assert latest is not None
        assert load_checkpoint(latest)["iteration"] >= 7
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_json_on_stdout(command: Command, start: Start) -> None:
    stdout, _ = finish(start(command(SOLVER__MAX_EPOCHS=1.0)))
    assert {"val/top1", "val/top1_ema"} <= json.loads(stdout).keys()
