"""Images per second, peak memory, traces, and cuDNN's choice of algorithms."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fbnetv3.config import CfgNode
from fbnetv3.engine import speed
from fbnetv3.engine.hooks import Every
from fbnetv3.engine.metrics import read_metrics
from fbnetv3.engine.speed import SpeedHook, cudnn_benchmark, peak_memory
from fbnetv3.engine.trainer import Trainer
from fbnetv3.training import train

Make = Callable[..., CfgNode]


def test_images_per_second_and_memory_are_recorded(tiny: Make, out: Path, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, logger="fbnetv3"):
        train(tiny(SOLVER__MAX_EPOCHS=1.0), pictures=False)
    rows = read_metrics(out / "metrics.json")
    assert [row["iteration"] for row in rows] == [1, 3, 5]
    for row in rows:
        assert 0 < row["images_per_second"] < 1e6
        assert 50 < row["peak_memory_mb"] < 50_000
    lines = [text for text in caplog.messages if "images/s" in text]
    assert len(lines) == 3
    assert "peak memory" in lines[0]


def test_evaluations_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    kept: dict[str, float] = {}
    put = lambda name, value, **_: kept.update({name: value})  # noqa: E731
    storage = SimpleNamespace(put_scalar=put, histories=dict)
    hook = SpeedHook([Every(2)], 30, torch.device("cpu"))
    hook.trainer = SimpleNamespace(iter=0, max_iter=100, storage=storage)
    for seconds in (0.5, 1.0):
        hook.before_step()
        now[0] += seconds
        hook.after_step()
        now[0] += 1000.0  # other hooks
        hook.trainer.iter += 1
    assert kept["images_per_second"] == 40.0  # 60 images in 1.5 s


def test_the_memory_of_a_gpu_is_that_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda d: asked.append(d) or 3 * 2**20)
    assert peak_memory(torch.device("cuda:2")) == 3 * 2**20
    assert asked == [torch.device("cuda:2")]


@pytest.mark.parametrize(("steps", "traced"), [(2, 2), (50, 3)])
def test_a_trace(tiny: Make, out: Path, caplog: Any, steps: int, traced: int) -> None:
    """Six steps, the first three of which are not traced."""
    with caplog.at_level(logging.INFO, logger="fbnetv3"):
        train(tiny(SOLVER__MAX_EPOCHS=1.0), pictures=False, profile=steps)
    assert "wrote the trace from step 3 on" in caplog.text
    events = json.loads((out / "profile_00000003.pt.trace.json").read_text())["traceEvents"]
    names = [event.get("name", "") for event in events]
    optimizer_steps = [name for name in names if name.startswith("Optimizer.step")]
    assert len(optimizer_steps) == traced
    assert "aten::convolution" in names


def test_a_training_too_short_for_a_trace(tiny: Make, out: Path, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, logger="fbnetv3"):
        train(tiny(SOLVER__MAX_EPOCHS=0.5, SOLVER__WARMUP_EPOCHS=0.0), pictures=False, profile=1)
    assert "no trace" in caplog.text
    assert not list(out.glob("*.trace.json"))


@pytest.mark.parametrize("enabled", [True, False])
def test_cudnn_benchmark_is_set_during_the_training(
    tiny: Make, monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    seen: list[bool] = []
    real = Trainer.run_step

    def run_step(self: Trainer) -> None:
        seen.append(torch.backends.cudnn.benchmark)
        real(self)

    monkeypatch.setattr(Trainer, "run_step", run_step)
    cfg = tiny(CUDNN_BENCHMARK=enabled, SOLVER__MAX_EPOCHS=0.2, SOLVER__WARMUP_EPOCHS=0.0)
    with cudnn_benchmark(not enabled):
        train(cfg, pictures=False)
        assert torch.backends.cudnn.benchmark is not enabled
    assert seen == [enabled]
