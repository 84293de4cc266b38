"""The rungs of a search's config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fbnetv3.resources import find_config
from fbnetv3.search import SearchError

pytest.importorskip("detectron2")

from fbnetv3.config import CfgNode
from fbnetv3.search import fbnet
from fbnetv3.search.fbnet.config import SearchSetup, settings_from_config
from fbnetv3.search.fbnet.keys import get_search_cfg
from fbnetv3.search.fbnet.run_report import early_stopping_line
from fbnetv3.search.fbnet.tasks import check_task


def _cfg(*opts: Any, base: str = "search/digits.yaml") -> CfgNode:
    cfg = get_search_cfg()
    cfg.merge_from_file(str(find_config(base)))
    cfg.merge_from_list(list(opts))
    return cfg


def test_rungs_end_with_the_whole_training() -> None:
    assert settings_from_config(_cfg()).rungs == ()
    cfg = _cfg("SOLVER.MAX_EPOCHS", 9, "SEARCH.RUNGS", [1, 3, 9])
    assert settings_from_config(cfg).rungs == (1, 3, 9)
    assert early_stopping_line(cfg) == "by rungs (epochs 1, 3)"
    assert early_stopping_line(_cfg()) == "at rank correlation 0.92 over the better half"


@pytest.mark.parametrize(
    ("rungs", "text"),
    [
        ([3, 9, 27], r"RUNGS=\[3, 9, 27\] ends after 27 epochs, but SOLVER.MAX_EPOCHS=9"),
        ([9, 3], r"SEARCH.RUNGS=\[9, 3\]: rungs=.* at least two ascending numbers"),
        ([9], r"SEARCH.RUNGS=\[9\]: "),
        ([0.5, 9], r"SEARCH.RUNGS=\[0.5, 9\]: "),
    ],
)
def test_other_rungs_are_refused_by_key(rungs: list[float], text: str) -> None:
    with pytest.raises(SearchError, match=text):
        settings_from_config(_cfg("SOLVER.MAX_EPOCHS", 9, "SEARCH.RUNGS", rungs))


def test_detectors_scored_by_iterations_have_no_rungs() -> None:
    cfg = _cfg("SEARCH.RUNGS", [1, 3], base="search/retinanet_bccd.yaml")
    cfg.merge_from_list(["TEST.EVAL_EPOCHS", 0.5])
    with pytest.raises(SearchError, match="are scored after numbers of iterations"):
        settings_from_config(cfg)


def test_a_space_of_lengths_has_no_rungs(tmp_path: Path) -> None:
    nano = Path(fbnet.__file__).with_name("spaces") / "nano.yaml"
    table = yaml.safe_load(nano.read_text())
    table["recipe"]["epochs"] = {"choices": [3, 9]}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(table))
    own = ["SEARCH.SPACE", str(tmp_path / "own.yaml"), "SOLVER.MAX_EPOCHS", 9]
    check_task(SearchSetup(_cfg(*own, "SEARCH.EARLY_STOP", 0.0)))
    with pytest.raises(SearchError, match=r"space sets epochs, but SEARCH\.RUNGS"):
        check_task(SearchSetup(_cfg(*own, "SEARCH.RUNGS", [1, 3, 9])))


def test_a_space_of_iterations_has_no_rungs(tmp_path: Path) -> None:
    table = {"detector": {"iterations": {"choices": [10, 20]}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(table))
    opts = ["SEARCH.SPACE", str(tmp_path / "own.yaml"), "SEARCH.FIX", [], "SEARCH.RUNGS", [1, 3]]
    cfg = _cfg(*opts, base="search/retinanet_bccd.yaml")
    with pytest.raises(SearchError, match=r"space sets iterations, but SEARCH\.RUNGS"):
        check_task(SearchSetup(cfg))


def test_a_resolution_without_rows_is_for_detectors(tmp_path: Path) -> None:
    table = {"resolution": {"choices": [16, 32]}, "recipe": {"lr": {"choices": [0.1, 0.2]}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(table))
    cfg = _cfg("SEARCH.SPACE", str(tmp_path / "own.yaml"), "SEARCH.FIX", [])
    with pytest.raises(SearchError, match="resolution, which has no effect on classifiers"):
        check_task(SearchSetup(cfg))
