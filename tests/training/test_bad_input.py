"""Configs and data that a training rejects with an error of one line."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.classification.prepare import prepare_classifier
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.data import DataError
from fbnetv3.engine.process import runtime_context
from fbnetv3.errors import FBNetError
from fbnetv3.training import train
from tests.runs import one_line, train_steps

Make = Callable[..., CfgNode]


def test_data_sets_with_different_classes(tiny: Make, material: Path, tmp_path: Path) -> None:
    test = tmp_path / "test"
    shutil.copytree(material / "test", test)
    (test / "3").rename(test / "three")
    with pytest.raises(DataError) as caught:
        train(tiny(DATASETS__TEST=str(test)))
    assert "three" in one_line(caught)


def test_fewer_outputs_than_classes(tiny: Make) -> None:
    with pytest.raises(ConfigError, match=r"MODEL\.NUM_CLASSES is 3"):
        train(tiny(MODEL__NUM_CLASSES=3))


@pytest.fixture
def truncated(material: Path, tmp_path: Path) -> Path:
    root = tmp_path / "broken"
    shutil.copytree(material / "train", root)
    path = sorted((root / "4").glob("*.png"))[0]
    path.write_bytes(path.read_bytes()[:60])
    return path


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_stops(tiny: Make, truncated: Path, workers: int) -> None:
    root = str(truncated.parents[1])
    with pytest.raises(DataError) as caught:
        train(tiny(DATASETS__TRAIN=root, DATALOADER__NUM_WORKERS=workers), pictures=False)
    assert truncated.name in one_line(caught)


@pytest.mark.parametrize("changes", [{}, {"MODEL_EMA__ENABLED": False}])
def test_a_broken_validation_image_is_found_before_the_training(
    tiny: Make, truncated: Path, out: Path, changes: dict[str, Any]
) -> None:
    root = str(truncated.parents[1])
    with pytest.raises(DataError, match="1 of 120 images are broken") as caught:
        train(tiny(DATASETS__TEST=root, **changes), pictures=False)
    assert truncated.name in one_line(caught)
    assert "DATA.SKIP_BROKEN" in one_line(caught)
    assert not out.exists()


@pytest.mark.parametrize(
    ("seconds", "text"), [(100.0, None), (0.0, "of 50 decoded, in 0 s; --check-data decodes all")]
)
def test_the_plan_says_how_many_validation_images_were_decoded(
    tiny: Make, seconds: float, text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbnetv3.classification.build.CHECK_SECONDS", seconds)
    cfg = tiny()
    plan = dict(prepare_classifier(cfg, runtime_context(cfg)).plan)
    assert ("check of validation images" in plan) == (text is not None)
    assert text is None or plan["check of validation images"].endswith(text)


@pytest.mark.parametrize(
    ("changes", "is_checked"),
    [({}, True), ({"DATA__CHECK_IMAGES": False}, False), ({"DATA__SKIP_BROKEN": True}, False)],
)
def test_when_validation_images_are_checked(
    tiny: Make, changes: dict[str, Any], is_checked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []
    monkeypatch.setattr(
        "fbnetv3.classification.build.refuse_broken", lambda d, s: calls.append(s) or len(d)
    )
    cfg = tiny(**changes)
    for training in (True, False):
        prepare_classifier(cfg, runtime_context(cfg), training=training)
    assert calls == [10.0] * is_checked


def test_a_truncated_image_is_skipped_and_counted(
    tiny: Make, truncated: Path, caplog: Any, capsys: Any
) -> None:
    root = str(truncated.parents[1])
    with caplog.at_level(logging.WARNING):
        train_steps(tiny, 6, DATASETS__TRAIN=root, DATA__SKIP_BROKEN=True)
    assert truncated.name in caplog.text
    assert "119" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"SOLVER__IMS_PER_BATCH": 0},
        {"SOLVER__IMS_PER_BATCH": 1000},
        {"SOLVER__KEEP_CHECKPOINTS": 0},
        {"SOLVER__OPTIMIZER": "adam"},
        {"MODEL__ARCH": "fbnetv3_z"},
        {"MODEL__ARCH": "nowhere.yaml"},
        {"MODEL__ARCH": "torchvision/resnet19"},
        {"MODEL__ARCH_VARIANT": "alined"},
        {"MODEL__WIDTH": -1.0},
        {"MODEL__WEIGHTS": "nowhere.safetensors"},
        {"MODEL__WEIGHTS": "zoo://nothing"},
        {"MODEL__DEVICE": "tpu"},
        {"MODEL__DEVICE": "cuda:99"},
        {"MODEL__DROP_RATE": 1.0},
        {"INPUT__AUTO_AUGMENT": "best"},
        {"INPUT__INTERPOLATION": "best"},
        {"INPUT__TRAIN_CROP": "best"},
        {"INPUT__MEAN": [0.5]},
        {"INPUT__MEAN": ["a", "b", "c"]},
        {"INPUT__STD": [0.0, 1.0, 1.0]},
        {"INPUT__RESOLUTION": -5},
        {"INPUT__RESIZE": 8},
        {"DATASETS__TRAIN": "nowhere"},
        {"DATASETS__TRAIN": ("a", "b")},
        {"DATASETS__TRAIN": ()},
        {"DATA__TRAIN_LIMIT": -1},
        {"DATA__TRAIN_LIMIT": 10000},
        {"DATALOADER__NUM_WORKERS": -1},
        {"SOLVER__MAX_EPOCHS": -1.0},
        {"TEST__BATCH_SIZE": 0},
        {"TEST__EVAL_EPOCHS": -1.0},
        {"SOLVER__CHECKPOINT_EPOCHS": -1.0},
    ],
    ids=str,
)
def test_bad_values_raise_one_line(tiny: Make, changes: dict[str, Any]) -> None:
    with pytest.raises(FBNetError) as caught:
        train(tiny(**{"SOLVER__MAX_EPOCHS": 1.0, **changes}), pictures=False)
    one_line(caught)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("SEED", -1, "SEED=-1 is out of range; allowed: 0 to 18446744073709551615"),
        ("SEED", 2**64, "SEED: an integer does not fit into 64 bits"),
        ("DATALOADER__NUM_WORKERS", -1, "DATALOADER.NUM_WORKERS=-1 is out of range; allowed: >= 0"),
        ("SOLVER__KEEP_CHECKPOINTS", 0, "KEEP_CHECKPOINTS=0 is out of range; allowed: >= 1"),
        ("TEST__EVAL_EPOCHS", float("inf"), "TEST.EVAL_EPOCHS=inf is out of range"),
        ("DATA__TRAIN_LIMIT", 10000, "DATA.TRAIN_LIMIT: .*10000.*allowed: 1 to 120"),
        ("SOLVER__IMS_PER_BATCH", 1000, "SOLVER.IMS_PER_BATCH: .* has 120 images"),
    ],
)
def test_numbers_out_of_range_name_the_key(tiny: Make, key: str, value: Any, allowed: str) -> None:
    with pytest.raises(FBNetError, match=allowed) as caught:
        train(tiny(**{"SOLVER__MAX_EPOCHS": 1.0, key: value}), pictures=False)
    one_line(caught)
