"""Previews, enqueued candidates and further iterations of a search in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fbnetv3.errors import FBNetError
from fbnetv3.search import SearchError, Trial

pytest.importorskip("detectron2")

from fbnetv3.search.fbnet import enqueue_candidates, preview_search, read_search_config, run_search
from fbnetv3.search.fbnet.candidates_file import read_candidates
from fbnetv3.search.fbnet.evaluator import TrainEvaluator
from tests.cli.search_command import error_line, run_command

OPTS: list[Any] = [
    *("SEARCH.BATCH_SIZE", 3, "SEARCH.FINALISTS", 1),
    *("SEARCH.WORKERS", 0, "SEARCH.POOL_SIZE", 100, "SEARCH.PREDICTOR", "random"),
    *("SOLVER.MAX_EPOCHS", 2.0, "DATA.TRAIN_LIMIT", 64),
    *("SEARCH.FIX", ["resolution", 16, "stage1_n", 1, "stage2_n", 1, "stage3_n", 1]),
]


def _cfg(iterations: int = 1, *opts: Any) -> Any:
    changes = ["SEARCH.ITERATIONS", iterations, *opts]
    return read_search_config("search/digits.yaml", [*OPTS, *changes])


@pytest.fixture(autouse=True)
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores candidates by their number, without training."""
    monkeypatch.setattr(TrainEvaluator, "__call__", lambda self, trial: 20.0 + trial.number)


def _file(path: Path, *candidates: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump({"candidates": list(candidates)}), encoding="utf-8")
    return path


def _changed(trial: Trial, **changes: Any) -> dict[str, Any]:
    return {"config": {**trial.config, **changes}, "reason": "a smaller rate"}


