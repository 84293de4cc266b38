"""Keys of the config: defaults, meanings, unknown keys, types and copies."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from detectron2.config import get_cfg as detectron_get_cfg

from fbnetv3.config import (
    KEYS,
    CfgNode,
    get_cfg,
    get_value,
    iter_keys,
    recipe_from_config,
)
from fbnetv3.resources import find_config
from tests.config.helpers import error_of, write


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_key_has_a_default_and_a_description(key: str) -> None:
    default, description = KEYS[key]
    assert len(description.split()) >= 3
    assert get_value(get_cfg(), key) == default


def test_no_key_of_detectron2_is_lost() -> None:
    keys = set(dict(iter_keys(detectron_get_cfg())))
    assert keys <= set(dict(iter_keys(get_cfg())))
    assert not keys & set(KEYS)


def test_the_defaults_are_a_valid_recipe() -> None:
    assert recipe_from_config(get_cfg()).lr == get_cfg().SOLVER.BASE_LR


def test_configs_share_no_values() -> None:
    one = get_cfg()
    one.INPUT.MEAN[0] = 7.0
    one.SOLVER.BASE_LR = 7.0
    assert get_cfg().INPUT.MEAN[0] != 7.0
    assert KEYS["INPUT.MEAN"][0][0] != 7.0


def test_an_unknown_key_in_a_file_names_file_and_nearest_key(tmp_path: Path) -> None:
    text = error_of(get_cfg().merge_from_file, write(tmp_path, "SOLVER:\n  BASE_LRR: 1.0\n"))
    assert "x.yaml" in text
    assert "SOLVER.BASE_LRR" in text
    assert "did you mean BASE_LR" in text


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("SOLVER.BASE_LRR", "BASE_LR"),
        ("SOLVR.BASE_LR", "SOLVER"),
        ("solver.base_lr", "SOLVER"),
        ("MODEL_EMA.DECAI", "DECAY"),
        ("MODEL.RPN.IOU_THRESHOLD", "IOU_THRESHOLDS"),
    ],
)
def test_an_unknown_key_in_a_list_names_the_nearest_key(key: str, nearest: str) -> None:
    text = error_of(get_cfg().merge_from_list, [key, "1"])
    assert nearest in text.split("did you mean")[1]


def test_an_unknown_key_like_no_other_lists_the_groups_keys() -> None:
    text = error_of(get_cfg().merge_from_list, ["MODEL_EMA.ZZZZZZZZ", 1])
    assert "DECAY, ENABLED, WARMUP" in text


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("MODEL.ARCH", "keys are nested: MODEL: {ARCH: ...}"),
        ("SOLVER.AMP.ENABLED", "keys are nested: SOLVER: {AMP.ENABLED: ...}"),
        ("MODLE.ARCH", "did you mean MODEL"),
        ("SEED.x", "did you mean SEED?"),
    ],
)
def test_a_yaml_with_dots_in_its_keys(key: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "flat.yaml").write_text(f"{key}: fbnetv3_a\n")
    assert hint in error_of(get_cfg().merge_from_file, str(tmp_path / "flat.yaml"))


def test_an_unknown_key_set_in_code() -> None:
    cfg = get_cfg()
    assert "BASE_LR" in error_of(setattr, cfg.SOLVER, "BASE_LRR", 1.0)
    assert "BASE_LR" in error_of(cfg.SOLVER.__setitem__, "BASE_LRR", 1.0)
    assert "SOLVER" in error_of(setattr, cfg, "SOLVERS", 1.0)
    assert "THRESH" in error_of(setattr, cfg.MODEL.RPN, "NMS_TRESH", 0.5)
    assert cfg == get_cfg()


def test_a_list_with_a_key_without_a_value() -> None:
    assert "'OUTPUT_DIR'" in error_of(get_cfg().merge_from_list, ["SEED", 1, "OUTPUT_DIR"])


def test_new_keys_where_they_are_allowed() -> None:
    cfg = get_cfg()
    cfg.set_new_allowed(True)
    cfg.NEW = CfgNode({"A": 1}, new_allowed=True)
    cfg.merge_from_list(["NEW.B", "2"])
    cfg.set_new_allowed(False)
    assert cfg.NEW.B == 2
    assert "NEW.C" in error_of(cfg.merge_from_list, ["NEW.C", "2"])


WRONG_TYPES = [
    ("SOLVER.BASE_LR", "fast"),
    ("SOLVER.BASE_LR", True),
    ("SOLVER.BASE_LR", None),
    ("SOLVER.BASE_LR", [0.1]),
    ("SOLVER.IMS_PER_BATCH", 1.5),
    ("SOLVER.IMS_PER_BATCH", False),
    ("MODEL_EMA.ENABLED", 1),
    ("MODEL.ARCH", 5.0),
    ("MODEL", 3),
    ("MODEL", {"ARCH": "fbnetv3_a"}),
    ("DATASETS.TRAIN", 3),
    ("OUTPUT_DIR", None),
]


@pytest.mark.parametrize(("key", "value"), WRONG_TYPES)
def test_wrong_types_set_in_code(key: str, value: Any) -> None:
    *path, last = key.split(".")
    cfg = get_cfg()
    node = get_value(cfg, ".".join(path)) if path else cfg
    assert last in error_of(setattr, node, last, value)
    assert cfg == get_cfg()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SOLVER.BASE_LR", "fast"),
        ("SOLVER.BASE_LR", "None"),
        ("SOLVER.IMS_PER_BATCH", "1.5"),
        ("MODEL_EMA.ENABLED", "yes"),
        ("SOLVER.BASE_LR.X", "1"),
        ("SOLVER", "1"),
    ],
)
def test_wrong_types_in_a_list(key: str, value: str) -> None:
    assert key.removesuffix(".X") in error_of(get_cfg().merge_from_list, [key, value])


def test_a_wrong_type_in_a_file_names_the_file(tmp_path: Path) -> None:
    text = error_of(get_cfg().merge_from_file, write(tmp_path, "SOLVER: {IMS_PER_BATCH: lots}"))
    assert "x.yaml" in text
    assert "SOLVER.IMS_PER_BATCH" in text


@pytest.mark.parametrize("value", ["1", "1.0", "1e0", 1, 1.0])
def test_an_int_is_accepted_for_a_float(value: Any) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.BASE_LR", value])
    assert cfg.SOLVER.BASE_LR == 1.0
    assert type(cfg.SOLVER.BASE_LR) is float


def test_an_exponent_without_a_point_in_a_file(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path, "SOLVER: {WEIGHT_DECAY: 7e-6}"))  # a string to yaml 1.1
    assert cfg.SOLVER.WEIGHT_DECAY == 7e-6


def test_names_that_look_like_numbers_stay_names() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["OUTPUT_DIR", "2024", "MODEL.WEIGHTS", "1e5"])
    assert (cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS) == ("2024", "1e5")


def test_lists_tuples_single_names_and_paths() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["DATASETS.TRAIN", "digits_train", "DATASETS.TEST", "['digits_test']"])
    assert cfg.DATASETS.TRAIN == ("digits_train",)
    assert cfg.DATASETS.TEST == ("digits_test",)
    cfg.INPUT.MEAN = (0.1, 0.2, 0.3)
    assert cfg.INPUT.MEAN == [0.1, 0.2, 0.3]
    cfg.OUTPUT_DIR = Path("a/b")
    assert cfg.OUTPUT_DIR == "a/b"


def test_clone_freeze_pickle() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SEED", 5])
    cfg.freeze()
    for copy in (cfg.clone(), pickle.loads(pickle.dumps(cfg))):
        assert copy == cfg
        assert type(copy.SOLVER) is CfgNode
        assert copy.is_frozen()
        copy.defrost()
        copy.SOLVER.BASE_LR = 9.0
        copy.INPUT.MEAN[0] = 9.0
        assert "SOLVER" in error_of(setattr, copy, "SOLVR", 1)
        assert cfg.SOLVER.BASE_LR != 9.0
        assert cfg.INPUT.MEAN[0] != 9.0


def test_a_frozen_config_cannot_change(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.freeze()
    path = write(tmp_path, "SEED: 5")
    assert "frozen" in error_of(setattr, cfg.SOLVER, "BASE_LR", 1.0)
    assert "frozen" in error_of(cfg.merge_from_list, ["SEED", 5])
    assert "frozen" in error_of(cfg.merge_from_file, path)
    assert "frozen" in error_of(cfg.merge_from_other_cfg, {"SEED": 5})
    assert cfg == get_cfg()


def test_a_dump_merges_again(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config("digits.yaml")))
    again = get_cfg()
    again.merge_from_file(write(tmp_path, cfg.dump()))
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())
    assert str(cfg) == cfg.dump()
