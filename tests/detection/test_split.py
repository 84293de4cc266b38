"""Images held out of a detection data set: sizes, seeds, and the shares of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("detectron2")

from fbnetv3.data.errors import DataError
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.split import iterative_stratification, split_images


def _dataset(labels: list[list[int]], crowds: bool = False) -> CocoDataset:
    """Returns a data set whose images have boxes of the given classes."""
    records: list[dict[str, Any]] = [
        {
            "image_id": i,
            "annotations": [{"category_id": c, "iscrowd": int(crowds)} for c in classes],
        }
        for i, classes in enumerate(labels)
    ]
    return CocoDataset("cells", Path("cells.json"), ["a", "b", "c"], [1, 2, 3], records)


def _ids(dataset: CocoDataset) -> list[int]:
    return [record["image_id"] for record in dataset.records]


def test_parts_are_disjoint_complete_and_in_order() -> None:
    dataset = _dataset([[0]] * 30 + [[0, 1]] * 10)
    for stratified in (True, False):
        train, held = split_images(dataset, 13, 0, stratified=stratified)
        assert (len(train), len(held)) == (27, 13)
        assert sorted(_ids(train) + _ids(held)) == list(range(40))
        assert _ids(held) == sorted(_ids(held))


def test_the_seed_decides_the_draw() -> None:
    dataset = _dataset([[0]] * 40)
    draws = [_ids(split_images(dataset, 8, seed)[1]) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_each_class_and_the_background_keep_their_share() -> None:
    """A rare class is divided exactly, where a random draw often misses it altogether."""
    labels = [[0]] * 60 + [[0, 1]] * 24 + [[1, 2]] * 4 + [[]] * 12
    _, held = split_images(_dataset(labels), 25, 0)
    images = [{item["category_id"] for item in r["annotations"]} for r in held.records]
    assert sum(2 in classes for classes in images) == 1
    assert sum(not classes for classes in images) == 3
    assert sum(1 in classes for classes in images) == 7
    assert sum(0 in classes for classes in images) == 21


def test_crowds_are_background() -> None:
    labels = [[0]] * 4
    _, held = split_images(_dataset(labels, crowds=True), 2, 0)
    assert len(held) == 2


@pytest.mark.parametrize("held", [0, 4, 5, -1])
def test_both_parts_need_an_image(held: int) -> None:
    with pytest.raises(DataError, match=rf"cells: {held} of 4 .* allowed: 1 to 3"):
        split_images(_dataset([[0]] * 4), held, 0)


def test_labels_of_many_images_are_divided_closely() -> None:
    """No label's share is off by more than one image, in a case as uneven as COCO's classes."""
    generator = np.random.default_rng(0)
    rates = np.geomspace(0.5, 0.01, 20)
    labels = generator.random((2000, 20)) < rates
    chosen = iterative_stratification(labels, 200, np.random.default_rng(1))
    assert chosen.sum() == 200
    off = np.abs(labels[chosen].sum(0) - labels.sum(0) / 10)
    assert off.max() < 6
    assert off[rates < 0.05].max() <= 1
