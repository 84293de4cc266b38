"""Comparing what trainings leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, equal

from fbnetv3.engine.checkpoint import Checkpointer, load_checkpoint
from fbnetv3.engine.metrics import read_metrics

PARTS = ("model", "ema", "optimizer", "scheduler", "iteration", "rng", "task")


def last(folder: Path) -> dict[str, Any]:
    path = Checkpointer(folder).latest()
    assert path is not None
    return load_checkpoint(path)


def assert_same(one: Any, other: Any, where: str = "") -> None:
    if isinstance(one, Tensor):
        assert equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    else:
        assert one == other, where


def assert_same_run(one: Path, other: Path) -> None:
    states = last(one), last(other)
    for part in PARTS:
        assert_same(states[0][part], states[1][part], part)
    assert scores(one) == scores(other)


def scores(folder: Path) -> list[tuple[int, dict[str, float]]]:
    rows = [row for row in read_metrics(folder / "metrics.json") if "bbox/AP" in row]
    return [(r["iteration"], {k: v for k, v in r.items() if k[:5] == "bbox/"}) for r in rows]
