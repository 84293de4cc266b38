from __future__ import annotations

import contextlib
import html
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fbnetv3.cli import run_main, search
from fbnetv3.resources import model_zoo_path
from fbnetv3.search.fbnet import evolve as search_evolve
from fbnetv3.search.fbnet.run import _build
from tests.processes import Start, finish
from tests.search.executors import ray_clusters

pytest.importorskip("detectron2")

from fbnetv3.search.fbnet.config import file_hashes

SMALL = [
    "--config-file",
    "model_zoo/search/digits.yaml",
    *("SEARCH.BATCH_SIZE", "5", "SEARCH.ITERATIONS", "1", "SEARCH.FINALISTS", "1"),
    *("SEARCH.WORKERS", "0", "SEARCH.POOL_SIZE", "200", "SOLVER.MAX_EPOCHS", "1.0"),
    *("DATA.TRAIN_LIMIT", "256"),
    *("SEARCH.FIX", "['resolution', 16, 'stage1_n', 1, 'stage2_n', 1, 'stage3_n', 1]"),
]

MORE = ["SEARCH.WORKERS", "2", "SOLVER.MAX_EPOCHS", "200.0", "SEARCH.EARLY_STOP", "0.0"]
ROOT = Path(__file__).resolve().parents[2]


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
    wanted = {"config.yaml", "search.db", "predictor.pt", "candidates", "best.yaml", "report.html"}
    assert wanted <= names
    assert len(list((run / "candidates").iterdir())) == 6
    tensors = torch.load(run / "predictor.pt", weights_only=True)
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    # checkpoints serve a killed candidate, not a finished one
    assert not list(run.glob("candidates/*/checkpoint_*"))


def test_the_winner_is_a_config_that_trains(run: Path, tmp_path: Path) -> None:
    from fbnetv3.config import get_cfg
    from fbnetv3.config.archs import arch_from_config

    cfg = get_cfg()
    cfg.merge_from_file(str(run / "best.yaml"))
    assert cfg.SOLVER.MAX_EPOCHS == 12.0  # SEARCH.FINAL
    assert cfg.DATASETS.TRAIN == ("digits_train",)
    arch = arch_from_config(cfg)
    assert not isinstance(arch, str)
    assert arch.resolution == 16


