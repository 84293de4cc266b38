"""The config tree: our keys, strictness from every side, files, versions, recipes."""

from __future__ import annotations

import glob
import math
import os
import pickle
from pathlib import Path
from typing import Any

import detectron2.model_zoo
import pytest
import yaml
from detectron2.config import get_cfg as detectron_get_cfg
from hypothesis import given, settings
from hypothesis import strategies as st

from fbnetv3.config import (
    KEYS,
    CfgNode,
    ConfigError,
    get_cfg,
    get_value,
    iter_keys,
    recipe_from_config,
    recipe_to_config,
)
from fbnetv3.config.arithmetic import evaluate
from fbnetv3.recipe import AUGMENTATIONS, OPTIMIZERS, SCHEDULES, Recipe
from fbnetv3.resources import find_config, list_configs

ZOO = [name for name in list_configs() if not name.startswith("search/")]
DETECTRON = Path(detectron2.model_zoo.__file__).parent / "configs"


def write(folder: Path, text: str, name: str = "x.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def complaint(call: Any, *args: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*args)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- keys ---


@pytest.mark.parametrize("key", sorted(KEYS))
def test_a_key_has_a_meaning_and_a_default(key: str) -> None:
    default, meaning = KEYS[key]
    assert len(meaning.split()) >= 3
    assert get_value(get_cfg(), key) == default


def test_no_key_of_detectron2_is_lost() -> None:
    theirs = dict(iter_keys(detectron_get_cfg()))
    assert set(theirs) <= set(dict(iter_keys(get_cfg())))
    assert not set(theirs) & set(KEYS)


def test_the_defaults_are_a_valid_recipe() -> None:
    assert recipe_from_config(get_cfg()).lr == get_cfg().SOLVER.BASE_LR


def test_each_call_gives_a_tree_of_its_own() -> None:
    one = get_cfg()
    one.INPUT.MEAN[0] = 7.0
    one.SOLVER.BASE_LR = 7.0
    assert get_cfg().INPUT.MEAN[0] != 7.0
    assert KEYS["INPUT.MEAN"][0][0] != 7.0


# --- unknown keys ---


def test_unknown_in_a_file_names_file_and_nearest(tmp_path: Path) -> None:
    text = complaint(get_cfg().merge_from_file, write(tmp_path, "SOLVER:\n  BASE_LRR: 1.0\n"))
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
def test_unknown_in_a_list_names_nearest(key: str, nearest: str) -> None:
    text = complaint(get_cfg().merge_from_list, [key, "1"])
    assert nearest in text.split("did you mean")[1]


def test_unknown_with_nothing_near_lists_what_there_is() -> None:
    text = complaint(get_cfg().merge_from_list, ["MODEL_EMA.ZZZZZZZZ", 1])
    assert "DECAY, ENABLED, WARMUP" in text


def test_unknown_set_from_code() -> None:
    cfg = get_cfg()
    assert "BASE_LR" in complaint(setattr, cfg.SOLVER, "BASE_LRR", 1.0)
    assert "BASE_LR" in complaint(cfg.SOLVER.__setitem__, "BASE_LRR", 1.0)
    assert "SOLVER" in complaint(setattr, cfg, "SOLVERS", 1.0)
    assert "THRESH" in complaint(setattr, cfg.MODEL.RPN, "NMS_TRESH", 0.5)
    assert cfg == get_cfg()


def test_an_odd_list_names_the_lone_key() -> None:
    assert "'OUTPUT_DIR'" in complaint(get_cfg().merge_from_list, ["SEED", 1, "OUTPUT_DIR"])


def test_keys_of_ones_own_when_allowed() -> None:
    cfg = get_cfg()
    cfg.set_new_allowed(True)
    cfg.MINE = CfgNode({"A": 1}, new_allowed=True)
    cfg.merge_from_list(["MINE.B", "2"])
    cfg.set_new_allowed(False)
    assert cfg.MINE.B == 2
    assert "MINE.C" in complaint(cfg.merge_from_list, ["MINE.C", "2"])


# --- types ---

WRONG = [
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


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_wrong_types_set_from_code(key: str, value: Any) -> None:
    *path, last = key.split(".")
    cfg = get_cfg()
    node = get_value(cfg, ".".join(path)) if path else cfg
    assert last in complaint(setattr, node, last, value)
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
    assert key.removesuffix(".X") in complaint(get_cfg().merge_from_list, [key, value])


def test_a_wrong_type_in_a_file_names_the_file(tmp_path: Path) -> None:
    text = complaint(get_cfg().merge_from_file, write(tmp_path, "SOLVER: {IMS_PER_BATCH: lots}"))
    assert "x.yaml" in text
    assert "SOLVER.IMS_PER_BATCH" in text


@pytest.mark.parametrize("value", ["1", "1.0", "1e0", 1, 1.0])
def test_an_int_is_taken_for_a_float(value: Any) -> None:
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


# --- files ---


def test_base_chain(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, "SEED: 1\nSOLVER: {BASE_LR: 1.0, MOMENTUM: 0.1}", "a.yaml")
    write(tmp_path, "SEED: 2\nVIS_PERIOD: 2", "b.yaml")
    write(tmp_path / "sub", "_BASE_: [../a.yaml, ../b.yaml]\nSOLVER: {BASE_LR: 2.0}", "c.yaml")
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path, "_BASE_: sub/c.yaml\nSOLVER: {MAX_EPOCHS: 3}", "d.yaml"))
    assert (cfg.SEED, cfg.VIS_PERIOD) == (2, 2)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM, cfg.SOLVER.MAX_EPOCHS) == (2.0, 0.1, 3.0)