def test_a_preview_has_the_first_batch_and_its_cost_and_writes_nothing(tmp_path: Path) -> None:
    preview = preview_search(_cfg(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    assert (preview.finished, preview.total) == (0, 4)
    assert [length.epochs for length in preview.lengths] == [2.0] * 3
    assert {length.steps for length in preview.lengths} == {2 * (64 // 64)}
    text = str(preview)
    assert "batch 1: 3 of at most 4 trials\n" in text
    assert "the batch takes 6 epochs, 6 steps of the optimizer" in text
    assert text.endswith("a run has no limit of time\nnothing was trained or written")
    result = run_search(_cfg(), tmp_path / "run").result
    assert [t.id for t in preview.trials] == [t.id for t in result.trials[:3]]
    done = preview_search(_cfg(), tmp_path / "run")
    assert str(done).endswith("the search is done, after 4 trials")


def test_more_iterations_continue_the_run_of_a_folder(tmp_path: Path) -> None:
    before = run_search(_cfg(1), tmp_path / "run").result
    files = {p: p.read_bytes() for p in sorted((tmp_path / "run").rglob("*")) if p.is_file()}
    preview = preview_search(_cfg(2), tmp_path / "run")
    after = {p: p.read_bytes() for p in sorted((tmp_path / "run").rglob("*")) if p.is_file()}
    assert after == files
    assert "batch 3: 3 of at most 8 trials; 4 trials have finished" in str(preview)
    result = run_search(_cfg(2), tmp_path / "run").result
    assert result.trials[:4] == before.trials
    assert [t.id for t in result.trials[4:7]] == [t.id for t in preview.trials]
    assert [t.stage for t in result.trials] == ["coarse"] * 3 + ["fine"] + ["coarse"] * 3 + ["fine"]
    with pytest.raises(SearchError, match="iterations=1 is fewer than the storage has"):
        run_search(_cfg(1), tmp_path / "run")
    restored = run_search(_cfg(2), tmp_path / "again", restore=tmp_path / "run" / "log")
    assert restored.result.trials == result.trials
    with pytest.raises(SearchError, match="SEED was 0, is 5"):
        run_search(_cfg(2, "SEED", 5), tmp_path / "run")


def test_a_search_starts_from_the_folder_of_another_one(tmp_path: Path) -> None:
    before = run_search(_cfg(1), tmp_path / "run").result
    start = ["SEARCH.WARM_START", str(tmp_path / "run")]
    preview = preview_search(_cfg(1, *start, "SEED", 1), tmp_path / "again")
    assert f"warm start from {tmp_path / 'run'}: 4 of 4 trials\n" in str(preview)
    assert not {t.id for t in preview.trials} & {t.id for t in before.trials}
    with pytest.raises(SearchError, match="has no study 'x'; it has 'jointnas'; name one"):
        preview_search(_cfg(1, *start, "SEARCH.WARM_START_STUDY", "x"), tmp_path / "again")
    with pytest.raises(SearchError, match=r"SEARCH.WARM_START_STUDY='x' needs a SEARCH.WARM_START"):
        preview_search(_cfg(1, "SEARCH.WARM_START_STUDY", "x"), tmp_path / "again")


def test_a_config_file_may_not_name_the_server_of_a_warm_start(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text("SEARCH:\n  WARM_START: postgresql://host/db\n", encoding="utf-8")
    with pytest.raises(FBNetError, match=r"SEARCH.WARM_START postgresql://host/db is a network"):
        read_search_config(str(path))


def test_candidates_of_a_file_are_evaluated_first_or_next(tmp_path: Path) -> None:
    first = preview_search(_cfg(2), tmp_path / "run").trials[0]
    mine = _file(tmp_path / "mine.yaml", _changed(first, lr=0.02))
    run_search(_cfg(1), tmp_path / "run", enqueue=mine)
    result = run_search(_cfg(1), tmp_path / "run", enqueue=mine).result  # the same command again
    assert [t.enqueued for t in result.trials] == ["a smaller rate", None, None, None]
    other = _file(tmp_path / "other.yaml", _changed(first, lr=0.03))
    with pytest.raises(SearchError, match=r"the last batch has been proposed"):
        enqueue_candidates(tmp_path / "run", other)
    result = run_search(_cfg(3), tmp_path / "run", enqueue=other).result
    assert [t.number for t in result.trials if t.enqueued] == [0, 4]
    with pytest.raises(SearchError, match=r"it is trial 4, which has the score 24"):
        enqueue_candidates(tmp_path / "run", other)


def test_a_running_search_takes_candidates_in_its_next_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = preview_search(_cfg(2), tmp_path / "run").trials[0]
    mine = _file(tmp_path / "mine.yaml", _changed(first, lr=0.02))

    def score(evaluator: TrainEvaluator, trial: Trial) -> float:
        if trial.number == 1:
            assert run_command(["--run", str(tmp_path / "run"), "--enqueue", str(mine)]) == 0
        return 20.0 + trial.number

    monkeypatch.setattr(TrainEvaluator, "__call__", score)
    result = run_search(_cfg(2), tmp_path / "run").result
    assert [t.number for t in result.trials if t.enqueued] == [3]
    assert "enqueued: a smaller rate" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "is not a yaml of candidates"),
        ("a: 1", "{'a': 1}; allowed: candidates: [{config: {VARIABLE: VALUE, ...}, reason: TEXT}"),
        ("candidates: []", "{'candidates': []}; allowed: candidates: "),
        ("candidates: [5]", "candidate 1 is 5; allowed: "),
        ("candidates: [{config: {a: 1}}]", "candidate 1 is {'config': {'a': 1}}; allowed: "),
        ("candidates: [{config: 5, reason: x}]", "candidate 1 is {'config': 5, 'reason': 'x'}"),
        ("candidates: [{config: {}, reason: ''}]", "candidate 1: reason='' is not allowed"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SearchError) as caught:
        read_candidates(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--run", str(tmp_path), "--enqueue", str(tmp_path / "no.yaml")]
    assert "cannot read" in error_line(capsys, argv)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--run", "x"], "--run RUN_DIR needs --enqueue FILE"),
        (["--report", "x", "--enqueue", "y"], "--enqueue FILE needs --config-file, or --run"),
        (["--report", "x", "--dry-run"], "--dry-run needs --config-file"),
        (["--config-file", "x", "--dry-run", "--enqueue", "y"], "--dry-run changes nothing"),
    ],
)
def test_options_that_have_no_effect_are_refused(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        run_command(argv)
    assert message in capsys.readouterr().err


def test_a_dry_run_prints_the_preview(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opts = [str(opt) for opt in OPTS]
    folder = tmp_path / "run"
    argv = ["--config-file", "search/digits.yaml", "--dry-run", *opts, "SEARCH.MAX_HOURS", "0.5"]
    assert run_command([*argv, "OUTPUT_DIR", str(folder)]) == 0
    assert "a run ends after SEARCH.MAX_HOURS=0.5" in capsys.readouterr().out
    assert not folder.exists()