def test_a_folder_that_was_moved_still_trains_and_reports(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fbnetv3.config import get_cfg

    moved = tmp_path / "elsewhere" / "run"
    shutil.copytree(run, moved)
    text = (moved / "best.yaml").read_text()
    assert "ARCH: best_arch.yaml" in text
    cfg = get_cfg()
    cfg.merge_from_file(str(moved / "best.yaml"))
    assert str(moved / "best_arch.yaml") == cfg.MODEL.ARCH
    from fbnetv3.config.archs import arch_from_config

    assert arch_from_config(cfg) != ""
    assert _main(["--report", str(moved)]) == 0
    assert capsys.readouterr().out == f"{moved / 'report.html'}\n"
    assert f"--config-file {moved / 'config.yaml'} OUTPUT_DIR {moved}" in _report_of(moved)


def test_a_run_goes_on_from_its_log_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, again = tmp_path / "log", tmp_path / "again"
    shutil.copytree(run / "log", kept)
    assert sorted(p.name for p in kept.iterdir()) == ["batch_000.jsonl.gz", "batch_001.jsonl.gz"]
    (kept / "batch_001.jsonl.gz").unlink()  # the machine was lost before the finalist was done
    assert _main([*SMALL, "--restore", str(kept), "OUTPUT_DIR", str(again)]) == 0
    assert "going on after 5 finished trials" in capsys.readouterr().out
    for name in ("best_arch.yaml", "log/batch_000.jsonl.gz", "log/batch_001.jsonl.gz"):
        assert (again / name).read_bytes() == (run / name).read_bytes()
    assert len(list((again / "candidates").iterdir())) == 1
    more = [*SMALL, "--restore", str(kept), "SEED", "9", "OUTPUT_DIR", str(tmp_path / "other")]
    assert "SEED was 0, is 9" in _error(capsys, more)
    # refused before it left anything: the mended command goes through its checks
    assert not (tmp_path / "other" / "search.db").exists()
    longer = [*SMALL, "--restore", str(kept), "SOLVER.MAX_EPOCHS", "3.0"]
    told = _error(capsys, [*longer, "OUTPUT_DIR", str(tmp_path / "other")])
    assert "SOLVER.MAX_EPOCHS was 1.0, is 3.0" in told


def test_a_log_whose_storage_is_gone_is_not_written_over(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    (moved / "search.db").unlink()
    kept = {p.name: p.read_bytes() for p in (moved / "log").iterdir()}
    assert "--restore" in _error(capsys, [*SMALL, "OUTPUT_DIR", str(moved)])
    assert {p.name: p.read_bytes() for p in (moved / "log").iterdir()} == kept


def _report_of(run: Path) -> str:
    return (run / "report.html").read_text()


def test_the_report_has_the_trials_and_the_commands(run: Path) -> None:
    text = _report_of(run)
    for folder in (run / "candidates").iterdir():
        assert f"<code>{folder.name}</code>" in text
    best = run / "best.yaml"
    assert f"<pre>python tools/train_net.py --config-file {best} --resume</pre>" in text
    assert "top-1 (%)" in text


def test_the_report_of_a_run_that_has_just_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fbnetv3.search.fbnet.run_folder import RunFolder

    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    cfg = search._read_config(
        "model_zoo/search/digits.yaml", [*SMALL[2:], "OUTPUT_DIR", str(folder.path)]
    )
    _build(cfg)  # makes the study, before config.yaml is written
    folder.keep_config(cfg.dump(), {})
    with folder.locked():  # somebody else's; a report only reads
        assert _main(["--report", str(folder.path)]) == 0
    assert "nothing to draw" in _report_of(folder.path)


def test_places_elsewhere_are_repeated_by_the_commands_that_a_run_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fbnetv3.search.fbnet.run_folder import RunFolder

    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    places = ["SEARCH.STORAGE", url, "SEARCH.CANDIDATES", "s3://bucket/a run"]
    places += ["SEARCH.RAY.ADDRESS", "10.0.0.1:6379"]
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    opts = [*SMALL[2:], "OUTPUT_DIR", str(folder.path), *places]
    cfg = search._read_config("model_zoo/search/digits.yaml", opts)
    _build(cfg)
    folder.keep_config(cfg.dump(), {})
    told = shlex.split(search.resume_command(folder.path, cfg))
    parsed = search.make_parser().parse_intermixed_args(told[told.index("--config-file") :])
    folder.check_config(search._read_config(parsed.config_file, parsed.opts).dump(), ())
    assert f"SEARCH.STORAGE {url}" in _error(capsys, ["--report", str(folder.path)])
    assert _main(["--report", str(folder.path), *places[:2]]) == 0
    text = _report_of(folder.path)
    assert f"--report {folder.path} SEARCH.STORAGE {url}" in text
    assert shlex.join(told) in html.unescape(text)


def test_the_study_has_what_dashboards_show(run: Path) -> None:
    import optuna

    url = f"sqlite:///{run / 'search.db'}"
    assert [s.study_name for s in optuna.get_all_study_summaries(url)] == ["jointnas"]
    study = optuna.load_study(study_name=None, storage=url)
    assert len(study.trials) == 6
    assert all(t.state == optuna.trial.TrialState.COMPLETE for t in study.trials)
    assert all(t.intermediate_values for t in study.trials)
    assert {"id", "batch", "stage", "statistic.macs"} <= set(study.trials[0].user_attrs)
    assert [card["trials"] for card in study.user_attrs["note.report_cards"]] == [5, 6]


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


def test_a_file_whose_content_changed_is_refused_by_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fbnetv3.search.fbnet.run_folder import RunFolder

    space, run = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text("recipe: {lr: {choices: [0.1, 0.2]}}")
    opts = ["SEARCH.SPACE", str(space), "SEARCH.FIX", "[]", "SEARCH.CONSTRAINTS", "[]"]
    argv = [*SMALL, *opts, "OUTPUT_DIR", str(run)]
    cfg = search._read_config(argv[1], argv[2:])
    RunFolder(run).keep_config(cfg.dump(), file_hashes(cfg))
    space.write_text("recipe: {lr: {choices: [0.1, 0.3]}}")
    for command in (argv, ["--report", str(run)], ["--evolve", str(run), "--macs", "1e6"]):
        assert "content changed of the file of SEARCH.SPACE" in _error(capsys, command)


def test_further_budgets_without_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(["--evolve", str(run), "--macs", "0.5e6", "1e6", "--params", "1e5"]) == 0
    assert capsys.readouterr().out.count("nearest trial") == 9
    assert "train best_macs_0.5M: predicted score" in _report_of(run)
    for statistic, budget in (("macs", "0.5"), ("macs", "1"), ("params", "0.1")):
        text = (run / f"best_{statistic}_{budget}M.yaml").read_text()
        cost = float(re.findall(rf"{statistic} ([\d.e+]+)", text)[0])
        assert cost <= float(budget) * 1e6


def test_budgets_that_cannot_be_met(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = _error(capsys, ["--evolve", str(run), "--macs", "10"])
    assert "nearest bound" in error
    error = _error(capsys, ["--evolve", str(run), "--latency-ms", "2"])
    assert "--latency-ms 2: constraint on 'latency_ms': the statistics are activations" in error
    assert "--params nan" in _error(capsys, ["--evolve", str(run), "--params", "nan"])


def test_names_of_winners_tell_the_budget() -> None:
    assert search_evolve.winner_name("macs", 1.5e6) == "best_macs_1.5M"
    assert search_evolve.winner_name("latency_ms", 2.5) == "best_latency_2.5ms"


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["SEARCH.BATCHSIZE", "5"], ["SEARCH.BATCHSIZE", "BATCH_SIZE"]),
        (["SEARCH.BATCH_SIZE", "300"], ["SEARCH.BATCH_SIZE=300", "1 to 200 (SEARCH.POOL_SIZE)"]),
        (["SEARCH.CONSTRAINTS", "['macs <= 1e3']"], ["macs reaches", "nearest bound"]),
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
        (["SEARCH.HOLD_OUT", "1400"], ["DATA.TRAIN_LIMIT", "256", "allowed: 1 to 37"]),
        (["DATASETS.TRAIN", "()"], ["DATASETS.TRAIN=[]", "one data set"]),
        (["DATASETS.TEST", "('a', 'b')"], ["DATASETS.TEST=['a', 'b']", "one data set"]),
        (["SEED", "-1"], ["SEED=-1", "allowed: 0 to"]),
        (["DATALOADER.NUM_WORKERS", "-1"], ["DATALOADER.NUM_WORKERS=-1", "allowed: >= 0"]),
        (["INPUT.TRAIN_CROP", "best"], ["candidates can't be trained", "INPUT", "best"]),
        (["SEARCH.FINAL", "['SOLVER.MAX_EPOCH', 9.0]"], ["SEARCH.FINAL", "MAX_EPOCHS"]),
        (["SEARCH.FINAL", "['SOLVER.MAX_EPOCHS', -9.0]"], ["SEARCH.FINAL", "MAX_EPOCHS=-9"]),
        (["SEARCH.LATENCY_TABLE", "no.json"], ["no.json"]),
    ],
)
def test_wrong_configs_give_one_line_and_leave_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], opts: list[str], words: list[str]
) -> None:
    run = tmp_path / "run"
    error = _error(capsys, [*SMALL, "OUTPUT_DIR", str(run), *opts])
    assert all(word in error for word in words), error
    # the mended command, with whatever else is changed in it, is refused by nothing
    assert [path.name for path in run.iterdir()] == [".lock"] if run.exists() else True


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("recipe: {lr: {range: [0.1, 0.01]}}", ["lr", "0.1", "0.01"]),
        ("recipe: {lr: {range: [0.1]}}", ["lr", "[low, high]"]),
        ("recipe: {optimizer: {choices: []}}", ["optimizer", "at least one value"]),
        ("recipe: {lr: {choices: [0.1]}}", ["one point only"]),
        ("recipe: {learning_rate: {choices: [0.1, 0.2]}}", ["learning_rate"]),
    ],
)
def test_wrong_spaces_give_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, words: list[str]
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(table)
    opts = ["SEARCH.SPACE", str(space), "SEARCH.FIX", "[]", "SEARCH.CONSTRAINTS", "[]"]
    error = _error(capsys, [*SMALL, "OUTPUT_DIR", str(tmp_path / "run"), *opts])
    assert all(word in error for word in words), error


