"""A finished tiny training that many tests inspect or continue."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fbnetv3.config import CfgNode
from fbnetv3.training import train


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of the tiny training."""
    return tmp_path / "out"


@pytest.fixture
def trained(
    tiny: Callable[..., CfgNode], out: Path, material: Path
) -> tuple[Path, dict[str, float]]:
    """The folder and the scores of a finished training: run once, copied for each test."""
    kept = material / "trained"
    if not kept.exists():
        scores = train(tiny())
        shutil.copytree(out, kept)
        (kept / "scores").write_text(json.dumps(scores))
    else:
        shutil.copytree(kept, out)
    (out / "scores").unlink(missing_ok=True)
    return out, json.loads((kept / "scores").read_text())