def test_two_ways_to_one_base_are_no_circle(tmp_path: Path) -> None:
    write(tmp_path, "SEED: 1", "a.yaml")
    write(tmp_path, "_BASE_: a.yaml", "b.yaml")
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path, "_BASE_: [a.yaml, b.yaml]"))
    assert cfg.SEED == 1


@pytest.mark.parametrize("names", ["x.yaml", "y.yaml"])
def test_a_circle_of_bases(tmp_path: Path, names: str) -> None:
    write(tmp_path, "_BASE_: x.yaml", "y.yaml")
    text = complaint(get_cfg().merge_from_file, write(tmp_path, f"_BASE_: {names}"))
    assert "circle" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("_BASE_: 5", "_BASE_ takes"),
        ("_BASE_: [5]", "_BASE_ takes"),
        ("_BASE_: nowhere.yaml", "nowhere.yaml"),
        ("", "holds no KEY"),
        ("- 1", "holds no KEY"),
        ("A: [", "no yaml"),
        ("A: {b: c: d}", "no yaml"),
        ("VERSION: 1", "VERSION 1"),
        ("VERSION: 3", "VERSION 3"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, says: str) -> None:
    assert says in complaint(get_cfg().merge_from_file, write(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    assert "No such file" in complaint(get_cfg().merge_from_file, str(tmp_path / "no.yaml"))


def test_an_old_base(tmp_path: Path) -> None:
    write(tmp_path, "VERSION: 1", "old.yaml")
    assert "old.yaml" in complaint(
        get_cfg().merge_from_file, write(tmp_path, "_BASE_: old.yaml\nVERSION: 2")
    )


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/object/apply:eval [\"__import__('os').system('touch {}')\"]",
        "!!python/object/new:subprocess.Popen [[touch, '{}']]",
        "!!python/name:os.system",
    ],
)
def test_code_in_a_file_does_not_run(tmp_path: Path, tag: str) -> None:
    touched = tmp_path / "touched"
    path = write(tmp_path, f"OUTPUT_DIR: {tag.format(touched)}\n")
    assert "safely" in complaint(get_cfg().merge_from_file, path)
    assert not touched.exists()


def test_the_unsafe_loader_is_refused(tmp_path: Path) -> None:
    assert "safe" in complaint(get_cfg().merge_from_file, write(tmp_path, "SEED: 1"), True)


@pytest.mark.parametrize(
    "text",
    [
        *("9 ** 9 ** 9 ** 9", "[0] * 9", "'a' * 9", "x", "f(1)", "[1 for a in [1] if a]", "1 / 0"),
        *("(1).real", "[a for a in 5]", "lambda: 1", "1 and 1", "-'a'", "(-1) ** 0.5", "[", ""),
    ],
)
def test_arithmetic_computes_numbers_only(text: str) -> None:
    with pytest.raises(ValueError):
        evaluate(text)


@pytest.mark.parametrize(
    "text", ["1", "-2.5", "[1, [2, 3]]", "[[x, x * 2 ** (1 / 3)] for x in [8, 2 * 8 % 7]]", "7//2"]
)
def test_arithmetic_as_python_does(text: str) -> None:
    assert evaluate(text) == eval(text)


@pytest.mark.parametrize(
    "name",
    [Path(p).relative_to(DETECTRON).as_posix() for p in glob.glob(f"{DETECTRON}/COCO-*/*.yaml")],
)
def test_configs_of_detectron2_merge_as_there(name: str) -> None:
    ours, theirs = get_cfg(), detectron_get_cfg()
    ours.merge_from_file(os.path.join(DETECTRON, name))
    theirs.merge_from_file(os.path.join(DETECTRON, name))
    stated = yaml_keys(DETECTRON / name)
    assert stated
    for key in stated:
        assert get_value(ours, key) == get_value(theirs, key), key


def yaml_keys(path: Path) -> list[str]:
    values = yaml.safe_load(path.read_text())
    values.pop("_BASE_", None)
    return [key for key, _ in iter_keys(values)] + ["MODEL.ANCHOR_GENERATOR.SIZES"]


# --- the model zoo ---


@pytest.mark.parametrize("name", ZOO)
def test_a_config_of_the_zoo_is_valid(name: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config(name)))
    # detectron2's schedules count iterations: of 16 images, 7,330 are an epoch of COCO
    recipe = recipe_from_config(cfg, iters_per_epoch=7330)
    assert recipe.epochs > recipe.warmup_epochs


