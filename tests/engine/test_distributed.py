"""Trainings of two processes: agreement with one process, failing ranks."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.processes import (
    ENDS_WITHIN,
    TORCHRUN,
    Start,
    assert_torchrun_names,
    finish,
    kill_rank,
    ranks_of,
    wait_for_checkpoint,
)
from tests.runs import assert_same_run, last_state

Command = Callable[..., list[str]]
# draws are per rank, and mixup pairs images within one: off
PLAIN: dict[str, Any] = {
    "MODEL__DROP_RATE": 0.0,
    "MODEL__DROP_PATH_RATE": 0.0,
    "INPUT__MIXUP": 0.0,
    "SOLVER__MAX_EPOCHS": 1.0,  # 6 steps
    "SOLVER__LOG_PERIOD": 1,
}


# --- two processes ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "device"),
    [("flag", "cpu"), ("torchrun", "cpu"), ("flag", "cuda"), ("torchrun", "cuda")],
)
def test_two_processes_train_as_one(
    command: Command, start: Start, fork: Start, tmp_path: Path, how: str, device: str
) -> None:
    """By gloo on CPUs, by nccl on GPUs."""
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip(f"needs two GPUs; PyTorch sees {torch.cuda.device_count()}")
    one, two = tmp_path / "one", tmp_path / "two"
    options = {**PLAIN, "MODEL__DEVICE": device}
    first, _ = finish(fork(command(OUTPUT_DIR=str(one), **options)))
    if how == "flag":
        line = command("--num-processes", "2", OUTPUT_DIR=str(two), **options)
    else:
        finish(fork(command(OUTPUT_DIR=str(two), SEED=1, **options)))  # other weights
        line = command("--overwrite", launcher=TORCHRUN, OUTPUT_DIR=str(two), **options)
    second, stderr = finish(start(line))
    assert "10 x 2 process(es)" in stderr
    assert "over the 20 images of all 2 processes" in stderr
    a, b = last_state(one), last_state(two)
    for name, weight in a["model"].items():
        _assert_close(name, weight, b["model"][name])
    # the training loss is that of rank 0's half of each batch: compare scores instead
    alone, together = json.loads(first), json.loads(second)
    assert together["val/top1"] == alone["val/top1"]
    assert together["val/loss"] == pytest.approx(alone["val/loss"], abs=2e-3)
    assert _files(two) == _files(one)
    assert len(list(two.glob("events*"))) == 1
    # one process scores the weights that two trained exactly as the two did
    alone = json.loads(finish(fork(command("--eval-only", OUTPUT_DIR=str(two), **options)))[0])
    assert alone["val/top1"] == together["val/top1"]
    assert alone["val/top1_ema"] == together["val/top1_ema"]


def _files(folder: Path) -> list[str]:
    # events.out.tfevents.TIME.HOST.PID
    return sorted(path.name.split(".out.")[0] for path in folder.iterdir())


def _assert_close(name: str, one: torch.Tensor, two: torch.Tensor) -> None:
    if name.endswith("running_var"):
        # N / (N - 1) of the smallest map of 20 images at 4 x 4 px: 320 values, 0.3 %; after
        # mbpool's pooling there is no norm
        torch.testing.assert_close(two, one, rtol=6e-3, atol=1e-6)
    else:
        # 6 steps of float32 sums in another order: a few 1e-7 a step, grown by batch norm
        torch.testing.assert_close(two, one, rtol=1e-3, atol=2e-5)


@pytest.mark.slow
def test_without_sync_bn_ranks_end_with_equal_norms(
    command: Command, fork: Start, tmp_path: Path
) -> None:
    """All ranks score one model, whose weights differ from those of a single process."""
    out, one = tmp_path / "out", tmp_path / "one"
    changes = {**PLAIN, "MODEL__SYNC_BN": False, "OUTPUT_DIR": str(out)}
    stdout, _ = finish(fork(command("--num-processes", "2", **changes)))
    alone, _ = finish(fork(command("--eval-only", **changes)))
    assert json.loads(stdout) == pytest.approx(json.loads(alone), abs=2e-4)
    finish(fork(command(**{**PLAIN, "OUTPUT_DIR": str(one)})))
    name = "backbone.stages.0.0.conv.weight"
    with pytest.raises(AssertionError):  # otherwise the comparison with one process proves nothing
        _assert_close(name, last_state(one)["model"][name], last_state(out)["model"][name])


@pytest.mark.slow
def test_norms_that_cannot_be_synchronised_are_equal_on_all_ranks(
    command: Command, fork: Start, tmp_path: Path
) -> None:
    """Norms of timm's networks with an activation stay those of each rank on CPUs."""
    pytest.importorskip("timm")
    arch = {"MODEL__ARCH": "timm/efficientnet_b0", "INPUT__RESIZE": 0, "INPUT__RESOLUTION": 32}
    changes = {**PLAIN, **arch, "OUTPUT_DIR": str(tmp_path / "out")}
    stdout, stderr = finish(fork(command("--num-processes", "2", **changes)))
    plan = " ".join(stderr.replace("│", " ").split())
    assert "cannot synchronise BatchNormAct2d here" in plan
    alone, _ = finish(fork(command("--eval-only", **changes)))
    assert json.loads(stdout) == pytest.approx(json.loads(alone), rel=1e-4, abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_others(
    command: Command, fork: Start, tmp_path: Path, rank: int
) -> None:
    out = tmp_path / "out"
    line = command("--num-processes", "2", **{**PLAIN, "SOLVER__MAX_EPOCHS": 1000.0})
    process = fork(line)
    wait_for_checkpoint(out, process)
    children = ranks_of(process)
    kill_rank(process, rank)
    begun = time.monotonic()
    _, stderr = finish(process, 2)
    assert time.monotonic() - begun < ENDS_WITHIN
    assert stderr.strip().splitlines()[-1].startswith(f"error: rank {rank} stopped")
    assert "SIGKILL" in stderr
    assert "--resume" in stderr
    assert not any(_alive(pid) for pid in children)


@pytest.mark.slow
def test_torchrun_names_a_killed_rank_and_goes_on(
    command: Command, start: Start, fork: Start, tmp_path: Path
) -> None:
    long = {"SOLVER__MAX_EPOCHS": 12.0, "SOLVER__CHECKPOINT_EPOCHS": 1.0, "TEST__EVAL_EPOCHS": 4.0}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(fork(command("--num-processes", "2", OUTPUT_DIR=str(whole), **long)))
    process = start(command(launcher=TORCHRUN, OUTPUT_DIR=str(broken), **long))
    wait_for_checkpoint(broken, process)
    kill_rank(process, 1)
    begun = time.monotonic()
    _, stderr = finish(process, 1, traceback=True)
    assert time.monotonic() - begun < ENDS_WITHIN
    assert_torchrun_names(stderr, 1)
    assert stderr.count("Traceback") == 1  # torchrun's own
    # under torchrun, the test of stops resumes
    finish(fork(command("--num-processes", "2", "--resume", OUTPUT_DIR=str(broken), **long)))
    assert_same_run(whole, broken)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["flag", "torchrun"])
