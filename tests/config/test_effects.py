"""Keys that a config gives, but that nobody reads."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest

from fbnetv3.config import KEYS, CfgNode, get_cfg, get_value, iter_keys
from fbnetv3.config.effects import unread_keys
from fbnetv3.resources import find_config
from tests.config.helpers import error_of, write

BCCD = "detection/retinanet_fbnetv3_a0_bccd.yaml"


def config(name: str, *pairs: str) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config(name)))
    cfg.merge_from_list(list(pairs))
    return cfg


@pytest.mark.parametrize(
    ("name", "pairs", "reason"),
    [
        ("digits.yaml", ["SOLVER.STEPS", "(5,)"], "read only with SOLVER.LR_SCHEDULER_NAME steps"),
        ("digits.yaml", ["SOLVER.GAMMA", "0.5"], "read only with SOLVER.LR_SCHEDULER_NAME steps"),
        ("digits.yaml", ["INPUT.MIN_SIZE_TEST", "64"], "not read for a classifier"),
        ("digits.yaml", ["INPUT.CROP.ENABLED", "True"], "not read for a classifier"),
        ("digits.yaml", ["MODEL.RETINANET.NUM_CLASSES", "7"], "not read for a classifier"),
        ("digits.yaml", ["MODEL.ARCH_NORM", "FrozenBN"], "not read for a classifier"),
        ("digits.yaml", ["TEST.AUG.ENABLED", "True"], "not read for a classifier"),
        ("digits.yaml", ["SOLVER.WARMUP_ITERS", "5"], "not read for a classifier"),
        ("digits.yaml", ["DATALOADER.SAMPLER_TRAIN", "X"], "not read for a classifier"),
        (
            "digits.yaml",
            ["SOLVER.EPOCH_DECAY", "0.5"],
            "read only with SOLVER.LR_SCHEDULER_NAME exp",
        ),
        (
            "digits.yaml",
            ["SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "9.0"],
            "read only with SOLVER.CLIP_GRAD",
        ),
        (
            "digits.yaml",
            ["MODEL_EMA.DECAY", "0.5", "MODEL_EMA.ENABLED", "False"],
            "read only with MODEL_EMA.ENABLED True",
        ),
        ("digits.yaml", ["SOLVER.AMP.DTYPE", "bfloat16"], "read only with SOLVER.AMP.ENABLED True"),
        (
            "digits.yaml",
            ["DATALOADER.PREFETCH", "4", "DATALOADER.NUM_WORKERS", "0"],
            "read only with DATALOADER.NUM_WORKERS above 0",
        ),
        (
            "digits.yaml",
            ["SOLVER.BETA2", "0.9", "SOLVER.OPTIMIZER", "sgd"],
            "read only with SOLVER.OPTIMIZER adamw or lion or muon",
        ),
        ("digits.yaml", ["SOLVER.DISTILL_ALPHA", "0.9"], "read only with MODEL.TEACHER"),
        ("digits.yaml", ["INPUT.RANDAUGMENT_OPS", "3"], "read only with INPUT.AUTO_AUGMENT rand"),
        (BCCD, ["INPUT.CUTMIX", "1.0"], "not read for a detector"),
        (BCCD, ["SOLVER.CLASS_BALANCE", "1.0"], "not read for a detector"),
        (BCCD, ["INPUT.RESOLUTION", "64"], "not read for a detector"),
        (BCCD, ["MODEL.BN_MOMENTUM", "0.2"], "not read for a detector"),
        (BCCD, ["INPUT.CROP.TYPE", "absolute"], "read only with INPUT.CROP.ENABLED True"),
        (BCCD, ["MODEL.RPN.NMS_THRESH", "0.5"], "not read for the meta-architecture RetinaNet"),
        (BCCD, ["MODEL.ROI_BOX_HEAD.NUM_FC", "1"], "not read for the meta-architecture RetinaNet"),
        (BCCD, ["MODEL.RESNETS.DEPTH", "18"], "not read for the backbone build_retinanet_fbnet"),
        (BCCD, ["MODEL.COMPILE", "True"], "not read for a detector"),
        (BCCD, ["INPUT.MIXUP", "0.5"], "not read for a detector"),
        (BCCD, ["SOLVER.LABEL_SMOOTHING", "0.2"], "not read for a detector"),
        (BCCD, ["SOLVER.STEPS", "(5,)"], "read only with SOLVER.LR_SCHEDULER_NAME steps"),
        (BCCD, ["SOLVER.WARMUP_ITERS", "5"], "read only with SOLVER.MAX_EPOCHS 0"),
        (BCCD, ["SOLVER.BIAS_LR_FACTOR", "2.0"], "not read for a detector"),
        (BCCD, ["DATALOADER.ASPECT_RATIO_GROUPING", "False"], "not read for a detector"),
        (BCCD, ["TEST.AUG.ENABLED", "True"], "not read for a detector"),
        (
            "detection/retinanet_R_50_FPN_3x.yaml",
            ["MODEL.WIDTH", "0.5"],
            "not read for the backbone build_retinanet_resnet_fpn_backbone",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_keys_without_effect(name: str, pairs: list[str], reason: str) -> None:
    unread = unread_keys(config(name, *pairs))
    assert pairs[0] in unread
    assert unread[pairs[0]].startswith(reason)


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("digits.yaml", ["SOLVER.MOMENTUM", "0.5", "INPUT.MIXUP", "0.1", "SEED", "3"]),
        ("digits.yaml", ["SOLVER.MAX_ITER", "9", "TEST.EVAL_PERIOD", "3"]),
        ("digits.yaml", ["INPUT.MIN_SIZE_TEST", "800"]),  # the default
        (BCCD, ["SOLVER.STEPS", "(5,)", "SOLVER.LR_SCHEDULER_NAME", "steps"]),
        (BCCD, ["INPUT.CROP.ENABLED", "True", "MODEL.PIXEL_MEAN", "[1.0, 1.0, 1.0]"]),
        (BCCD, ["SOLVER.MAX_ITER", "9", "SOLVER.WARMUP_ITERS", "3"]),
        (BCCD, ["CUDNN_BENCHMARK", "True", "SOLVER.NESTEROV", "True"]),
        ("digits.yaml", ["SOLVER.OPTIMIZER", "sgd", "SOLVER.NESTEROV", "False"]),
        ("digits.yaml", ["SOLVER.OPTIMIZER", "adamw", "SOLVER.BETA2", "0.9"]),
        ("digits.yaml", ["MODEL.TEACHER", "zoo://x", "SOLVER.DISTILL_ALPHA", "0.9"]),
        (BCCD, ["MODEL.FREEZE", "backbone", "SOLVER.LAYER_DECAY", "0.9"]),
        ("digits.yaml", ["SOLVER.WEIGHT_DECAY_BIAS", "0.1", "CUDNN_BENCHMARK", "True"]),
        ("digits.yaml", ["SOLVER.STEPS", "(5,)", "SOLVER.LR_SCHEDULER_NAME", "steps"]),
        (BCCD, ["DATALOADER.PIN_MEMORY", "False", "DATALOADER.NUM_WORKERS", "1"]),
        ("digits.yaml", ["DATALOADER.PREFETCH", "4", "DATALOADER.NUM_WORKERS", "1"]),
    ],
)
def test_keys_with_effect(name: str, pairs: list[str]) -> None:
    unread = unread_keys(config(name, *pairs))
    assert not set(unread) & set(pairs)


@pytest.mark.parametrize("folder", ["", "detection"])
def test_the_model_zoo_has_no_keys_without_effect(folder: str) -> None:
    paths = glob.glob(str(find_config("digits.yaml").parent / folder / "*.yaml"))
    assert paths
    for path in paths:
        assert unread_keys(config(path)) == {}, path


def test_a_whole_tree_has_only_keys_that_differ(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path, config("digits.yaml", "SOLVER.STEPS", "(5,)").dump()))
    assert list(unread_keys(cfg)) == ["SOLVER.STEPS"]


def test_copies_keep_the_given_keys() -> None:
    cfg = config("digits.yaml", "SOLVER.STEPS", "(5,)").clone()
    assert list(unread_keys(cfg)) == ["SOLVER.STEPS"]
    assert not get_cfg().given_keys()


def assign(cfg: CfgNode, key: str, value: object) -> None:
    *path, name = key.split(".")
    get_value(cfg, ".".join(path))[name] = value


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("digits.yaml", "SOLVER.STEPS", (5,)),
        ("digits.yaml", "INPUT.MIN_SIZE_TEST", 64),
        ("digits.yaml", "INPUT.CROP.ENABLED", True),
        ("digits.yaml", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 9),
        (BCCD, "INPUT.MIXUP", 0.5),
        (BCCD, "MODEL.RPN.NMS_THRESH", 0.5),
    ],
)
def test_keys_without_effect_that_code_assigns(name: str, key: str, value: object) -> None:
    cfg = config(name)
    assign(cfg, key, value)
    assert list(unread_keys(cfg)) == list(unread_keys(cfg.clone())) == [key]
    assign(cfg, key, get_value(get_cfg(), key))
    assert unread_keys(cfg) == {}


def test_groups_that_code_assigns() -> None:
    cfg, other = config("digits.yaml"), get_cfg()
    other.merge_from_list(["INPUT.MIN_SIZE_TEST", "64", "INPUT.CROP.SIZE", "[0.5, 0.5]"])
    cfg.INPUT = other.INPUT
    assert list(unread_keys(cfg)) == ["INPUT.CROP.SIZE", "INPUT.MIN_SIZE_TEST"]


def test_keys_that_a_program_adds_are_not_judged() -> None:
    cfg = config("digits.yaml")
    cfg.set_new_allowed(True)
    cfg.SOLVER.MINE, cfg.MINE = 1, CfgNode({"A": 1}, new_allowed=True)
    cfg.SOLVER.MINE = cfg.MINE.A = 2
    assert unread_keys(cfg) == {}


def test_assigned_keys_count_as_given_until_they_are_forgotten() -> None:
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = cfg.SOLVER.CLIP_GRADIENTS.ENABLED
    assert cfg.given_keys() == cfg.given_keys(bases=False) == {"SOLVER.CLIP_GRADIENTS.ENABLED"}
    cfg.forget_given_keys()
    assert not cfg.given_keys()


def test_each_key_of_the_package_is_read_by_a_task() -> None:
    for key, value in iter_keys(get_cfg()):
        if key in KEYS:
            reasons = []
            for name in ("digits.yaml", BCCD):
                cfg = config(name)
                cfg.merge_from_list([key, value])
                cfg.SOLVER.LR_SCHEDULER_NAME = "exponential"
                reasons.append(unread_keys(cfg).get(key))
            assert None in reasons, key


@pytest.mark.parametrize(
    ("key", "first"),
    [
        ("SOLVER.LR", "BASE_LR"),
        ("SOLVER.LEARNING_RATE", "BASE_LR"),
        ("SOLVER.lr", "BASE_LR"),
        ("SOLVER.BATCH_SIZE", "IMS_PER_BATCH"),
        ("SOLVER.EPOCHS", "MAX_EPOCHS"),
        ("DATALOADER.WORKERS", "NUM_WORKERS"),
        ("DATASETS.VAL", "TEST"),
    ],
)
def test_names_of_other_programs(key: str, first: str) -> None:
    text = error_of(get_cfg().merge_from_list, [key, "1"])
    assert text.split("did you mean ")[1].startswith(first)