def test_a_statistic_that_is_no_number_is_one_line() -> None:
    from fbnetv3.search import SearchError
    from tests.search import problem

    with pytest.raises(SearchError, match="statistic 'macs' is nan for") as error:
        problem.search(statistics=lambda configs: {"macs": [float("nan")] * len(configs)})
    assert "\n" not in str(error.value)


def _alive(mark: str) -> list[int]:
    """Returns the processes that have a mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


# two at a time on any machine
RAY = ["SEARCH.EXECUTOR", "ray", "SEARCH.RAY.WORKERS", "2", "SEARCH.RAY.CPUS", "0.5"]


@pytest.mark.slow
def test_ray_finds_the_same(run: Path, tmp_path: Path, start: Start) -> None:
    ray_clusters.imported()
    tool = str(ROOT / "tools" / "jointnas_search.py")
    # relative: workers are in the folder of the search
    finish(start([sys.executable, tool, *SMALL, *RAY, "OUTPUT_DIR", "run"]))
    ours = tmp_path / "run"
    assert (ours / "best_arch.yaml").read_text() == (run / "best_arch.yaml").read_text()
    names = sorted(path.name for path in (run / "candidates").iterdir())
    assert sorted(path.name for path in (ours / "candidates").iterdir()) == names
    for name in names:
        scores = Path("candidates", name, "scores.json")
        assert (ours / scores).read_text() == (run / scores).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_no_process_and_tells_how_to_go_on(
    tmp_path: Path, executor: str, number: signal.Signals
) -> None:
    folder, mark = tmp_path / "run", f"MARK={tmp_path}"
    opts = [*MORE, *(RAY if executor == "ray" else [])]
    if executor == "ray":
        ray_clusters.imported()
    process = subprocess.Popen(
        [sys.executable, "tools/jointnas_search.py", *SMALL, *opts, "OUTPUT_DIR", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MARK": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # what a shell starts in the background ignores Ctrl-C, and so would this
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 300
        while len(list(folder.glob("candidates/*/scores.json"))) < 2:  # both workers train
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            os.kill(process.pid, number)  # as a scheduler's script does
        out = process.communicate(timeout=120)[0]
    finally:
        process.kill()
    assert process.returncode == 130
    assert _alive(mark) == []
    assert "Traceback" not in out
    assert f"--config-file {folder / 'config.yaml'} OUTPUT_DIR {folder}" in out
    assert len(list(folder.glob("candidates/*/checkpoint_*.pt"))) == 2


def test_flags_that_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (
        ["--report", "x", "SEED", "1"],
        ["--report", "x", "--macs", "1e6"],
        ["--evolve", "x"],
    ):
        with pytest.raises(SystemExit):
            search.main(argv)
        assert "error" in capsys.readouterr().err


def test_a_folder_that_holds_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no search" in _error(capsys, ["--evolve", str(tmp_path), "--macs", "1e6"])


@pytest.mark.parametrize("path", sorted((model_zoo_path() / "search").glob("*.yaml")))
def test_packaged_searches_are_read(path: Path) -> None:
    from fbnetv3.search.fbnet.config import search_arguments
    from fbnetv3.search.fbnet.evaluator import get_search_cfg, space_from_config

    cfg = get_search_cfg()
    cfg.merge_from_file(str(path))
    assert len(space_from_config(cfg).space) >= 7
    assert search_arguments(cfg)["batch_size"] <= cfg.SEARCH.POOL_SIZE


def test_candidates_are_kept_at_a_uri(run: Path, tmp_path: Path) -> None:
    folder, far = tmp_path / "run", tmp_path / "far"
    assert _main([*SMALL, "OUTPUT_DIR", str(folder), "SEARCH.CANDIDATES", far.as_uri()]) == 0
    assert not (folder / "candidates").exists()
    names = {path.name for path in (run / "candidates").iterdir()}
    (place,) = far.iterdir()  # of this search: others may have candidates of the same ids
    assert {path.name for path in place.iterdir()} == names
    assert (folder / "best_arch.yaml").read_text() == (run / "best_arch.yaml").read_text()


def test_a_place_that_cannot_be_is_refused_before_anything_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    argv = [*SMALL, "OUTPUT_DIR", str(folder), "SEARCH.CANDIDATES", "nowhere://bucket/run"]
    assert "SEARCH.CANDIDATES='nowhere://bucket/run/" in _error(capsys, argv)
    assert not (folder / "config.yaml").exists()
