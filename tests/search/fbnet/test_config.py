"""The keys of a search: what can't be meant is told in one line before anything starts."""

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

from fbnetv3.search.fbnet.config import executor_from_config, file_hashes, settings_from_config
from fbnetv3.search.fbnet.evaluator import get_search_cfg


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("EARLY_STOP", 2.0, "EARLY_STOP=2.0 is out of range; allowed: 0 to 1"),
        ("EARLY_STOP", float("nan"), "EARLY_STOP=nan"),
        ("ITERATIONS", 0, "ITERATIONS=0 is out of range; allowed: 1 or more"),
        ("WORKERS", -1, "WORKERS=-1 is out of range; allowed: 0 or more"),
        ("THREADS", 0, "THREADS=0 is out of range; allowed: 1 or more"),
        ("CLASSES", -5, "CLASSES=-5"),
        ("HOLD_OUT", -1, "HOLD_OUT=-1"),
        ("STORAGE", "search.db", "STORAGE='search.db' is no URL; allowed: such as postgresql://"),
        ("STORAGE", "postgresql://me:secret@h/d", r"me:\*\*\*@h/d holds a password.*PGPASSWORD"),
        ("RAY.WORKERS", -1, "SEARCH.RAY.WORKERS=-1 is out of range; allowed: 0 or more"),
        ("RAY.CPUS", -0.5, "RAY.CPUS=-0.5"),
        ("RAY.GPUS", -2.0, "RAY.GPUS=-2.0 is out of range; allowed: -1 or more"),
        ("CONSTRAINTS", ["latency_ms <= 5"], "needs SEARCH.LATENCY_TABLE FILE; measure one"),
        ("BUDGETS", ["latency_ms <= 5"], "needs SEARCH.LATENCY_TABLE FILE; measure one"),
        ("BUDGETS", ["macs >= 5"], "BUDGETS: 'macs >= 5' has no upper bound; write"),
        ("CONSTRAINTS", ["macs < 5"], "constraint 'macs < 5' is not understood"),
        ("CONSTRAINTS", ["3e6 <= macs <= 2e6"], "lower=3e[+]06 is above upper=2e[+]06"),
    ],
)
def test_what_cannot_be_meant(key: str, value: Any, words: str) -> None:
    cfg = get_search_cfg()
    group, _, name = key.rpartition(".")
    (cfg.SEARCH[group] if group else cfg.SEARCH)[name] = value
    with pytest.raises(SearchError, match=words) as error:
        settings_from_config(cfg)
    assert "\n" not in str(error.value)


def test_executors_by_name() -> None:
    cfg = get_search_cfg()
    assert isinstance(executor_from_config(cfg), InProcess)
    cfg.SEARCH.WORKERS = 2
    assert isinstance(executor_from_config(cfg), LocalWorkers)
    cfg.SEARCH.EXECUTOR = "slurm"
    with pytest.raises(SearchError, match="EXECUTOR='slurm' is none; allowed: local, ray"):
        executor_from_config(cfg)


def test_ray_says_how_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    cfg = get_search_cfg()
    cfg.SEARCH.EXECUTOR = "ray"
    with pytest.raises(SearchError, match=r"pip install 'fbnetv3\[ray\]', or set") as error:
        executor_from_config(cfg)
    assert "\n" not in str(error.value)


def test_ray_without_gpus_for_trainings_that_need_one() -> None:
    cfg = get_search_cfg()
    cfg.merge_from_list(["SEARCH.EXECUTOR", "ray", "SEARCH.RAY.GPUS", 0.0, "MODEL.DEVICE", "cuda"])
    with pytest.raises(SearchError, match=r"RAY\.GPUS=0 hides the GPUs that MODEL\.DEVICE=cuda"):
        executor_from_config(cfg)


def test_ray_is_imported_by_those_who_use_it() -> None:
    code = (
        "import sys; from fbnetv3.search.fbnet.evaluator import get_search_cfg; "
        "from fbnetv3.search.fbnet.config import executor_from_config; "
        "executor_from_config(get_search_cfg()); print('ray' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_latency_is_a_constraint_like_others_where_there_is_a_table() -> None:
    cfg = get_search_cfg()
    cfg.SEARCH.LATENCY_TABLE, cfg.SEARCH.CONSTRAINTS = "table.json", ["latency_ms <= 5.5"]
    assert settings_from_config(cfg).constraints == (Constraint("latency_ms", upper=5.5),)


def test_hashes_are_of_the_files_that_a_config_names(tmp_path: Path) -> None:
    cfg, table = get_search_cfg(), tmp_path / "table.json"
    assert file_hashes(cfg) == {}  # a packaged space, a network by name
    table.write_text("1")
    cfg.SEARCH.LATENCY_TABLE = str(table)
    before = file_hashes(cfg)
    assert list(before) == ["SEARCH.LATENCY_TABLE"]
    table.write_text("2")
    assert file_hashes(cfg) != before


def _space() -> SearchSpace:
    return SearchSpace([IntRange("depth", 1, 4)])


def test_a_constraint_without_statistics() -> None:
    with pytest.raises(SearchError, match="macs <= 5: there are no statistics"):
        Costs(_space(), None).check([Constraint("macs", upper=5)])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_statistic_that_is_no_number_names_the_candidate(bad: float) -> None:
    def statistics(configs: list[dict[str, Any]]) -> dict[str, Any]:
        return {"ms": [bad if c["depth"] == 3 else 1.0 for c in configs]}

    space = _space()
    with pytest.raises(SearchError, match=rf"statistic 'ms' is {bad} for {{'depth': 3}}"):
        Costs(space, statistics)(space.levels([{"depth": d} for d in (1, 2, 3, 4)]))
