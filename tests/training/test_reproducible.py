"""The same config gives the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fbnetv3.config import CfgNode
from fbnetv3.training import train
from tests.runs import assert_same_run, last_state

Make = Callable[..., CfgNode]


def test_the_same_command_gives_the_same_weights(
    trained: Any, tiny: Make, tmp_path: Path, material: Path
) -> None:
    folder = tmp_path / "again"
    torch.manual_seed(123)  # earlier draws must not matter
    torch.rand(7)
    train(tiny(OUTPUT_DIR=str(folder)))
    assert_same_run(folder, material / "trained")


def test_workers_change_nothing(trained: Any, tiny: Make, tmp_path: Path, material: Path) -> None:
    folder = tmp_path / "workers"
    train(tiny(OUTPUT_DIR=str(folder), DATALOADER__NUM_WORKERS=2))
    assert_same_run(folder, material / "trained")


def test_another_seed_gives_other_weights(trained: Any, tiny: Make, tmp_path: Path) -> None:
    folder = tmp_path / "seed"
    train(tiny(OUTPUT_DIR=str(folder), SEED=1), pictures=False)
    ours, theirs = (last_state(f)["model"]["head.fc.weight"] for f in (folder, trained[0]))
    assert not torch.equal(ours, theirs)
