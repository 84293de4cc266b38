"""Whole runs through the command line: real processes, real kills, real files."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fbnetv3.engine.checkpoint import Checkpointer, load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
# 8 images a step, 8 steps an epoch, a network of 0.7M weights
TINY = [
    *("MODEL.WIDTH", "0.25", "MODEL.DEVICE", "cpu", "MODEL.DROP_PATH_RATE", "0.1"),
    *("DATA.TRAIN_LIMIT", "64", "INPUT.MIXUP", "0.2"),
    *("SOLVER.IMS_PER_BATCH", "8", "SOLVER.MAX_EPOCHS", "3.0", "SOLVER.LOG_PERIOD", "4"),
]


def command(folder: Path, *arguments: str) -> list[str]:
    script = [sys.executable, "tools/train_net.py", "--config-file", "model_zoo/digits.yaml"]
    flags = [a for a in arguments if a.startswith("--")]
    values = [a for a in arguments if not a.startswith("--")]
    return [*script, *flags, *TINY, "OUTPUT_DIR", str(folder), *values]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *arguments),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


def scores(result: subprocess.CompletedProcess[str]) -> dict[str, float]:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def last_state(folder: Path) -> dict[str, object]:
    latest = Checkpointer(folder).latest()
    assert latest is not None
    return load_checkpoint(latest)


def assert_same(a: object, b: object, where: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    folder = tmp_path_factory.mktemp("trained")
    return folder, scores(run(folder))


def test_a_run_leaves_its_records(trained: tuple[Path, dict[str, float]]) -> None:
    folder, found = trained
    assert {"val/top1", "val/top1_ema", "val/top5", "val/loss", "val/loss_ema"} <= found.keys()
    evaluated = [row["iteration"] for row in lines(folder) if "val/top1_ema" in row]
    assert evaluated == [7, 15, 23]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(folder.glob("checkpoint_*.pt"))) == 2
    assert list(folder.glob("events.out.tfevents.*"))
    assert not list(folder.glob(".*")), "temporary files stayed behind"


def test_evaluation_alone_finds_the_same_scores(trained: tuple[Path, dict[str, float]]) -> None:
    folder, found = trained
    assert scores(run(folder, "--eval-only")) == found
    weights = str(folder / "model_ema.safetensors")
    averaged = scores(run(folder, "--eval-only", "MODEL.WEIGHTS", weights))
    assert averaged["val/top1"] == found["val/top1_ema"]


def test_a_used_folder_is_not_overwritten(trained: tuple[Path, dict[str, float]]) -> None:
    folder, found = trained
    result = run(folder)
    assert result.returncode == 2
    assert "--resume" in result.stderr
    assert "--overwrite" in result.stderr
    assert scores(run(folder, "--resume")) == found


def test_workers_do_not_change_the_result(
    trained: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    assert scores(run(tmp_path, "DATALOADER.NUM_WORKERS", "1")) == trained[1]


def test_a_loss_that_explodes_stops_with_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, "SOLVER.BASE_LR", "1e30", "SOLVER.WARMUP_EPOCHS", "0.0")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "iteration" in last
    assert "lr 1" in last
    assert "SOLVER.BASE_LR" in last


def test_an_unknown_key_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, "SOLVER.BASE_LRR", "1")
    assert result.returncode == 2
    assert "did you mean BASE_LR" in result.stderr
    assert "Traceback" not in result.stderr


def test_sigterm_saves_and_the_rest_is_the_same(
    trained: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        command(tmp_path), cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
    )
    wait_for_lines(tmp_path, 2)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    if process.returncode:  # else it was faster than the signal
        assert "--resume" in stderr
    assert scores(run(tmp_path, "--resume")) == trained[1]
    assert_same(last_state(tmp_path)["ema"], last_state(trained[0])["ema"])


def wait_for_lines(folder: Path, count: int) -> None:
    """Waits until a run has written so many lines of metrics."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (folder / "metrics.json").exists() and len(lines(folder)) >= count:
            return
        time.sleep(0.05)
    raise TimeoutError(f"{folder} got no {count} lines of metrics")


@pytest.mark.slow
def test_kills_at_any_time_change_nothing(
    trained: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    often = ("SOLVER.CHECKPOINT_EPOCHS", "0.25")
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(
            command(tmp_path, "--resume", *often),
            cwd=ROOT,
            env=environment(),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            process.wait(timeout=draw.uniform(4.0, 12.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        if process.returncode == 0 or kills == 8:
            break
    assert kills, "nothing was killed"
    assert scores(run(tmp_path, "--resume", *often)) == trained[1]
    ours, undisturbed = last_state(tmp_path), last_state(trained[0])
    for part in ("model", "ema", "optimizer", "scheduler", "iteration"):
        assert_same(ours[part], undisturbed[part], part)
