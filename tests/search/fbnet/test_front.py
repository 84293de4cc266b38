"""A search over networks for the front of accuracy and MACs writes a config for each point."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import SearchError

pytest.importorskip("detectron2")

from fbnetv3.cli.train import main as train
from fbnetv3.registries import STATISTICS
from fbnetv3.search.fbnet import SearchRun, read_search_config, run_search
from fbnetv3.search.fbnet.config import SearchSetup, settings_from_config
from fbnetv3.search.fbnet.keys import get_search_cfg
from fbnetv3.search.fbnet.opening import build_search

OPTS: list[Any] = [
    *("SEARCH.BATCH_SIZE", 5, "SEARCH.ITERATIONS", 1, "SEARCH.FINALISTS", 1),
    *("SEARCH.WORKERS", 0, "SEARCH.POOL_SIZE", 100, "SEARCH.PREDICTOR", "random"),
    *("SOLVER.MAX_EPOCHS", 1.0, "DATA.TRAIN_LIMIT", 64),
    *("SEARCH.FIX", ["resolution", 16, "stage1_n", 1, "stage2_n", 1, "stage3_n", 1]),
    *("SEARCH.OBJECTIVES", ["score", "-macs"], "SEARCH.BUDGETS", []),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchRun]:
    """The folder of a finished search, and what it returned."""
    folder = tmp_path_factory.mktemp("search") / "run"
    return folder, run_search(read_search_config("search/digits.yaml", OPTS), folder)


def test_each_point_of_the_front_is_a_config_that_trains(run: tuple[Path, SearchRun]) -> None:
    folder, search = run
    front = search.result.pareto()
    names = [f"trial_{trial.number}.yaml" for trial in front]
    assert [winner.path for winner in search.front] == [folder / "front" / name for name in names]
    written = {path.name for path in (folder / "front").glob("trial_*[0-9].yaml")}
    assert written == set(names)
    assert search.front[0].facts[0].startswith(f"score {front[0].score:.4f}, activations")
    quick = ["SOLVER.MAX_EPOCHS", "0.5", "SOLVER.WARMUP_EPOCHS", "0.1"]
    assert train(["--config-file", str(search.front[0].path), *quick]) == 0
    assert (folder / "front" / names[0].removesuffix(".yaml") / "metrics.json").is_file()
    page = search.report.read_text(encoding="utf-8")
    assert "Hypervolume by batch" in page
    assert "score, -macs" in page
    assert f"one of {len(front)} configs" in page


def test_configs_of_trials_that_left_the_front_are_removed(
    run: tuple[Path, SearchRun], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    for suffix in ("", "_full", "_arch"):
        (folder / "front" / f"trial_99{suffix}.yaml").write_text("{}")
    kept = [folder / "front" / f"{name}_arch.yaml" for name in ("trial_98", "trial_98_2")]
    for path in kept:  # the configs of trainings refer to them
        path.write_text("{}")
        path.with_name(path.stem.removesuffix("_arch")).mkdir()
        (path.with_name(path.stem.removesuffix("_arch")) / "config.yaml").write_text("{}")
    (folder / "front" / "trial_98.yaml").write_text("{}")
    (folder / "front" / "mine.yaml").write_text("{}")
    (folder / "front" / "trial_99").mkdir()
    again = run_search(read_search_config("search/digits.yaml", OPTS), folder)
    assert not list((folder / "front").glob("trial_99*.yaml"))
    assert sorted((folder / "front").glob("trial_98*.yaml")) == sorted(kept)
    assert (folder / "front" / "mine.yaml").is_file()
    assert (folder / "front" / "trial_99").is_dir()  # of a training
    assert len(again.front) == len(run[1].front)


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        (["score", "-latency_ms"], "an objective on latency_ms needs SEARCH.LATENCY_TABLE"),
        (["top1", "-macs"], r"OBJECTIVES=\['top1', '-macs'\] lacks 'score', the only score of"),
        (["score", 3], "objectives: an item=3 is not allowed"),
        (["score", "score"], "has 'score' twice"),
    ],
)
def test_wrong_objectives_of_a_config_are_refused(objectives: list[Any], message: str) -> None:
    cfg = get_search_cfg()
    cfg.SEARCH.OBJECTIVES = objectives
    with pytest.raises(SearchError, match=message):
        settings_from_config(cfg)


def test_configs_have_one_objective_unless_they_name_several() -> None:
    cfg = get_search_cfg()
    assert settings_from_config(cfg).objectives == ("score",)
    cfg.SEARCH.OBJECTIVES = ["score", "-macs"]
    assert settings_from_config(cfg).objectives == ("score", "-macs")


def test_a_registered_statistic_may_be_an_objective_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        STATISTICS._entries, "my_widest", lambda arch: max(b.c for b in arch.blocks)
    )
    opts = [*OPTS, "SEARCH.OBJECTIVES", ["score", "-my_widest"], "SEARCH.CONSTRAINTS", []]
    search = build_search(
        SearchSetup(read_search_config("search/digits.yaml", opts)), in_memory=True
    )
    assert all(trial.statistics["my_widest"] > 0 for trial in search.preview())
