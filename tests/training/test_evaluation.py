"""Evaluation of a checkpoint or of weights, without training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.errors import FBNetError
from fbnetv3.training import evaluate

Make = Callable[..., CfgNode]


def test_a_checkpoint_has_the_last_scores_of_its_training(
    trained: tuple[Path, dict[str, float]], tiny: Make
) -> None:
    assert evaluate(tiny()) == trained[1]


def test_evaluation_needs_no_training_data(
    trained: tuple[Path, dict[str, float]], tiny: Make
) -> None:
    assert evaluate(tiny(DATASETS__TRAIN="nowhere")) == trained[1]


def test_evaluation_writes_nothing(trained: tuple[Path, dict[str, float]], tiny: Make) -> None:
    before = sorted((p.name, p.stat().st_mtime_ns) for p in trained[0].iterdir())
    evaluate(tiny())
    assert sorted((p.name, p.stat().st_mtime_ns) for p in trained[0].iterdir()) == before


def test_evaluation_without_weights(tiny: Make) -> None:
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        evaluate(tiny())


def test_weights_of_other_classes(
    trained: tuple[Path, dict[str, float]], tiny: Make, material: Path, tmp_path: Path
) -> None:
    two = tmp_path / "two"
    for name in "01":
        shutil.copytree(material / "test" / name, two / name)
    weights = str(trained[0] / "model.safetensors")
    both = r"\(10: 0, 1, .*\), but the data has \(2: 0, 1\)"
    for source in (weights, ""):
        cfg = tiny(MODEL__WEIGHTS=source, DATASETS__TEST=str(two))
        with pytest.raises(FBNetError, match=both) as caught:
            evaluate(cfg)
        assert "ignore" not in str(caught.value)  # it would not help with another number of classes
        with pytest.raises(FBNetError, match=r"have (the classes \(10|10 classes)"):
            evaluate(cfg, ignore_class_names=True)


def test_numbers_out_of_range(tiny: Make) -> None:
    with pytest.raises(FBNetError, match="NUM_WORKERS=-1 is out of range; allowed: >= 0"):
        evaluate(tiny(DATALOADER__NUM_WORKERS=-1))
