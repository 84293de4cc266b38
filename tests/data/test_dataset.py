"""Data sets in memory and on disk, their cache, subsets and splits."""

from __future__ import annotations

import pickle
import re
from collections import Counter

import numpy as np
import pytest

from fbnetv3.data import ArrayDataset, DataError, FileDataset, Subset, check_same_classes
from fbnetv3.data.decode import decode_rgb
from fbnetv3.data.opening import open_source
from fbnetv3.data.sampling import random_classes, stratified_order


def _uneven() -> ArrayDataset:
    targets = [0] * 60 + [1] * 30 + [2] * 10
    images = np.arange(100, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    return ArrayDataset("uneven", ["a", "b", "c"], images, targets)


def _numbers(dataset) -> list[int]:
    return [dataset.load(i)[0].getpixel((0, 0))[0] for i in range(len(dataset))]


@pytest.mark.parametrize("cache_bytes", [0, 5000, 1 << 20])
def test_files_load_as_pillow_decodes_them_cached_or_not(files, archive, cache_bytes):
    dataset = FileDataset("pets", open_source(archive(files)), cache_bytes)
    for _ in range(2):
        for i, name in enumerate(sorted(files)):
            image, target = dataset.load(i)
            assert np.array_equal(image, decode_rgb(files[name], name))
            assert dataset.classes[target] == name.split("/")[0]


def test_cached_images_are_read_once(files, tree, tmp_path):
    dataset = FileDataset("pets", open_source(tree(files)))
    before = np.array(dataset.load(0)[0])
    (tmp_path / "tree/cat/0.jpg").unlink()
    dataset.load(0)[0].putpixel((0, 0), (1, 2, 3))  # changes the returned copy only
    assert np.array_equal(dataset.load(0)[0], before)
    with pytest.raises(DataError, match=r"cat/0\.jpg"):
        pickle.loads(pickle.dumps(dataset)).load(0)  # pixels are not pickled


def test_a_data_set_that_does_not_fit_is_not_cached(files, tree, tmp_path):
    dataset = FileDataset("pets", open_source(tree(files)), cache_bytes=24 * 16 * 3 * 9 - 1)
    dataset.load(0)
    (tmp_path / "tree/cat/0.jpg").unlink()
    with pytest.raises(DataError, match=r"cat/0\.jpg"):
        dataset.load(0)


def test_the_shape_of_images_is_checked():
    with pytest.raises(DataError, match=r"x: images have shape \(2, 4, 4\), expected \(2, H, W"):
        ArrayDataset("x", ["a"], np.zeros((2, 4, 4), np.uint8), [0, 0])


@pytest.mark.parametrize("limit", [1, 10, 20, 37, 100])
def test_subset_is_stratified_and_deterministic(limit):
    whole = _uneven()
    subset = whole.subset(limit, seed=3)
    assert len(subset) == limit
    assert subset.classes == whole.classes
    count = Counter(subset.targets)
    for target, share in ((0, 0.6), (1, 0.3), (2, 0.1)):
        assert abs(count[target] - share * limit) <= 1
    assert subset.indices == whole.subset(limit, seed=3).indices == _numbers(subset)
    assert set(subset.indices) <= set(whole.subset(min(limit + 7, 100), seed=3).indices)


def test_subset_depends_on_the_seed():
    assert _uneven().subset(20, seed=0).indices != _uneven().subset(20, seed=1).indices


def test_split_is_a_stratified_partition():
    train, holdout = _uneven().split(20, seed=5)
    assert len(holdout) == 20
    assert sorted(train.indices + holdout.indices) == list(range(100))
    assert Counter(holdout.targets) == {0: 12, 1: 6, 2: 2}
    assert train.classes == holdout.classes == ["a", "b", "c"]


def test_select_classes_relabels():
    whole = _uneven()
    chosen = whole.select_classes(2, seed=1)
    assert len(chosen.classes) == 2
    assert set(chosen.targets) == {0, 1}
    for i in range(len(chosen)):
        assert chosen.classes[chosen.targets[i]] == whole.classes[whole.targets[chosen.indices[i]]]
    assert len(chosen) == sum(
        c in chosen.classes for c in (whole.classes[t] for t in whole.targets)
    )
    assert len({tuple(whole.select_classes(2, seed=s).classes) for s in range(20)}) == 3


def test_a_subset_of_a_subset():
    outer = _uneven().select_classes(2, seed=0).subset(10)
    inner = Subset(outer, [9, 0])
    assert _numbers(inner) == [_numbers(outer)[9], _numbers(outer)[0]]
    assert inner.targets == [outer.targets[9], outer.targets[0]]
    assert inner.file_name(0) == f"uneven[{_numbers(outer)[9]}]"


@pytest.mark.parametrize(
    "take",
    [
        lambda d: d.subset(0),
        lambda d: d.subset(101),
        lambda d: d.split(0),
        lambda d: d.split(100),
        lambda d: d.select_classes(0),
        lambda d: d.select_classes(4),
    ],
)
def test_errors_of_impossible_subsets_name_the_allowed_range(take):
    with pytest.raises(DataError, match=r"uneven: cannot .*; allowed: 1 to"):
        take(_uneven())


def test_same_classes():
    def dataset(name: str, classes: list[str]) -> ArrayDataset:
        return ArrayDataset(name, classes, np.zeros((0, 1, 1, 3), np.uint8), [])

    train = dataset("T", ["a", "b", "c"])
    check_same_classes(train, dataset("V", ["a", "b", "c"]))
    with pytest.raises(DataError, match=r"T \(3\) and V \(2\) differ: only in T: a; rename"):
        check_same_classes(train, dataset("V", ["b", "c"]))
    with pytest.raises(DataError, match="only in T: c; only in V: d"):
        check_same_classes(train, dataset("V", ["a", "b", "d"]))
    with pytest.raises(DataError, match="the same names in another order"):
        check_same_classes(train, dataset("V", ["b", "a", "c"]))


@pytest.mark.parametrize(
    ("classes", "summary"),
    [
        (["a"], "1 class: a 12"),
        (["a", "b"], "2 classes: a 6, b 6"),
        (list("abcdefghijkl"), r"12 classes: a 1, .*, j 1, 2 more with 1 each"),
        (list("abcdefghijk"), r"11 classes: a 2, .*, j 1, 1 more with 1 each"),
    ],
)
def test_a_summary_counts_images_by_class(classes, summary):
    targets = [i % len(classes) for i in range(12)]
    dataset = ArrayDataset("x", classes, np.zeros((12, 8, 8, 3), np.uint8), targets)
    assert re.fullmatch(f"x: 12 images, {summary}", dataset.summary())


def test_images_of_another_type_are_refused():
    with pytest.raises(DataError, match="float32; allowed: uint8"):
        ArrayDataset("x", ["a"], np.zeros((1, 8, 8, 3), np.float32), [0])


@pytest.mark.parametrize(
    "draw",
    [
        lambda data, seed: data.subset(20, seed),
        lambda data, seed: data.split(20, seed)[1],
        lambda data, seed: data.split(20, seed, stratified=False)[1],
        lambda data, seed: data.select_classes(3, seed),
    ],
)
def test_seeds_of_up_to_64_bits(noise, draw):
    data = noise(40)
    for seed in (2**32, 2**32 + 7, 2**64 - 1):
        assert draw(data, seed).indices == draw(data, seed).indices


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_large_seeds_have_the_streams_of_their_lowest_32_bits(seed):
    targets = [i % 3 for i in range(30)]
    assert stratified_order(targets, seed + 2**32) == stratified_order(targets, seed)
    drawn = np.random.RandomState(seed).permutation(9)[:4].tolist()
    assert random_classes(9, 4, seed + 2**33) == random_classes(9, 4, seed) == sorted(drawn)