def test_bad_data_on_one_rank_ends_the_others(
    command: Command, start: Start, fork: Start, material: Path, tmp_path: Path, how: str
) -> None:
    root = tmp_path / "broken"
    shutil.copytree(material / "train", root)
    path = sorted((root / "7").glob("*.png"))[0]
    path.write_bytes(path.read_bytes()[:50])
    changes = {**PLAIN, "DATASETS__TRAIN": str(root), "SOLVER__MAX_EPOCHS": 5.0}
    if how == "flag":
        process = fork(command("--num-processes", "2", **changes))
        _, stderr = finish(process, 2)
        assert "error: rank" in stderr.strip().splitlines()[-1]
    else:
        _, stderr = finish(start(command(launcher=TORCHRUN, **changes)), 1, traceback=True)
    messages = [line for line in stderr.splitlines() if line.startswith("error (rank ")]
    assert any(path.name in line for line in messages), stderr


@pytest.mark.slow
def test_overwriting_and_resuming_with_two(command: Command, fork: Start, tmp_path: Path) -> None:
    """Under torchrun, the test of two processes that train as one overwrites."""
    out, two = tmp_path / "out", ("--num-processes", "2")
    finish(fork(command(*two, **PLAIN)))
    _, stderr = finish(fork(command(*two, **PLAIN)), 2)
    assert "--overwrite" in stderr
    finish(fork(command(*two, "--overwrite", **PLAIN)))
    assert last_state(out)["iteration"] == 6
    finish(fork(command("--resume", *two, **{**PLAIN, "SOLVER__MAX_EPOCHS": 2.0})))
    assert last_state(out)["iteration"] == 12


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
