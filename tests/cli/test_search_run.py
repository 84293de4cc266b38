"""A finished search's folder: its winners, its report, resuming it and evolving from it."""

from __future__ import annotations

import html
import re
import shlex
import shutil
from pathlib import Path

import optuna
import pytest

from fbnetv3.cli import search
from tests.cli.search_command import SMALL, error_line, run_command, start_run

pytest.importorskip("detectron2")

from fbnetv3.config import get_cfg
from fbnetv3.config.archs import arch_from_config
from fbnetv3.search.fbnet.commands import resume_command
from fbnetv3.search.fbnet.config_file import read_search_config
from fbnetv3.search.fbnet.run_folder import RunFolder


def _report_of(run: Path) -> str:
    return (run / "report.html").read_text()


def test_a_run_is_a_folder(search_run: Path) -> None:
    names = {path.name for path in search_run.iterdir()}
    assert {"config.yaml", "search.db", "candidates", "best.yaml", "report.html"} <= names
    assert len(list((search_run / "candidates").iterdir())) == 6
    # A finished candidate needs no checkpoint to resume from.
    assert not list(search_run.glob("candidates/*/checkpoint_*"))


def test_the_winner_is_a_config_that_trains(search_run: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(search_run / "best.yaml"))
    assert cfg.SOLVER.MAX_EPOCHS == 12.0  # SEARCH.FINAL
    assert cfg.DATASETS.TRAIN == ("digits_train",)
    arch = arch_from_config(cfg)
    assert not isinstance(arch, str)
    assert arch.resolution == 16


