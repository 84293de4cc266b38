from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fbnetv3.cli import run_main, search
from fbnetv3.resources import model_zoo_path

pytest.importorskip("detectron2")
SMALL = [
    "--config-file",
    "model_zoo/search/digits.yaml",
    *("SEARCH.BATCH_SIZE", "5", "SEARCH.ITERATIONS", "1", "SEARCH.FINALISTS", "1"),
    *("SEARCH.WORKERS", "0", "SEARCH.POOL_SIZE", "200", "SOLVER.MAX_EPOCHS", "1.0"),
    *("DATA.TRAIN_LIMIT", "256"),
    *("SEARCH.FIX", "['resolution', 16, 'stage1_n', 1, 'stage2_n', 1, 'stage3_n', 1]"),
]


def _main(argv: list[str]) -> int:
    return run_main(search.main, argv)


def _error(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    assert _main(argv) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "run"
    assert _main([*SMALL, "OUTPUT_DIR", str(folder)]) == 0
    return folder


def test_a_run_is_a_folder(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    wanted = {"config.yaml", "search.db", "predictor.pt", "candidates", "best.yaml"}
    assert wanted <= names
    assert len(list((run / "candidates").iterdir())) == 6
    tensors = torch.load(run / "predictor.pt", weights_only=True)
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    # checkpoints serve a killed candidate, not a finished one
    assert not list(run.glob("candidates/*/checkpoint_*"))


def test_the_winner_is_a_config_that_trains(run: Path, tmp_path: Path) -> None:
    from fbnetv3.config import get_cfg
    from fbnetv3.engine import build

    cfg = get_cfg()
    cfg.merge_from_file(str(run / "best.yaml"))
    assert cfg.SOLVER.MAX_EPOCHS == 12.0  # SEARCH.FINAL
    assert cfg.DATASETS.TRAIN == ("digits_train",)
    arch = build.arch_from_config(cfg)
    assert not isinstance(arch, str)
    assert arch.resolution == 16


def test_the_same_command_again_is_done_at_once(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "best.yaml").read_text()
    assert _main([*SMALL, "OUTPUT_DIR", str(run)]) == 0
    assert "going on after 6 finished trials" in capsys.readouterr().out
    assert (run / "best.yaml").read_text() == before


def test_another_config_on_the_folder_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = _error(capsys, [*SMALL, "OUTPUT_DIR", str(run), "SEED", "5"])
    assert "SEED was 0, is 5" in error


def test_further_budgets_without_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(["--evolve", str(run), "--macs", "0.5e6", "1e6"]) == 0
    assert capsys.readouterr().out.count("nearest trial") == 6
    for budget in ("0.5", "1"):
        text = (run / f"best_macs_{budget}M.yaml").read_text()
        cost = float(text.split("macs ")[1].split(",")[0])
        assert cost <= float(budget) * 1e6


def test_a_budget_out_of_reach(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = _error(capsys, ["--evolve", str(run), "--macs", "10"])
    assert "nearest bound" in error


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["SEARCH.BATCHSIZE", "5"], ["SEARCH.BATCHSIZE", "BATCH_SIZE"]),
        (["SEARCH.BATCH_SIZE", "300"], ["batch_size=300", "pool"]),
        (["SEARCH.CONSTRAINTS", "['macs <= 1e3']"], ["macs reaches", "nearest bound"]),
        (["SEARCH.CONSTRAINTS", "['2e6 <= macs <= 1e6']"], ["lower=2e+06 is above"]),
        (["SEARCH.CONSTRAINTS", "['flops <= 1e6']"], ["'flops'", "macs"]),
        (["SEARCH.SPACE", "nanoo"], ["'nanoo'", "did you mean nano"]),
        (["SEARCH.PREDICTOR", "tree"], ["'tree'", "default, paper"]),
        (["SEARCH.FIX", "['resolution']"], ["SEARCH.FIX", "'resolution'"]),
    ],
)
def test_wrong_configs_give_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], opts: list[str], words: list[str]
) -> None:
    error = _error(capsys, [*SMALL, "OUTPUT_DIR", str(tmp_path / "run"), *opts])
    assert all(word in error for word in words), error


def test_a_folder_that_holds_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no search" in _error(capsys, ["--evolve", str(tmp_path), "--macs", "1e6"])


@pytest.mark.parametrize("path", sorted((model_zoo_path() / "search").glob("*.yaml")))
def test_packaged_searches_are_read(path: Path) -> None:
    from fbnetv3.search.config import search_arguments
    from fbnetv3.search.evaluator import get_search_cfg, space_from_config

    cfg = get_search_cfg()
    cfg.merge_from_file(str(path))
    assert len(space_from_config(cfg).space) >= 7
    assert search_arguments(cfg)["batch_size"] <= cfg.SEARCH.POOL_SIZE
