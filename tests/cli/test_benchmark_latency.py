"""The command line of ``fbnetv3-benchmark --latency-table``."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
import torch

from fbnetv3.arch import Arch
from fbnetv3.arch.latency import LatencyTable
from fbnetv3.benchmark import latency
from fbnetv3.cli import benchmark, run_main
from fbnetv3.search.fbnet.space import FBNetSpace


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A config of a search whose space has a handful of small networks."""
    space = tmp_path / "space.yaml"
    space.write_text(
        "name: tiny\nresolution: 16\ndefaults: {act: hswish}\nrows:\n"
        "  - {stage: 0, op: conv, k: 3, c: {range: [8, 16, 4]}, s: 2}\n"
        "  - {stage: 1, op: mbconv, k: {choices: [3, 5]}, e: 2, c: 16, n: {range: [1, 2]}, s: 2}\n"
        "  - {stage: 2, op: mbpool, e: 2, c: 32}\n"
    )
    config = tmp_path / "tiny.yaml"
    config.write_text(f"MODEL:\n  NUM_CLASSES: 4\nSEARCH:\n  SPACE: {space}\n")
    return config


def _arguments(config: Path, table: Path) -> list[str]:
    numbers = ["--networks", "3", "--check", "3", "--rounds", "1", "--seed", "7"]
    return ["--latency-table", str(table), "--config-file", str(config), *numbers]


def test_a_run(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("detectron2")
    path = tmp_path / "made" / "table.json"
    assert benchmark.main(_arguments(tiny, path)) == 0
    shown = capsys.readouterr().out
    about = json.loads(path.read_text())["about"]
    check = about["check"]
    assert (about["torch"], about["threads"], about["batch"]) == (torch.__version__, 1, 1)
    assert len(check["measured_ms"]) == len(check["predicted_ms"]) == 3
    assert min(check["measured_ms"]) > 0
    assert f"mean absolute error {check['mean_absolute_error']:.1%}" in shown
    assert f"rank correlation {check['rank_correlation']:.3f}" in shown
    assert f"SEARCH.LATENCY_TABLE {path}" in shown
    space, classes = latency.read_space(str(tiny))
    again = [LatencyTable.load(path).of_arch(a) for a in _checks(space, classes)]
    assert again == pytest.approx(check["predicted_ms"], rel=1e-2)


def _checks(space: FBNetSpace, classes: int) -> list[Arch]:
    return latency.sample_archs(space, 6, classes, seed=7)[:3]


def test_a_table_of_another_runtime(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("detectron2")
    path = tmp_path / "table.json"
    assert benchmark.main([*_arguments(tiny, path), "--runtime", "onnxruntime"]) == 0
    table = LatencyTable.load(path)
    assert table.runtime == f"onnxruntime {onnxruntime.__version__}"
    assert f"; {table.runtime}, " in capsys.readouterr().out
    assert table.about["check"]["networks"] == 3
    assert min(table.about["check"]["measured_ms"]) > 0
    assert run_main(benchmark.main, _arguments(tiny, path)) == 2
    refusal = f"is a latency table of {table.runtime}, not of torch"
    assert refusal in capsys.readouterr().err


def test_blocks_for_another_device(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("detectron2")
    folder = tmp_path / "blocks"
    sizes = ["--networks", "2", "--check", "2", "--runtime", "onnxruntime"]
    export = ["--export-blocks", str(folder), "--config-file", str(tiny), *sizes]
    assert benchmark.main(export) == 0
    assert f"--latency-table {folder / 'blocks.csv'} --runtime" in capsys.readouterr().out
    read = ["--latency-table", str(folder / "blocks.csv"), "--runtime", "chip 7"]
    assert run_main(benchmark.main, read) == 2
    assert "row 2: the ms of 0001_conv" in capsys.readouterr().err
    lines = (folder / "blocks.csv").read_text().splitlines()
    whole = ("network", "check")
    filled = [
        f"{line}{4 + number % 2 if line.startswith(whole) else 1}"
        for number, line in enumerate(lines[1:])
    ]
    (folder / "blocks.csv").write_text("\n".join(["name,ms", *filled]))
    assert benchmark.main(read) == 0
    assert "; chip 7, " in capsys.readouterr().out
    table = LatencyTable.load(folder / "latency_table.json")
    assert sorted(table.about["check"]["measured_ms"]) == [4.0, 5.0]
    assert table.about["check"]["mean_absolute_error"] > 0
    assert run_main(benchmark.main, export) == 2
    assert "is not an empty folder" in capsys.readouterr().err


TABLE = ["--latency-table", "x", "--config-file", "model_zoo/search/digits.yaml"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--latency-table", "x.csv"], "needs --runtime TEXT"),
        (["--latency-table", "no.csv", "--runtime", "chip"], "cannot read"),
        (["--export-blocks", "x"], "needs --config-file CONFIG"),
        (["--runtime", "onnxruntime"], "needs --latency-table FILE"),
        (
            ["--latency-table", "x", "--config-file", "a.yaml", "--runtime", "onnxruntme"],
            "did you mean onnxruntime",
        ),
        (["--latency-table", "x.json"], "must be given together"),
        ([*TABLE, "--json", "y"], "--json has no effect with --latency-table; leave it out"),
        ([*TABLE, "fbnetv3_a0"], "MODEL has no effect with --latency-table; leave it out"),
        (
            [*TABLE[2:], "--export-blocks", "x", "--rounds", "3"],
            "--rounds has no effect with --exp",
        ),
        (["--latency-table", "x.csv", "--runtime", "chip", "--seed", "3"], "--seed has no effect"),
        (["--config-file", "model_zoo/search/digits.yaml"], "must be given together"),
        (
            ["--latency-table", "x", "--config-file", "search/autotrain.yaml"],
            "one architecture only",
        ),
        (["--latency-table", "x", "--config-file", "no_such.yaml"], "no_such.yaml"),
    ],
)
def test_refusals_are_one_line(
    change: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("detectron2")
    assert run_main(benchmark.main, change) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]
