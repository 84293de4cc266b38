"""The command line of ``fbnetv3-benchmark``."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from rich.console import Console

from fbnetv3.benchmark.comparison import Measurement
from fbnetv3.benchmark.formats import FormTime
from fbnetv3.cli import benchmark, run_main
from fbnetv3.cli.benchmark_tables import format_table, result_table
from fbnetv3.export.runtimes import RUNTIMES

TOOL = Path(__file__).parent.parent.parent / "tools" / "benchmark.py"
SMALL = ["--models", "fbnetv3_a0", "--resolution", "32", "--rounds", "2"]


def test_the_loop_is_compared_with_a_bare_one(tmp_path: Path) -> None:
    path = tmp_path / "loop.json"
    argv = [*SMALL, "--measures", "loop", "--train-batch", "2", "--json", str(path)]
    assert benchmark.main(argv) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["variant"] for row in rows] == ["bare PyTorch loop", "Trainer and its hooks"]
    assert [len(row["rounds"]) for row in rows] == [2, 2]
    assert rows[0]["ratio"] == 1.0
    assert 0.2 < rows[1]["ratio"] < 5.0


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "made" / "numbers.json"
    argv = [*SMALL, "--batch-sizes", "1", "2", "--train-batch", "2", "--compile"]
    argv += ["--measures", "latency", "training", "ema", "--json", str(path)]
    assert benchmark.main(argv) == 0
    shown = capsys.readouterr().out
    assert "fbnetv3_a0 @32" in shown
    assert "deploy, compiled (onnxruntime)" in shown
    content = json.loads(path.read_text())
    assert content["threads"] == 1
    assert content["torch"] == torch.__version__
    kinds = [(row["measure"], row["batch"], row["variant"]) for row in content["rows"]]
    compiled = "deploy, compiled (onnxruntime)"
    latency = [("latency", n, v) for n in (1, 2) for v in ("ours", "deploy", compiled)]
    assert kinds == [*latency, ("training step", 2, "ours"), ("EMA update", None, "ours")]
    assert all(row["value"] > 0 and len(row["rounds"]) == 2 for row in content["rows"])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--rounds", "0"], "must be an integer from 1 to 10000, not '0'"),
        (["--rounds", "x"], "must be an integer from 1 to 10000, not 'x'"),
        (["--measures", "speed"], "invalid choice: 'speed'"),
        (["--image-size", "500"], "must be WIDTHxHEIGHT in pixels, not '500'"),
        (["--image-size", "500x0"], "must be an integer from 1 to 10000, not '0'"),
        (["--measures", "data", "--data", "no_such_data"], "no_such_data"),
        (["--no-such-option"], "--no-such-option"),
        (["--models"], "expected at least one argument"),
        (["--models", "fbnetv3_q"], "fbnetv3_q"),
        (["--models", "torchvision/resnet19", *SMALL[2:]], "resnet19"),
        (["--json", "/proc/no/such"], "cannot write /proc/no/such"),  # before it measures
        (["--json", "/tmp"], "cannot write /tmp: Is a directory"),
        (["--data", "digits_test"], "--data has no effect with the comparison of networks; leave"),
        (["--image-size", "9x9", "--measures", "loop"], "--image-size has no effect with the comp"),
        (
            ["--networks", "9", "--measures", "data"],
            "--networks has no effect with --measures data",
        ),
        (
            ["--formats", "eager", "--compile"],
            "--compile has no effect with --formats; leave it out",
        ),
        (["--formats", "eager", "--measures", "ema"], "--measures has no effect with --formats"),
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


def test_the_help_names_each_runtime(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "999")  # argparse breaks lines at hyphens
    with pytest.raises(SystemExit):
        benchmark.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    names = ", ".join(RUNTIMES)
    assert f"deploy, compiled, {names}, timm (default" in text
    assert f"torch (deployed, eager), {names} (default: torch)" in text


def test_the_script() -> None:
    ended = subprocess.run(
        [sys.executable, TOOL, "--help"], capture_output=True, text=True, check=True
    )
    assert "--resolution" in ended.stdout


def test_long_names_of_models_are_not_cut() -> None:
    """Paths of weights often differ at their ends only."""
    names = [f"/home/someone/projects/output/{'flowers' * 9}_seed{i}" for i in (1, 2)]
    compared = [
        Measurement(name, "inference memory", 16, 32, "deploy", 1.0, "MiB", 1.0, [1.0])
        for name in names
    ]
    form, runtime = "onnxruntime-int8", "onnxruntime 1.32.0"
    timed = [FormTime(name, 32, 16, form, runtime, 1.0, 1.0, (1.0, 1.0), [1.0]) for name in names]
    for table in (result_table(compared, 1), format_table(timed, 1)):
        console = Console(width=120, file=io.StringIO())
        console.print(table)
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        column = "".join(line.split("│")[1].strip() for line in lines if "│" in line)
        assert all(name in column for name in names)
