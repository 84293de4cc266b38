"""The data sets that a search registers: each name stands for the same images in all searches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fbnetv3.data import ArrayDataset, ImageDataset, build_dataset, register_dataset
from fbnetv3.registries import DATASETS

pytest.importorskip("detectron2")

from fbnetv3.search.fbnet.datasets import register_search_split
from fbnetv3.search.fbnet.keys import get_search_cfg

SIZES = {"split_train": 40, "split_other_train": 48, "split_test": 16, "split_other_test": 24}
"""Number of images by the name of a data set with 8 classes."""


@pytest.fixture(autouse=True)
def _data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the data sets of :data:`SIZES` for one test."""
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    for name, size in SIZES.items():

        def make(name: str = name, size: int = size) -> ImageDataset:
            images = np.zeros((size, 8, 8, 3), np.uint8)
            return ArrayDataset(
                name, list("abcdefgh"), images, targets=[i % 8 for i in range(size)]
            )

        register_dataset(name)(make)


def _cfg(**values: Any) -> Any:
    base = {"SEARCH.CLASSES": 4, "DATASETS.TRAIN": ("split_train",)}
    cfg = get_search_cfg()
    values = {**base, "DATASETS.TEST": ("split_test",), **values}
    cfg.merge_from_list([item for pair in values.items() for item in pair])
    return cfg


def _parts(cfg: Any) -> tuple[ImageDataset, ImageDataset]:
    train, test = register_search_split(cfg)
    return build_dataset(train), build_dataset(test)


def test_searches_with_different_test_sets_score_on_their_own() -> None:
    names = [("split_test",), ("split_other_test",)]
    sizes = [[len(part) for part in _parts(_cfg(**{"DATASETS.TEST": name}))] for name in names]
    assert sizes == [[20, 8], [20, 12]]


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"DATASETS.TEST": ("split_other_test",)}, (False, True)),
        ({"DATASETS.TRAIN": ("split_other_train",)}, (True, False)),
        ({"SEARCH.CLASSES": 5}, (True, True)),
        ({"SEED": 7}, (True, True)),
        ({"SEARCH.HOLD_OUT": 8}, (True, True)),
        ({"SEARCH.HOLD_OUT": 8, "SEARCH.CLASSES": 0}, (True, True)),
    ],
)
def test_the_name_of_a_part_says_which_images_it_has(
    change: dict[str, Any], changed: tuple[bool, bool]
) -> None:
    before, after = register_search_split(_cfg()), register_search_split(_cfg(**change))
    assert (before[0] != after[0], before[1] != after[1]) == changed


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"DATASETS.TEST": ("split_other_test",)}, False),
        ({"DATASETS.TRAIN": ("split_other_train",)}, True),
        ({"SEARCH.HOLD_OUT": 12}, True),
        ({"SEARCH.HOLD_OUT_SAMPLING": "random"}, True),
    ],
)
def test_the_names_of_held_out_images_are_those_of_the_training_set(
    change: dict[str, Any], changed: bool
) -> None:
    held = {"SEARCH.HOLD_OUT": 8}
    before = register_search_split(_cfg(**held))
    after = register_search_split(_cfg(**(held | change)))
    assert [a != b for a, b in zip(before, after, strict=True)] == [changed, changed]
    assert before == (
        "split_train:4_classes:8_held_out:seed_0:train",
        "split_train:4_classes:8_held_out:seed_0:test",
    )
