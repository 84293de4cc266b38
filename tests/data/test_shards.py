"""Shards: their layout, their order, damaged ones, and packing that is interrupted."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
import torch

from fbnetv3.data import DataError, TrainLoader, TrainTransform, build_dataset
from fbnetv3.data.pack import PackOptions, pack
from fbnetv3.data.shards import INDEX
from fbnetv3.io import WriteError


@pytest.fixture
def packed(files, tree, tmp_path):
    """Returns the function ``packed(**options)``, which packs the three classes."""

    def make(**options):
        dataset = build_dataset(str(tree(files)))
        count = pack(dataset, tmp_path / "shards", PackOptions(**options))
        return dataset, build_dataset(str(tmp_path / "shards")), count

    return make


@pytest.mark.parametrize(("shard_bytes", "count"), [(1, 9), (4000, 3), (1 << 20, 1)])
def test_shards_have_the_files_of_the_data_set_in_its_order(packed, shard_bytes, count):
    dataset, shards, num_shards = packed(shard_bytes=shard_bytes)
    assert abs(num_shards - count) <= (0 if count != 3 else 2)
    assert (shards.classes, shards.targets) == (dataset.classes, dataset.targets)
    assert [shards.content(i) for i in range(9)] == [dataset.content(i) for i in range(9)]
    assert shards.file_name(5).endswith(".tar/dog/2.jpg")


def test_the_layout_is_that_of_webdataset(packed, tmp_path):
    dataset, _, count = packed(shard_bytes=4000)
    samples = {}
    order = []
    for path in sorted((tmp_path / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for image, label in zip(members[::2], members[1::2], strict=True):
                key = image.name.removesuffix(".jpg")
                assert label.name == f"{key}.cls"
                samples[int(key)] = tar.extractfile(image).read(), tar.extractfile(label).read()
                order.append(int(key))
    assert count > 1
    assert order != sorted(order)  # mixed, for programs that stream them
    expected = [(dataset.content(i)[1], str(dataset.targets[i]).encode()) for i in range(9)]
    assert [samples[i] for i in range(9)] == expected


def test_packing_twice_gives_the_same_bytes(packed, tmp_path, files, tree):
    dataset, _, _ = packed()
    pack(dataset, tmp_path / "again")
    for path in (tmp_path / "shards").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_the_short_side_of_larger_images_is_reduced(files, tree, tmp_path, encode):
    folder = tree(files | {"cat/big.png": encode(3, "PNG", (90, 60))})
    pack(build_dataset(str(folder)), tmp_path / "shards", PackOptions(short_side=30))
    shards = build_dataset(str(tmp_path / "shards"))
    sizes = {shards.short_name(i): shards.image(i).size for i in range(10)}
    assert sizes["cat/big.png"] == (45, 30)
    assert sizes["cat/0.jpg"] == (24, 16)
    assert shards.content(4)[0] == ".jpg"
    kept = build_dataset(str(folder))
    assert shards.content(0) == kept.content(0)


def test_images_that_are_no_files_are_packed_as_png(noise, tmp_path):
    dataset = noise(10)
    pack(dataset.subset(6), tmp_path / "shards")
    shards = build_dataset(str(tmp_path / "shards"))
    assert shards.content(0)[0] == ".png"
    for i, original in enumerate(dataset.subset(6).indices):
        assert np.array_equal(shards.image(i), dataset.image(original))
        assert shards.targets[i] == dataset.targets[original]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_tree_a_zip_and_shards_give_the_same_batches(files, archive, packed, workers):
    dataset, shards, _ = packed()
    batches = []
    for data in (dataset, build_dataset(str(archive(files))), shards):
        transform = TrainTransform(16, auto_augment="imagenet")
        loader = TrainLoader(data, transform, total_batch=4, seed=1, num_workers=workers)
        batches.append([x for _, x in zip(range(5), loader.batches(), strict=False)])
    for other in batches[1:]:
        for (images, labels), (expected, targets) in zip(other, batches[0], strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, targets)


def test_an_interrupted_packing_leaves_nothing(packed, tmp_path, files, tree, monkeypatch):
    dataset = build_dataset(str(tree(files)))
    content, calls = dataset.content, []

    def stopped(i):
        calls.append(i)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return content(i)

    dataset.content = stopped
    with pytest.raises(KeyboardInterrupt):
        pack(dataset, tmp_path / "out" / "shards")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_is_one_line(small_disk, noise):
    dataset = noise(40, 128)
    with pytest.raises(WriteError, match=r"cannot write .*shards: No space left on device"):
        pack(dataset, small_disk / "shards")
    assert list(small_disk.iterdir()) == []


def test_a_folder_with_files_is_refused(packed, noise, tmp_path):
    packed()
    with pytest.raises(DataError, match="shards exists already; choose a new folder"):
        pack(noise(4), tmp_path / "shards")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_side": -1}, "the short side is -1; allowed: 0 to"),
        ({"quality": 101}, "the quality is 101; allowed: 1 to 100"),
        ({"shard_bytes": 0}, "the size of a shard is 0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(DataError, match=message):
        PackOptions(**options)


def _change(path, **changes):
    index = json.loads((path / INDEX).read_text())
    (path / INDEX).write_text(json.dumps(index | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "it is not an index of format 1"),
        ({"files": None}, "it lacks one of the lists"),
        ({"files": ["a"]}, "it has 1 files, 9 targets and 9 places"),
        ({"classes": [1, 2, 3]}, "a name is not a string"),
        ({"classes": ["a", "a", "b"]}, "a class occurs twice"),
        ({"shards": ["../../etc/passwd"]}, "a shard is outside of the folder"),
        ({"targets": [3] * 9}, "a target is not a number from 0 to 2"),
        ({"targets": [True] * 9}, "a target is not a number"),
        ({"places": [[0, -1, 5]] * 9}, "a place is not a shard, an offset and a size"),
        ({"places": [[1, 0, 5]] * 9}, "a place is not a shard"),
        ({"places": [[0, 0, 1 << 40]] * 9}, "a place is not a shard"),
    ],
)
def test_a_damaged_index_is_refused(packed, tmp_path, changes, message):
    packed()
    _change(tmp_path / "shards", **changes)
    with pytest.raises(DataError, match=rf"shards\.json: {message}.*pack the images again"):
        build_dataset(str(tmp_path / "shards"))


@pytest.mark.parametrize("text", ["", "[" * 100_000, "{", "[]", "\0"])
def test_an_index_that_is_not_json_is_refused(packed, tmp_path, text):
    packed()
    (tmp_path / "shards" / INDEX).write_text(text)
    with pytest.raises(DataError, match="pack the images again"):
        build_dataset(str(tmp_path / "shards"))


def test_a_cut_or_missing_shard_names_the_file(packed, tmp_path):
    _, shards, _ = packed()
    path = tmp_path / "shards" / "shard-00000.tar"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=r"shard-00000\.tar: the shard ends before the image cat"):
        [shards.content(i) for i in range(9)]
    path.unlink()
    with pytest.raises(DataError, match=r"shard-00000\.tar: cannot read the shard"):
        shards.content(0)
