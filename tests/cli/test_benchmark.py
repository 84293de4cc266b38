"""``fbnetv3-benchmark``: what it compares, how it times, and how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from fbnetv3.benchmark import measures as benchmark_measures
from fbnetv3.benchmark import rows as benchmark_rows
from fbnetv3.benchmark import variants as benchmark_variants
from fbnetv3.benchmark.variants import Shape
from fbnetv3.cli import benchmark, run_main
from fbnetv3.engine.ema import ModelEMA

TOOL = Path(__file__).parent.parent.parent / "tools" / "benchmark.py"
SMALL = ["--models", "fbnetv3_a0", "--resolution", "32", "--rounds", "2"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that benchmark_measures sees; steps move it on."""
    now = [0.0]
    monkeypatch.setattr(benchmark_measures.time, "perf_counter", lambda: now[0])
    return now


def test_rounds_alternate_and_turn_around(clock: list[float]) -> None:
    called: list[str] = []

    def step(name: str, seconds: float) -> None:
        called.append(name)
        clock[0] += seconds

    steps = {"a": lambda: step("a", 0.5), "b": lambda: step("b", 0.25)}
    rounds: list[int] = []
    times = benchmark_measures.alternate(steps, 3, lambda: rounds.append(len(called)))
    assert times == {"a": [0.5] * 3, "b": [0.25] * 3}
    assert "".join(called) == "ab" + "ab" + "ba" + "ab"  # once each to see how long it takes
    assert rounds == [4, 6, 8]


def test_short_steps_are_repeated_within_a_round(clock: list[float]) -> None:
    calls = []

    def step() -> None:
        calls.append(1)
        clock[0] += 0.01

    times = benchmark_measures.alternate({"a": step}, 2, lambda: None)
    assert times["a"] == pytest.approx([0.01, 0.01])
    assert len(calls) == 1 + 2 * 5


def test_ratios_are_of_the_first_variant() -> None:
    found = {"timm": [0.4, 0.2, 9.0], "ours": [0.1, 0.3, 0.2]}
    first, second = benchmark_rows.with_ratios("net", "latency", Shape(4, 32), "ms", found)
    assert (first.variant, first.value, first.ratio) == ("timm", pytest.approx(400), 1.0)
    assert (second.value, second.ratio) == (pytest.approx(200), pytest.approx(2.0))
    assert second.rounds == pytest.approx([100, 300, 200])


def test_peers_are_timms_where_it_has_them() -> None:
    pytest.importorskip("timm")
    assert benchmark_variants.inference_variants("fbnetv3_b", compile=True) == [
        "timm",
        "timm, channels_last",
        "ours",
        "deploy",
        "deploy, compiled",
    ]
    assert benchmark_variants.inference_variants("fbnetv3_a", compile=False) == ["ours", "deploy"]
    assert benchmark_variants.ema_variants("fbnetv3_b") == ["timm", "ours"]


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_variants.importlib.util, "find_spec", lambda name: None)
    assert benchmark_variants.inference_variants("fbnetv3_b", compile=False) == ["ours", "deploy"]


def test_layouts() -> None:
    shape = Shape(2, 8)
    default = benchmark_variants.images(benchmark_variants.TIMM, shape)
    ours = benchmark_variants.images(benchmark_variants.OURS, shape)
    assert torch.equal(default, ours)
    assert default.is_contiguous()
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_the_loop_is_compared_with_a_bare_one(tmp_path: Path) -> None:
    path = tmp_path / "loop.json"
    argv = [*SMALL, "--measures", "loop", "--train-batch", "2", "--json", str(path)]
    assert benchmark.main(argv) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["variant"] for row in rows] == ["bare PyTorch loop", "Trainer and its hooks"]
    assert [len(row["rounds"]) for row in rows] == [2, 2]
    assert rows[0]["ratio"] == 1.0
    assert 0.2 < rows[1]["ratio"] < 5.0


def test_training_step_trains() -> None:
    step = benchmark_variants.training_step("fbnetv3_a0", "ours", Shape(2, 32))
    before = step.model.head.fc.weight.detach().clone()
    step()
    assert step.model.training
    assert not torch.equal(step.model.head.fc.weight, before)


def test_ema_update_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ModelEMA] = []

    class Noted(ModelEMA):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(benchmark_variants, "ModelEMA", Noted)
    benchmark_variants.ema_update("fbnetv3_a0", "ours")()
    assert made[0].num_updates == 2


def test_threads_are_set_and_restored() -> None:
    before = torch.get_num_threads()
    with benchmark_variants.torch_threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "made" / "numbers.json"
    argv = [*SMALL, "--batch-sizes", "1", "2", "--train-batch", "2", "--compile"]
    argv += ["--measures", "latency", "training", "ema", "--json", str(path)]
    assert benchmark.main(argv) == 0
    shown = capsys.readouterr().out
    assert "fbnetv3_a0 @32" in shown
    assert "deploy, compiled (onnxruntime)" in shown
    found = json.loads(path.read_text())
    assert found["threads"] == 1
    assert found["torch"] == torch.__version__
    kinds = [(row["measure"], row["batch"], row["variant"]) for row in found["rows"]]
    compiled = "deploy, compiled (onnxruntime)"
    latency = [("latency", n, v) for n in (1, 2) for v in ("ours", "deploy", compiled)]
    assert kinds == [*latency, ("training step", 2, "ours"), ("EMA update", None, "ours")]
    assert all(row["value"] > 0 and len(row["rounds"]) == 2 for row in found["rows"])


def test_memory_grows_with_the_batch() -> None:
    pytest.importorskip("resource")
    small, large = (
        benchmark_measures.peak_memory("training", "fbnetv3_a0", "ours", Shape(n, 64), 1)
        for n in (2, 32)
    )
    assert small >= 0
    assert large > small + 50  # MiB; some 150 in fact


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--rounds", "0"], "'0' is not a number from 1 to"),
        (["--rounds", "x"], "'x' is not a number"),
        (["--measures", "speed"], "invalid choice: 'speed'"),
        (["--no-such-option"], "--no-such-option"),
        (["--models"], "expected at least one argument"),
        (["--models", "fbnetv3_q"], "fbnetv3_q"),
        (["--models", "torchvision/resnet19", *SMALL[2:]], "resnet19"),
        (["--json", "/proc/no/such"], "cannot write /proc/no/such"),  # before it measures
        (["--json", "/tmp"], "cannot write /tmp: Is a directory"),
    ],
)
def test_refusals_are_one_line(
    argv: Sequence[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(benchmark.main, argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert words in lines[0]


def test_the_script() -> None:
    ended = subprocess.run(
        [sys.executable, TOOL, "--help"], capture_output=True, text=True, check=True
    )
    assert "--resolution" in ended.stdout