def test_the_zoo_has_configs() -> None:
    assert {f"fbnetv3_{x}.yaml" for x in ["a0", *"abcdefg"]} <= set(ZOO)


def test_the_papers_recipe_is_in_the_configs() -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config("fbnetv3_g.yaml")))
    recipe = recipe_from_config(cfg)
    # Table 7 and A.3
    assert (recipe.optimizer, recipe.lr, recipe.reference_batch) == ("rmsprop", 0.026, 256)
    assert (recipe.epochs, recipe.decay, recipe.warmup_epochs) == (400, 0.9875, 5)
    assert (recipe.ema_decay, recipe.weight_decay, recipe.weight_decay_norm) == (0.99985, 7e-6, 0)
    assert (recipe.dropout, recipe.drop_path, recipe.mixup) == (0.17, 0.2, 0.19)


# --- recipes ---

share = st.floats(0, 0.99)
RECIPES = st.builds(
    Recipe,
    optimizer=st.sampled_from(OPTIMIZERS),
    lr=st.floats(1e-9, 1e3),
    reference_batch=st.integers(1, 4096),
    batch_size=st.integers(1, 4096),
    epochs=st.floats(11, 1000),
    schedule=st.sampled_from(SCHEDULES),
    decay=st.floats(0.1, 1),
    warmup_epochs=st.floats(0, 10),
    warmup_factor=st.floats(0, 1),
    momentum=share,
    weight_decay=st.floats(0, 1),
    weight_decay_norm=st.floats(0, 1),
    ema=st.booleans(),
    ema_decay=share,
    ema_warmup=st.booleans(),
    dropout=share,
    drop_path=share,
    mixup=st.floats(0, 2),
    label_smoothing=share,
    auto_augment=st.sampled_from(AUGMENTATIONS),
    clip_grad_norm=st.sampled_from([0.0, 0.5, 10.0]),
    amp=st.booleans(),
)


@settings(deadline=None, max_examples=40)
@given(recipe=RECIPES)
def test_a_recipe_survives_a_config(recipe: Recipe) -> None:
    cfg = get_cfg()
    cfg.merge_from_list([x for pair in recipe_to_config(recipe).items() for x in pair])
    assert recipe_from_config(cfg) == recipe
    again = get_cfg()
    again.merge_from_other_cfg(yaml.safe_load(cfg.dump()))
    assert recipe_from_config(again) == recipe


def test_a_bad_value_names_the_configs_key() -> None:
    for key, value in [
        ("SOLVER.BASE_LR", -1.0),
        ("SOLVER.BASE_LR", math.nan),
        ("SOLVER.OPTIMIZER", "adam"),
        ("SOLVER.IMS_PER_BATCH", 0),
        ("MODEL_EMA.DECAY", 1.0),
        ("SOLVER.WARMUP_EPOCHS", 500.0),
    ]:
        cfg = get_cfg()
        cfg.merge_from_list([key, value])
        assert f"{key}=" in complaint(recipe_from_config, cfg)


def test_length_in_iterations() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.MAX_EPOCHS", 0, "SOLVER.MAX_ITER", 70, "SOLVER.WARMUP_EPOCHS", 0])
    assert recipe_from_config(cfg, 7).epochs == 10
    assert "SOLVER.MAX_EPOCHS" in complaint(recipe_from_config, cfg)


@pytest.mark.parametrize("how", [["CLIP_TYPE", "value"], ["NORM_TYPE", 1.0]])
def test_clipping_of_another_kind_is_refused(how: list[Any]) -> None:
    cfg = get_cfg()
    clip = "SOLVER.CLIP_GRADIENTS"
    cfg.merge_from_list([f"{clip}.ENABLED", True, f"{clip}.{how[0]}", how[1]])
    assert clip in complaint(recipe_from_config, cfg)


# --- copies ---


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
        assert "SOLVER" in complaint(setattr, copy, "SOLVR", 1)
        assert cfg.SOLVER.BASE_LR != 9.0
        assert cfg.INPUT.MEAN[0] != 9.0


def test_a_frozen_config_changes_from_no_side(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.freeze()
    path = write(tmp_path, "SEED: 5")
    assert "frozen" in complaint(setattr, cfg.SOLVER, "BASE_LR", 1.0)
    assert "frozen" in complaint(cfg.merge_from_list, ["SEED", 5])
    assert "frozen" in complaint(cfg.merge_from_file, path)
    assert "frozen" in complaint(cfg.merge_from_other_cfg, {"SEED": 5})
    assert cfg == get_cfg()


def test_a_dump_merges_again(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config("digits.yaml")))
    again = get_cfg()
    again.merge_from_file(write(tmp_path, cfg.dump()))
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())
    assert str(cfg) == cfg.dump()
