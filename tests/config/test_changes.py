"""The short config of a run, and the whole tree beside it."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest
import yaml

from fbnetv3.config import CfgNode, get_cfg, iter_keys
from fbnetv3.config.changes import changes_yaml, completed, write_config
from fbnetv3.config.keys import ADDED_KEYS
from fbnetv3.config.ranges import check_length
from fbnetv3.resources import find_config
from tests.config.helpers import write

ZOO = find_config("digits.yaml").parent


def plain(cfg: CfgNode) -> object:
    return yaml.safe_load(cfg.dump())


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in ("", "detection", "detection/bases", "recipes")
        for path in sorted(glob.glob(str(ZOO / folder / "*.yaml")))
    ],
    ids=lambda path: Path(path).stem,
)
def test_the_short_and_the_whole_config_give_the_same(tmp_path: Path, path: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(path)
    written = tmp_path / "config.yaml"
    write_config(written, cfg, get_cfg(), "# first\n")
    assert written.read_text().startswith("# first\n")
    assert len(written.read_text().splitlines()) < 120
    for name in ("config.yaml", "config_full.yaml"):
        again = get_cfg()
        again.merge_from_file(str(tmp_path / name))
        again.SOLVER.MAX_EPOCHS = again.SOLVER.MAX_EPOCHS  # MAX_ITER alone would set it to 0
        again.SOLVER.MAX_ITER = cfg.SOLVER.MAX_ITER  # left out where MAX_EPOCHS counts
        assert plain(again) == plain(cfg)


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        ["SOLVER.MAX_ITER", "40000"],  # a default, which counts
        ["SOLVER.MAX_ITER", "9"],
        ["SOLVER.MAX_EPOCHS", "0.5"],
        ["TEST.EVAL_PERIOD", "7", "SOLVER.CHECKPOINT_PERIOD", "5000"],
        ["TEST.EVAL_EPOCHS", "0", "SOLVER.CHECKPOINT_EPOCHS", "0"],
        ["SOLVER.STEPS", "(3, 5)", "DATASETS.COCO", "[['a', 'b', 'c']]", "OUTPUT_DIR", "a: # b"],
        ["MODEL.WEIGHTS", "'1e5'", "DATASETS.TRAIN", "('yes', '010')", "SOLVER.BASE_LR", "1e-7"],
    ],
    ids=str,
)
def test_lengths_and_values_survive(tmp_path: Path, pairs: list[str]) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(pairs)
    again = get_cfg()
    again.merge_from_file(write(tmp_path, changes_yaml(cfg, get_cfg())))
    check_length(again)
    assert plain(again) == plain(cfg)


def test_trees_of_earlier_versions_have_the_defaults_of_new_keys() -> None:
    defaults = dict(iter_keys(get_cfg()))
    old = {key: value for key, value in defaults.items() if key not in ADDED_KEYS}
    old["SOLVER.NESTEROV"] = False  # as version 0.1 wrote it
    assert completed(old, defaults) == defaults
    new = {**defaults, "SOLVER.NESTEROV": False, "MODEL.COMPILE": True}
    assert completed(new, defaults) == new
