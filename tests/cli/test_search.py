"""The search's command line: options, and errors in one line before anything trains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fbnetv3.cli import run_main, search
from tests.cli.search_command import SMALL, error_line

pytest.importorskip("detectron2")

from fbnetv3.search.fbnet.config_file import read_search_config
from fbnetv3.search.fbnet.identity import file_hashes
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.winners import Winner
from fbnetv3.search.objectives import Objective, Objectives


@pytest.mark.parametrize(
    "argv",
    [
        ["--report", "x", "SEED", "1"],
        ["--report", "x", "--macs", "1e6"],
        ["--report", "x", "--budget", "macs <= 1e6"],
        ["--config-file", "x", "--drop-constraint", "macs"],
        ["--report", "x", "--retry-failed"],
        ["--config-file", "x", "--retry-failed", "SEARCH.WORKERS", "2"],
    ],
)
def test_options_that_exclude_each_other(
    capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    with pytest.raises(SystemExit):
        search.main(argv)
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--report"], ["--evolve", "--macs", "1e6"]])
def test_a_folder_that_holds_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    assert "holds no search" in error_line(capsys, [argv[0], str(tmp_path), *argv[1:]])


@pytest.mark.parametrize(
    ("opts", "parts"),
    [
        (["SEARCH.BATCHSIZE", "5"], ["SEARCH.BATCHSIZE", "BATCH_SIZE"]),
        (["SEARCH.BATCH_SIZE", "300"], ["SEARCH.BATCH_SIZE=300", "1 to 200 (SEARCH.POOL_SIZE)"]),
        (["SEARCH.CONSTRAINTS", "['macs <= 1e3']"], ["macs ranges from", "nearest bound"]),
        (["SEARCH.CONSTRAINTS", "['2e6 <= macs <= 1e6']"], ["lower=2e+06 is above"]),
        (["SEARCH.CONSTRAINTS", "['flops <= 1e6']"], ["'flops'", "macs"]),
        (["SEARCH.SPACE", "nanoo"], ["'nanoo'", "did you mean nano"]),
        (["SEARCH.PREDICTOR", "tree"], ["'tree'", "default, paper"]),
        (["SEARCH.FIX", "['resolution']"], ["SEARCH.FIX", "'resolution'"]),
        (["SEARCH.BATCH_SIZE", "0"], ["SEARCH.BATCH_SIZE=0", "1 to 200"]),
        (["SEARCH.EVOLUTION.CHILDREN", "0"], ["children=0", "at least 1"]),
        (["SEARCH.WORKERS", "-1"], ["SEARCH.WORKERS=-1", "0 or more"]),
        (["SEARCH.EXECUTOR", "slurm"], ["SEARCH.EXECUTOR='slurm'", "local, ray"]),
        (["SEARCH.WARM_START", "no.csv"], ["warm start", "no.csv"]),
        (["SEARCH.CLASSES", "11"], ["SEARCH.CLASSES=11", "10 classes", "allowed: 1 to 10"]),
        (["SEARCH.HOLD_OUT", "1437"], ["SEARCH.HOLD_OUT=1437", "1437 images", "1 to 1436"]),
        (
            ["SEARCH.CLASSES", "5", "SEARCH.HOLD_OUT", "1000"],
            ["SEARCH.HOLD_OUT=1000", "with 5 classes has 7"],
        ),
        (["SEARCH.HOLD_OUT", "1400"], ["DATA.TRAIN_LIMIT", "128", "allowed: 1 to 37"]),
        (["DATASETS.TRAIN", "()"], ["DATASETS.TRAIN=[]", "one data set"]),
        (["DATASETS.TEST", "('a', 'b')"], ["DATASETS.TEST=['a', 'b']", "one data set"]),
        (["SEED", "-1"], ["SEED=-1", "allowed: 0 to"]),
        (["DATALOADER.NUM_WORKERS", "-1"], ["DATALOADER.NUM_WORKERS=-1", "allowed: >= 0"]),
        (["INPUT.TRAIN_CROP", "best"], ["candidates cannot be trained", "INPUT", "best"]),
        (["SEARCH.FINAL", "['SOLVER.MAX_EPOCH', 9.0]"], ["SEARCH.FINAL", "MAX_EPOCHS"]),
        (["SEARCH.FINAL", "['SOLVER.MAX_EPOCHS', -9.0]"], ["SEARCH.FINAL", "MAX_EPOCHS=-9"]),
        (["SEARCH.LATENCY_TABLE", "no.json"], ["no.json"]),
        (
            ["SEARCH.CANDIDATES", "nowhere://bucket/run"],
            ["SEARCH.CANDIDATES='nowhere://bucket/run': Protocol not known: nowhere; give"],
        ),
    ],
)
def test_an_invalid_config_gives_one_line_and_leaves_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], opts: list[str], parts: list[str]
) -> None:
    run = tmp_path / "run"
    error = error_line(capsys, [*SMALL, "OUTPUT_DIR", str(run), *opts])
    assert all(part in error for part in parts), error
    # The corrected command may differ in any key: the folder holds no config to compare it with.
    assert [path.name for path in run.iterdir()] == [".lock"] if run.exists() else True


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ("recipe: {lr: {range: [0.1, 0.01]}}", ["lr", "0.1", "0.01"]),
        ("recipe: {lr: {range: [0.1]}}", ["lr", "[low, high]"]),
        ("recipe: {optimizer: {choices: []}}", ["optimizer", "at least one value"]),
        ("recipe: {lr: {choices: [0.1]}}", ["only one candidate"]),
        ("recipe: {learning_rate: {choices: [0.1, 0.2]}}", ["learning_rate"]),
    ],
)
def test_an_invalid_space_gives_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, parts: list[str]
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(table)
    opts = ["SEARCH.SPACE", str(space), "SEARCH.FIX", "[]", "SEARCH.CONSTRAINTS", "[]"]
    error = error_line(capsys, [*SMALL, "OUTPUT_DIR", str(tmp_path / "run"), *opts])
    assert all(part in error for part in parts), error


def test_a_changed_file_is_refused_with_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space, run = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text("recipe: {lr: {choices: [0.1, 0.2]}}")
    opts = ["SEARCH.SPACE", str(space), "SEARCH.FIX", "[]", "SEARCH.CONSTRAINTS", "[]"]
    argv = [*SMALL, *opts, "OUTPUT_DIR", str(run)]
    cfg = read_search_config(argv[1], argv[2:])
    RunFolder(run).write_config(cfg.dump(), file_hashes(cfg))
    space.write_text("recipe: {lr: {choices: [0.1, 0.3]}}")
    for command in (argv, ["--report", str(run)], ["--evolve", str(run), "--macs", "1e6"]):
        error = error_line(capsys, command)
        assert "the content of a file has changed since the search started: SEARCH.SPACE" in error


@pytest.mark.parametrize("reason", ["out of memory", "CUDA", "SIGKILL"])
def test_a_reason_is_no_key(
    reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--config-file", str(tmp_path / "x.yaml"), "--retry-failed", reason]
    assert run_main(search.main, argv) == 2
    assert "x.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("costs", "order"), [((Objective("macs", "minimize"),), "macs"), ((), "top1")]
)
def test_front_is_printed_with_the_objective_that_orders_it(
    costs: tuple[Objective, ...], order: str, capsys: pytest.CaptureFixture[str]
) -> None:
    best = SimpleNamespace(id="a", score=1.0, statistics={})
    objectives = Objectives((Objective("top1"), Objective("top5")), costs)
    result = SimpleNamespace(
        best=best, objectives=objectives, report_cards=[], failures=None, early_stop=None
    )
    result.rungs, result.spreads = (), {}
    winner = Winner(Path("front/trial_1.yaml"), ("score 1.0000",))
    run = SimpleNamespace(result=result, budgets=(), front=(winner,), best=winner, report="r.html")
    search._print_run(cast(Any, run))
    assert f"Pareto front (1 config, by rising {order}):" in capsys.readouterr().out
