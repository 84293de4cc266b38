"""A detector that started from a classifier is scored with its own weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fbnetv3.arch import Arch
from fbnetv3.config import CfgNode
from fbnetv3.errors import FBNetError
from fbnetv3.modeling import build_model
from fbnetv3.training import evaluate
from tests.runs import train_steps

Make = Callable[..., CfgNode]


def test_a_detector_that_started_from_a_classifier(
    tiny: Make, shapes: Path, tmp_path: Path
) -> None:
    arch = Arch.from_yaml((shapes / "tiny.yaml").read_text(), file="tiny.yaml")
    path = str(tmp_path / "classifier.pth")
    torch.save(build_model(arch, 5).state_dict(), path)
    scores = train_steps(tiny, 1, MODEL__WEIGHTS=path)
    cfg = tiny(MODEL__WEIGHTS=path)
    assert evaluate(cfg) == scores
    with pytest.raises(FBNetError, match="does not hold a detector"):
        evaluate(cfg, weights=path)
    exported = str(tmp_path / "out" / "model.safetensors")
    raw = {key: value for key, value in scores.items() if not key.endswith("_ema")}
    assert evaluate(cfg, weights=exported) == raw
