"""The code of the README runs as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def run(code: str, folder: Path) -> str:
    """Runs Python code in a folder that has ``model_zoo/``; returns what it prints."""
    (folder / "model_zoo").symlink_to(ROOT / "model_zoo")
    Image.new("RGB", (64, 48), (235, 225, 215)).save(folder / "blood.jpg")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_blocks_are_as_many_as_tested() -> None:
    assert [re.search(word, block) is not None for word, block in zip(
        ("list_models", "train", "JointNAS", "detector"), BLOCKS, strict=True
    )] == [True] * 4  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 2])
def test_blocks_on_their_own(number: int, tmp_path: Path) -> None:
    run(BLOCKS[number], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3])
def test_blocks_after_the_first(number: int, tmp_path: Path) -> None:
    # the page imports fbnetv3 once; the training is one of a minute, which is shortened
    code = BLOCKS[number].replace("scores =", "cfg.SOLVER.MAX_EPOCHS = 1.0\nscores =")
    run(f"{BLOCKS[0]}\n{code}", tmp_path)
