"""A search's config: invalid values are named in one line before anything starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fbnetv3.search import Constraint, InProcess, LocalWorkers, SearchError
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.space import IntRange, SearchSpace

pytest.importorskip("detectron2")

from fbnetv3.resources import model_zoo_path
from fbnetv3.search.fbnet.bounds import parse_constraint
from fbnetv3.search.fbnet.config import (
    executor_from_config,
    settings_from_config,
    space_from_config,
)
from fbnetv3.search.fbnet.datasets import score_name
from fbnetv3.search.fbnet.identity import file_hashes, values_affecting_scores
from fbnetv3.search.fbnet.keys import get_search_cfg


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("EARLY_STOP", 2.0, "EARLY_STOP=2.0 is out of range; allowed: 0 to 1"),
        ("EARLY_STOP", float("nan"), "EARLY_STOP=nan"),
        ("ITERATIONS", 0, "ITERATIONS=0 is out of range; allowed: 1 or more"),
        ("WORKERS", -1, "WORKERS=-1 is out of range; allowed: 0 or more"),
        ("THREADS", 0, "THREADS=0 is out of range; allowed: 1 or more"),
        ("CLASSES", -5, "CLASSES=-5"),
        ("HOLD_OUT", -1, "HOLD_OUT=-1"),
        ("STORAGE", "search.db", "STORAGE='search.db' is not a URL; allowed: postgresql://"),
        ("WARM_START", "a b://", r"WARM_START='a b://' is not a URL; .* or '' for no warm start"),
        ("STORAGE", "postgresql://me:secret@h/d", r"me:\*\*\*@h/d holds a password.*PGPASSWORD"),
        ("RAY.WORKERS", -1, "SEARCH.RAY.WORKERS=-1 is out of range; allowed: 0 or more"),
        ("RAY.CPUS", -0.5, "RAY.CPUS=-0.5"),
        ("RAY.GPUS", -2.0, "RAY.GPUS=-2.0 is out of range; allowed: -1 or more"),
        ("FINAL_CLASSES", -1, "FINAL_CLASSES=-1 is out of range; allowed: 0 or more"),
        ("HOLD_OUT_SAMPLING", "first", "SAMPLING='first' is unknown; allowed: stratified, random"),
        ("EARLY_STOP_OVER", "half", "early_stop_over='half' is unknown; allowed: all, better_half"),
        ("EVOLUTION.CROSSOVER_FITNESS", "x", "'x' is unknown; allowed: mother, better_parent"),
        ("CONSTRAINTS", ["latency_ms <= 5"], "needs SEARCH.LATENCY_TABLE FILE; measure one"),
        ("BUDGETS", ["latency_ms <= 5"], "needs SEARCH.LATENCY_TABLE FILE; measure one"),
        ("BUDGETS", ["macs >= 5"], "BUDGETS: 'macs >= 5' has no upper bound; write"),
        ("CONSTRAINTS", ["macs < 5"], "cannot parse the constraint 'macs < 5'"),
        ("CONSTRAINTS", ["3e6 <= macs <= 2e6"], "lower=3e[+]06 is above upper=2e[+]06"),
    ],
)
def test_invalid_values(key: str, value: Any, message: str) -> None:
    cfg = get_search_cfg()
    group, _, name = key.rpartition(".")
    (cfg.SEARCH[group] if group else cfg.SEARCH)[name] = value
    with pytest.raises(SearchError, match=message) as error:
        settings_from_config(cfg)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("macs <= 8e8", Constraint("macs", upper=8e8)),
        ("params>=1000", Constraint("params", lower=1000)),
        ("4e8 <= macs <= 8.5E8", Constraint("macs", 4e8, 8.5e8)),
    ],
)
def test_constraints_are_parsed(text: str, constraint: Constraint) -> None:
    assert parse_constraint(text) == constraint


@pytest.mark.parametrize("text", ["macs < 8e8", "macs", "macs <= x", "1.2.3 <= macs <= 5", ""])
def test_other_constraints_are_refused(text: str) -> None:
    with pytest.raises(SearchError, match="cannot parse"):
        parse_constraint(text)


@pytest.mark.parametrize("path", sorted((model_zoo_path() / "search").glob("*.yaml")))
def test_packaged_searches_are_valid(path: Path) -> None:
    cfg = get_search_cfg()
    cfg.merge_from_file(str(path))
    assert len(space_from_config(cfg).space) >= 7
    assert settings_from_config(cfg).batch_size <= cfg.SEARCH.POOL_SIZE


def test_executors_by_name() -> None:
    cfg = get_search_cfg()
    assert isinstance(executor_from_config(cfg), InProcess)
    cfg.SEARCH.WORKERS = 2
    assert isinstance(executor_from_config(cfg), LocalWorkers)
    cfg.SEARCH.EXECUTOR = "slurm"
    with pytest.raises(SearchError, match="EXECUTOR='slurm' is unknown; allowed: local, ray"):
        executor_from_config(cfg)


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    cfg = get_search_cfg()
    cfg.SEARCH.EXECUTOR = "ray"
    with pytest.raises(SearchError, match=r"pip install 'fbnetv3\[ray\]', or set") as error:
        executor_from_config(cfg)
    assert "\n" not in str(error.value)


def test_trainings_on_a_gpu_need_one_from_ray() -> None:
    cfg = get_search_cfg()
    cfg.merge_from_list(["SEARCH.EXECUTOR", "ray", "SEARCH.RAY.GPUS", 0.0, "MODEL.DEVICE", "cuda"])
    with pytest.raises(SearchError, match=r"RAY\.GPUS=0 hides the GPUs that MODEL\.DEVICE=cuda"):
        executor_from_config(cfg)


def test_only_searches_on_ray_import_it() -> None:
    code = (
        "import sys; from fbnetv3.search.fbnet.keys import get_search_cfg; "
        "from fbnetv3.search.fbnet.config import executor_from_config; "
        "executor_from_config(get_search_cfg()); print('ray' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_latency_can_be_constrained_with_a_table() -> None:
    cfg = get_search_cfg()
    cfg.SEARCH.LATENCY_TABLE, cfg.SEARCH.CONSTRAINTS = "table.json", ["latency_ms <= 5.5"]
    assert settings_from_config(cfg).constraints == (Constraint("latency_ms", upper=5.5),)


def test_files_that_a_config_names_are_hashed(tmp_path: Path) -> None:
    cfg, table = get_search_cfg(), tmp_path / "table.json"
    assert file_hashes(cfg) == {}  # a packaged space, and a network by name
    table.write_text("1")
    cfg.SEARCH.LATENCY_TABLE = str(table)
    before = file_hashes(cfg)
    assert list(before) == ["SEARCH.LATENCY_TABLE"]
    table.write_text("2")
    assert file_hashes(cfg) != before


def test_empty_keys_name_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    assert file_hashes(get_search_cfg()) == {}


def test_a_registered_evaluator_has_scores_without_unit() -> None:
    cfg = get_search_cfg()
    cfg.SEARCH.EVALUATOR = "mine"
    assert score_name(cfg) == "score"


def test_a_teacher_and_initial_weights_are_hashed(tmp_path: Path) -> None:
    """Runs of earlier versions did not store the hash of initial weights: it is only compared."""
    cfg, weights = get_search_cfg(), tmp_path / "weights.safetensors"
    weights.write_bytes(b"1")
    cfg.MODEL.TEACHER = cfg.MODEL.WEIGHTS = str(weights)
    assert sorted(file_hashes(cfg)) == ["MODEL.TEACHER", "MODEL.WEIGHTS"]
    assert "sha256 of MODEL.TEACHER" in values_affecting_scores(cfg)
    assert "sha256 of MODEL.WEIGHTS" not in values_affecting_scores(cfg)
    cfg.MODEL.TEACHER = cfg.MODEL.WEIGHTS = "zoo://fbnetv3_a0.cifar10"
    assert file_hashes(cfg) == {}


@pytest.mark.parametrize(
    ("file", "is_hashed"),
    [
        ("model_ema.safetensors", True),
        ("model.safetensors", True),
        ("checkpoint_00000022.pt", True),
        ("notes.txt", False),
    ],
)
def test_a_teacher_may_be_the_folder_of_a_training(
    file: str, is_hashed: bool, tmp_path: Path
) -> None:
    cfg = get_search_cfg()
    cfg.MODEL.TEACHER = str(tmp_path)
    hashes = []
    for content in (b"1", b"2"):
        (tmp_path / file).write_bytes(content)
        hashes.append(values_affecting_scores(cfg).get("sha256 of MODEL.TEACHER"))
    assert (None not in hashes) == is_hashed
    assert (hashes[0] != hashes[1]) == is_hashed


def _space() -> SearchSpace:
    return SearchSpace([IntRange("depth", 1, 4)])


def test_a_constraint_without_statistics() -> None:
    with pytest.raises(SearchError, match="macs <= 5: there are no statistics"):
        Costs(_space(), None).check([Constraint("macs", upper=5)])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_statistic_that_is_not_finite_names_the_candidate(value: float) -> None:
    def statistics(configs: list[dict[str, Any]]) -> dict[str, Any]:
        return {"ms": [value if c["depth"] == 3 else 1.0 for c in configs]}

    space = _space()
    with pytest.raises(
        SearchError, match=rf"statistic 'ms' is {value} for {{'depth': 3}}"
    ) as error:
        Costs(space, statistics)(space.levels([{"depth": d} for d in (1, 2, 3, 4)]))
    assert "\n" not in str(error.value)
