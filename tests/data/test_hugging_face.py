"""Data sets of Hugging Face's package: the same batches as of files, columns and errors."""

from __future__ import annotations

import sys

import pytest
import torch

from fbnetv3.data import DataError, HuggingFaceDataset, TrainLoader, TrainTransform, build_dataset
from fbnetv3.data.hugging_face import parse_address
from fbnetv3.requires import MissingPackageError


def test_addresses():
    assert parse_address("hf://beans") == ("beans", {})
    address = "hf://user/my%20set?split=train&image=photo"
    assert parse_address(address) == ("user/my set", {"split": "train", "image": "photo"})
    with pytest.raises(DataError, match=r"option 'spilt' is unknown; write hf://NAME"):
        parse_address("hf://beans?spilt=train")
    with pytest.raises(DataError, match="there is no name"):
        build_dataset("hf://?split=train")


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackageError, match=r"datasets is not installed.*\[huggingface\]"):
        build_dataset("hf://beans?split=train")


@pytest.fixture
def hub():
    return pytest.importorskip("datasets", reason="needs the package datasets")


@pytest.fixture
def make(hub, files):
    """Returns the function ``make(**columns)``, which makes a split of the three classes."""

    def split(**columns):
        names = ["cat", "dog", "owl"]
        labels = [names.index(file.split("/")[0]) for file in sorted(files)]
        images = [{"bytes": data, "path": None} for _, data in sorted(files.items())]
        features = {"image": hub.Image(), "label": hub.ClassLabel(names=names)}
        return hub.Dataset.from_dict(
            {"image": images, "label": labels, **columns},
            features=hub.Features({**features, **{key: hub.Value("int64") for key in columns}}),
        )

    return split


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_files(make, files, tree, workers):
    batches = []
    for data in (build_dataset(str(tree(files))), HuggingFaceDataset(make())):
        assert data.classes == ["cat", "dog", "owl"]
        transform = TrainTransform(16, auto_augment="imagenet")
        loader = TrainLoader(data, transform, total_batch=9, seed=1, num_workers=workers)
        batches.append(next(loader.batches()))
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_a_saved_folder_and_its_splits(hub, make, tmp_path):
    make().save_to_disk(tmp_path / "one")
    hub.DatasetDict({"train": make(), "test": make()}).save_to_disk(tmp_path / "two")
    assert len(build_dataset(f"hf://{tmp_path}/one")) == 9
    assert len(build_dataset(f"hf://{tmp_path}/two?split=test")) == 9
    with pytest.raises(DataError, match="give one of its splits: train, test"):
        build_dataset(f"hf://{tmp_path}/two")
    with pytest.raises(DataError, match="cannot open the data set"):
        build_dataset(f"hf://{tmp_path}/two?split=val")


def test_columns_are_found_by_their_types(hub, make):
    dataset = make(count=list(range(9)))
    assert HuggingFaceDataset(dataset).targets == [0] * 4 + [1] * 3 + [2] * 2
    with pytest.raises(DataError, match=r"column 'count' is not of the type ClassLabel; .*label"):
        HuggingFaceDataset(dataset, label="count")
    with pytest.raises(DataError, match=r"0 columns are of the type ClassLabel.*class_encode"):
        HuggingFaceDataset(dataset.remove_columns("label"))
    two = dataset.add_column("other", dataset["label"]).cast_column(
        "other", dataset.features["label"]
    )
    with pytest.raises(DataError, match="2 columns are of the type ClassLabel; choose one"):
        HuggingFaceDataset(two)
    assert HuggingFaceDataset(two, label="other").classes == ["cat", "dog", "owl"]


def test_rows_without_class_or_image_are_refused(make, files, hub):
    dataset = make()
    missing = dataset.map(lambda row, i: {"label": -1 if i == 3 else 0}, with_indices=True)
    with pytest.raises(DataError, match="1 images have no class, such as row 3"):
        HuggingFaceDataset(missing)
    with pytest.raises(DataError, match="no random access"):
        HuggingFaceDataset(dataset.to_iterable_dataset())
    with pytest.raises(DataError, match="has no rows"):
        HuggingFaceDataset(dataset.select([]))