def test_a_moved_folder_still_trains_and_reports(
    search_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "elsewhere" / "run"
    shutil.copytree(search_run, moved)
    assert "ARCH: best_arch.yaml" in (moved / "best.yaml").read_text()
    cfg = get_cfg()
    cfg.merge_from_file(str(moved / "best.yaml"))
    assert str(moved / "best_arch.yaml") == cfg.MODEL.ARCH
    assert arch_from_config(cfg) != ""
    assert run_command(["--report", str(moved)]) == 0
    assert capsys.readouterr().out == f"{moved / 'report.html'}\n"
    assert f"--config-file {moved / 'config.yaml'} OUTPUT_DIR {moved}" in _report_of(moved)


@pytest.fixture
def log_of_batch_0(search_run: Path, tmp_path: Path) -> Path:
    """The log of a run whose machine was lost before the finalist was trained."""
    log = tmp_path / "log"
    shutil.copytree(search_run / "log", log)
    assert sorted(p.name for p in log.iterdir()) == ["batch_000.jsonl.gz", "batch_001.jsonl.gz"]
    (log / "batch_001.jsonl.gz").unlink()
    return log


def test_a_run_is_restored_from_its_log_alone(
    search_run: Path, log_of_batch_0: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "restored"
    assert run_command([*SMALL, "--restore", str(log_of_batch_0), "OUTPUT_DIR", str(run)]) == 0
    assert "resuming after 5 finished trials" in capsys.readouterr().out
    for name in ("best_arch.yaml", "log/batch_000.jsonl.gz", "log/batch_001.jsonl.gz"):
        assert (run / name).read_bytes() == (search_run / name).read_bytes()
    assert len(list((run / "candidates").iterdir())) == 1


def test_candidates_are_kept_at_a_uri(
    search_run: Path, log_of_batch_0: Path, tmp_path: Path
) -> None:
    run, place = tmp_path / "run", tmp_path / "candidates"
    opts = ["OUTPUT_DIR", str(run), "SEARCH.CANDIDATES", place.as_uri()]
    assert run_command([*SMALL, "--restore", str(log_of_batch_0), *opts]) == 0
    assert not (run / "candidates").exists()
    (folder,) = place.iterdir()  # one per search: others may have candidates with the same ids
    (finalist,) = folder.iterdir()
    scores = search_run / "candidates" / finalist.name / "scores.json"
    assert (finalist / "scores.json").read_bytes() == scores.read_bytes()
    assert (run / "best_arch.yaml").read_text() == (search_run / "best_arch.yaml").read_text()


@pytest.mark.parametrize(
    ("opts", "difference"),
    [
        (["SEED", "9"], "SEED was 0, is 9"),
        (["SOLVER.MAX_EPOCHS", "3.0"], "SOLVER.MAX_EPOCHS was 1.0, is 3.0"),
    ],
)
def test_a_log_of_another_config_is_refused(
    search_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    opts: list[str],
    difference: str,
) -> None:
    run = tmp_path / "run"
    argv = [*SMALL, "--restore", str(search_run / "log"), *opts, "OUTPUT_DIR", str(run)]
    assert difference in error_line(capsys, argv)
    assert not (run / "search.db").exists()  # nothing that the corrected command would contradict


def test_a_log_without_its_storage_is_not_overwritten(
    search_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(search_run, moved)
    (moved / "search.db").unlink()
    before = {p.name: p.read_bytes() for p in (moved / "log").iterdir()}
    assert "--restore" in error_line(capsys, [*SMALL, "OUTPUT_DIR", str(moved)])
    assert {p.name: p.read_bytes() for p in (moved / "log").iterdir()} == before


def test_the_report_has_the_trials_and_the_commands(search_run: Path) -> None:
    text = _report_of(search_run)
    for folder in (search_run / "candidates").iterdir():
        assert f"<code>{folder.name}</code>" in text
    best = search_run / "best.yaml"
    assert f"<pre>python tools/train_net.py --config-file {best} --resume</pre>" in text
    assert "top-1 (%)" in text


def test_the_report_of_a_run_without_trials(tmp_path: Path) -> None:
    run = tmp_path / "run"
    start_run(run)
    with RunFolder(run).locked():  # as by the search itself; a report needs no lock
        assert run_command(["--report", str(run)]) == 0
    assert "No trial has a score yet" in _report_of(run)


def test_printed_commands_repeat_the_locations_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    storage = ["SEARCH.STORAGE", url]
    locations = [*storage, "SEARCH.CANDIDATES", "s3://bucket/a run"]
    locations += ["SEARCH.RAY.ADDRESS", "10.0.0.1:6379"]
    run = tmp_path / "run"
    cfg = start_run(run, *locations)
    command = shlex.split(resume_command(run, cfg))
    args = search.make_parser().parse_intermixed_args(command[command.index("--config-file") :])
    RunFolder(run).check_config(read_search_config(args.config_file, args.opts).dump(), ())
    assert f"SEARCH.STORAGE {url}" in error_line(capsys, ["--report", str(run)])
    assert run_command(["--report", str(run), *storage]) == 0
    text = _report_of(run)
    assert f"--report {run} SEARCH.STORAGE {url}" in text
    assert shlex.join(command) in html.unescape(text)


def test_the_study_holds_what_dashboards_show(search_run: Path) -> None:
    url = f"sqlite:///{search_run / 'search.db'}"
    assert [s.study_name for s in optuna.get_all_study_summaries(url)] == ["jointnas"]
    study = optuna.load_study(study_name=None, storage=url)
    assert len(study.trials) == 6
    assert all(t.state == optuna.trial.TrialState.COMPLETE for t in study.trials)
    assert all(t.intermediate_values for t in study.trials)
    assert {"id", "batch", "stage", "statistic.macs"} <= set(study.trials[0].user_attrs)
    assert [card["trials"] for card in study.user_attrs["note.report_cards"]] == [5, 6]


def test_the_same_command_again_trains_nothing(
    search_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (search_run / "best.yaml").read_text()
    assert run_command([*SMALL, "OUTPUT_DIR", str(search_run)]) == 0
    out = capsys.readouterr().out
    assert "resuming after 6 finished trials" in out
    assert f"train it with:\n  python tools/train_net.py --config-file {search_run}" in out
    assert (search_run / "best.yaml").read_text() == before


def test_another_config_on_the_folder_is_refused(
    search_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_line(capsys, [*SMALL, "OUTPUT_DIR", str(search_run), "SEED", "5"])
    assert "SEED was 0, is 5" in error


def test_further_budgets_without_training(
    search_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budgets = ["--macs", "0.5e6", "1e6", "--params", "1e5"]
    assert run_command(["--evolve", str(search_run), *budgets]) == 0
    assert capsys.readouterr().out.count("nearest trial") == 9
    assert "train best_macs_0.5M: predicted score" in _report_of(search_run)
    for statistic, budget in (("macs", "0.5"), ("macs", "1"), ("params", "0.1")):
        text = (search_run / f"best_{statistic}_{budget}M.yaml").read_text()
        cost = float(re.findall(rf"{statistic} ([\d.e+]+)", text)[0])
        assert cost <= float(budget) * 1e6


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (["--macs", "10"], "nearest bound"),
        (
            ["--latency-ms", "2"],
            "budget latency_ms <= 2: constraint on 'latency_ms': no such statis",
        ),
        (["--params", "nan"], "constraint on params: the bound nan is not a finite number"),
    ],
)
def test_budgets_that_cannot_be_met(
    search_run: Path, capsys: pytest.CaptureFixture[str], budget: list[str], message: str
) -> None:
    assert message in error_line(capsys, ["--evolve", str(search_run), *budget])
