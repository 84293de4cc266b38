"""A search from Python: run, resumed, evolved from and reported, without a command line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from fbnetv3 import register_evaluator
from fbnetv3.registries import EVALUATORS
from fbnetv3.search import Constraint, SearchError, Trial

pytest.importorskip("detectron2")

from fbnetv3.search.fbnet import (
    SearchRun,
    evolve_budgets,
    read_search_config,
    report_run,
    run_search,
)
from fbnetv3.search.fbnet.evaluator import TrainEvaluator
from fbnetv3.search.fbnet.run_folder import RunFolder

OPTS: list[Any] = [
    *("SEARCH.BATCH_SIZE", 5, "SEARCH.ITERATIONS", 1, "SEARCH.FINALISTS", 1),
    *("SEARCH.WORKERS", 0, "SEARCH.POOL_SIZE", 100, "SEARCH.PREDICTOR", "random"),
    *("SOLVER.MAX_EPOCHS", 1.0, "DATA.TRAIN_LIMIT", 64),
    *("SEARCH.FIX", ["resolution", 16, "stage1_n", 1, "stage2_n", 1, "stage3_n", 1]),
    *("SEARCH.BUDGETS", ["macs <= 1e6", "macs <= 2.75e5"]),
]


def _cfg() -> Any:
    return read_search_config("search/digits.yaml", OPTS)


def _refuse_to_train(evaluator: TrainEvaluator, trial: Trial) -> float:
    raise AssertionError(f"trial {trial.number} is trained again")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchRun]:
    """The folder of a finished search, and what it returned."""
    folder = tmp_path_factory.mktemp("search") / "run"
    return folder, run_search(_cfg(), folder)


def test_a_search_returns_its_result_and_the_files_of_its_winners(
    run: tuple[Path, SearchRun], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, search = run
    assert len(search.result.trials) == 6
    assert search.best.path == folder / "best.yaml"
    assert search.best.facts[0].startswith(f"score {search.result.best.score:.4f}, activations")
    assert f"--config-file {search.best.path} --resume" in search.best.command
    assert search.report == folder / "report.html"
    assert all(winner.path.is_file() for winner in search.winners)
    assert search.report.is_file()
    assert capsys.readouterr().out == ""


def test_a_finished_search_returns_the_same_without_training(
    run: tuple[Path, SearchRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, search = run
    monkeypatch.setattr(TrainEvaluator, "__call__", _refuse_to_train)
    again = run_search(_cfg(), folder)
    assert again.result.trials == search.result.trials
    assert again.winners == search.winners


def test_an_interrupted_search_resumes_to_the_same_result(
    run: tuple[Path, SearchRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = TrainEvaluator.__call__

    def interrupt(evaluator: TrainEvaluator, trial: Trial) -> float:
        if trial.number == 3:
            raise KeyboardInterrupt
        return train(evaluator, trial)

    with monkeypatch.context() as patch:
        patch.setattr(TrainEvaluator, "__call__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_search(_cfg(), tmp_path / "run")
    resumed = run_search(_cfg(), tmp_path / "run")
    assert resumed.result.trials == run[1].result.trials
    assert [w.facts for w in resumed.winners] == [w.facts for w in run[1].winners]


def test_a_budget_that_no_trained_candidate_meets_has_no_winner(
    run: tuple[Path, SearchRun],
) -> None:
    met, missed = run[1].budgets
    assert (met.budget, missed.budget) == (
        Constraint("macs", upper=1e6),
        Constraint("macs", upper=2.75e5),
    )
    assert met.winner is not None
    assert met.winner.path.name == "best_macs_1M.yaml"
    assert missed.winner is None
    assert run[1].winners == [run[1].best, met.winner]


def test_the_lowest_score_of_an_evaluator_of_ones_own_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EVALUATORS, "_entries", dict(EVALUATORS._entries))
    register_evaluator("my_loss")(lambda setup, folder: lambda trial: 9.0 - trial.number)
    opts = ["SEARCH.DIRECTION", "minimize", "SEARCH.EVALUATOR", "my_loss"]
    cfg = read_search_config("search/digits.yaml", [*OPTS, *opts])
    stream = io.StringIO()
    search = run_search(cfg, tmp_path / "run", stream=stream)
    assert search.result.direction == "minimize"
    assert (search.result.best.number, search.result.best.score) == (5, 4.0)
    assert search.best.facts[0].startswith("score 4.0000, ")
    assert stream.getvalue().count("best 4.00") == 1
    assert "score 4.0000" in (tmp_path / "run" / "best.yaml").read_text(encoding="utf-8")
    assert run_search(cfg, tmp_path / "run").result.trials == search.result.trials


def test_another_config_in_the_folder_is_refused(run: tuple[Path, SearchRun]) -> None:
    cfg = read_search_config("search/digits.yaml", [*OPTS, "SEED", 5])
    with pytest.raises(SearchError, match="SEED was 0, is 5"):
        run_search(cfg, run[0])


def test_winners_for_further_budgets_are_returned(run: tuple[Path, SearchRun]) -> None:
    evolved = evolve_budgets(run[0], [Constraint("params", upper=1.2e5)])
    (winner,) = evolved.winners
    assert winner.path == run[0] / "best_params_0.12M.yaml"
    assert winner.facts[0].startswith("predicted score")
    assert sum(fact.startswith("nearest trial") for fact in winner.facts) == 3
    assert "best_params_0.12M" in evolved.report.read_text()


def test_a_run_in_use_can_be_reported(run: tuple[Path, SearchRun]) -> None:
    with RunFolder(run[0]).locked():
        assert report_run(run[0]) == run[1].report
        with pytest.raises(SearchError, match="is in use by"):
            evolve_budgets(run[0], [Constraint("macs", upper=1e6)])


def test_a_broken_device_ends_a_run_and_failed_trials_are_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = read_search_config("search/digits.yaml", [*OPTS, "SEARCH.STOP_AFTER_FAILURES", 2])
    reasons: dict[int, Exception] = {
        1: ValueError("a bug"),
        3: torch.AcceleratorError("CUDA error: device-side assert triggered"),
        4: torch.AcceleratorError("CUDA error: device-side assert triggered"),
    }
    trained: list[int] = []

    def score(evaluator: TrainEvaluator, trial: Trial) -> float:
        trained.append(trial.number)
        if trial.number in reasons:
            raise reasons[trial.number]
        return 10.0 + trial.number

    monkeypatch.setattr(TrainEvaluator, "__call__", score)
    folder = tmp_path / "run"
    with pytest.raises(SearchError, match="2 candidates in a row failed because of their device"):
        run_search(cfg, folder)
    reasons = {1: reasons[1]}
    assert len(run_search(cfg, folder).result.trials) == 6
    assert trained == [0, 1, 2, 3, 4, 3, 4, 5]
    reasons.clear()
    output = io.StringIO()
    again = run_search(cfg, folder, retry_failed="a bug", stream=output)
    assert trained[8:] == [1]
    assert "1 failed trial is put back" in output.getvalue()
    assert [len(t.earlier_reasons) for t in again.result.trials] == [0, 1, 0, 1, 1, 0]
    report = again.report.read_text()
    assert "earlier: ValueError: a bug" in report
    assert "3 of the trials failed before" in report
    assert trained == trained[:9]
    run_search(cfg, folder, restore=folder / "log")  # the log agrees with the storage
    assert len(trained) == 9
