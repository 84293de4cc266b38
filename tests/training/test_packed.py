"""A tree, a zip and shards of the same images train the same network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.config import CfgNode
from fbnetv3.data import build_dataset
from fbnetv3.data.pack import pack
from fbnetv3.training import train
from tests.runs import assert_same_run

Make = Callable[..., CfgNode]


def _zip(folder: Path, out: Path) -> Path:
    return Path(shutil.make_archive(str(out), "zip", folder))


def _shards(folder: Path, out: Path) -> Path:
    pack(build_dataset(str(folder)), out)
    return out


@pytest.mark.parametrize("form", [_zip, _shards])
def test_a_training_does_not_depend_on_the_form_of_its_data(
    form: Callable[[Path, Path], Path], trained: Any, tiny: Make, tmp_path: Path, material: Path
) -> None:
    data = {
        f"DATASETS__{part.upper()}": str(form(material / part, tmp_path / part))
        for part in ("train", "test")
    }
    train(tiny(OUTPUT_DIR=str(tmp_path / "run"), **data), pictures=False)
    assert_same_run(tmp_path / "run", material / "trained")
