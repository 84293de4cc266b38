"""What runs leave in their folders, and comparisons of them bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, equal

from fbnetv3.config import CfgNode
from fbnetv3.engine.checkpoint import Checkpointer, load_checkpoint
from fbnetv3.engine.metrics import read_metrics
from fbnetv3.training import train
from fbnetv3.weights.files import read_tensors

SCORES = {"val/top1": "val/", "bbox/AP": "bbox/"}
"""A score that every evaluation of a task has -> the prefix of all scores of the task."""


def last_state(folder: Path) -> dict[str, Any]:
    """Returns the state in the newest checkpoint of a run."""
    path = Checkpointer(folder).latest()
    assert path is not None, f"{folder} has no checkpoint"
    return load_checkpoint(path)


def last_iteration(folder: Path) -> int:
    """Returns the iteration of the newest checkpoint by its name, 0 where there is none."""
    return max((int(p.stem.split("_")[1]) for p in folder.glob("checkpoint_*.pt")), default=0)


def wait_for_steps(folder: Path, before: int, process: Any) -> None:
    """Waits until a resumed training has written another checkpoint than that of an iteration."""
    deadline = time.monotonic() + 300
    while last_iteration(folder) == before:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Asserts that two states are equal, tensors bit for bit; ``where`` names the difference."""
    assert type(one) is type(other), where
    if isinstance(one, Tensor):
        assert equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    else:
        assert one == other, where


def assert_same_state(one: Path, other: Path) -> None:
    """Asserts that two runs have the same last checkpoint and the same scores.

    The config is left out: it holds the name of the folder.
    """
    states = [last_state(folder) for folder in (one, other)]
    for state in states:
        del state["config"]
    assert_same(*states, "state")
    assert scores_by_iteration(one) == scores_by_iteration(other)
    assert rows_without_times(one) == rows_without_times(other)


def assert_same_run(one: Path, other: Path) -> None:
    """Asserts that two finished runs left the same, exported weights included, and no more."""
    assert_same_state(one, other)
    exported = sorted(path.name for path in one.glob("*.safetensors"))
    assert exported == sorted(path.name for path in other.glob("*.safetensors")) != []
    for name in exported:
        assert_same(read_tensors(one / name)[0], read_tensors(other / name)[0], name)
    hidden = [path.name for folder in (one, other) for path in folder.glob(".*")]
    assert not hidden, f"left in the folders: {', '.join(hidden)}"


def scores_by_iteration(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Returns (iteration, scores) of every evaluation in metrics.json."""
    evaluations = [
        (row["iteration"], {k: v for k, v in row.items() if k.startswith(prefix)})
        for row in read_metrics(folder / "metrics.json")
        for score, prefix in SCORES.items()
        if score in row
    ]
    assert evaluations, f"{folder} has no scores"
    return evaluations


def rows_without_times(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.json without the seconds, which differ from run to run."""
    times = {"time", "data_time", "eta_seconds", "images_per_second", "peak_memory_mb"}
    rows = read_metrics(folder / "metrics.json")
    return [{k: v for k, v in row.items() if k not in times} for row in rows]


def train_steps(make: Callable[..., CfgNode], steps: int, **changes: Any) -> dict[str, float]:
    """Trains a config for some steps, without warm-up; returns the scores.

    Args:
        make: Makes the config from ``changes``, as the fixture ``tiny`` does.
        steps: Number of steps.
        changes: Keys with ``__`` in the place of dots.
    """
    length = {"SOLVER__MAX_EPOCHS": 0.0, "SOLVER__WARMUP_EPOCHS": 0.0, "SOLVER__MAX_ITER": steps}
    return train(make(**length, **changes))


def one_line(caught: pytest.ExceptionInfo[BaseException]) -> str:
    """Returns the message of an exception, which must be one line."""
    text = str(caught.value)
    assert "\n" not in text
    return text
