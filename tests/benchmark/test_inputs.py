"""The measure of training data: batches of each library, and rates."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fbnetv3.benchmark import comparison, inputs
from fbnetv3.benchmark.variants import Shape


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for i in range(8):
        path = tmp_path / "data" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 20, 3), i, np.uint8)).save(path)
    return str(tmp_path / "data")


def test_each_library_makes_batches_of_the_same_files(folder: str) -> None:
    with inputs.input_steps(folder, (50, 40), Shape(4, 16)) as steps:
        batches = {name: step() for name, step in steps.items()}
        again = {name: step() for name, step in steps.items()}
        assert {name: step()[0].shape for name, step in steps.items()}  # a third epoch
    assert next(iter(batches)) == inputs.TORCHVISION  # the reference
    assert ("timm" in batches) == (importlib.util.find_spec("timm") is not None)
    for name, (images, labels) in batches.items():
        is_uint8 = name in ("ours", "timm")
        assert images.shape == (4, 3, 16, 16), name
        assert images.dtype == (torch.uint8 if is_uint8 else torch.float32), name
        assert sorted([*labels.tolist(), *again[name][1].tolist()]) == [0] * 4 + [1] * 4, name


def test_the_files_have_the_size(folder: str, tmp_path: Path) -> None:
    dataset = inputs.build_dataset(folder)
    inputs._write_jpegs(dataset, (50, 40), tmp_path / "out")
    sizes = set()
    for path in (tmp_path / "out").rglob("*.jpg"):
        with Image.open(path) as image:
            sizes.add((image.format, image.size))
    assert sizes == {("JPEG", (50, 40))}


def test_rates_are_higher_where_they_are_better(folder: str) -> None:
    settings = comparison.Settings(
        measures=["data"], resolution=16, train_batch=4, rounds=2, data=folder, image_size=(50, 40)
    )
    rows = comparison.compare(["fbnetv3_b"], settings)
    assert [row.unit for row in rows] == ["images/s"] * len(rows)
    assert (rows[0].variant, rows[0].ratio) == (inputs.TORCHVISION, 1.0)
    for row in rows:
        assert row.ratio == pytest.approx(row.value / rows[0].value)
        assert len(row.rounds) == 2
