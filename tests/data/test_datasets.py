"""Data sets by name and by path."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fbnetv3.data import DataError, build_dataset, list_datasets, register_dataset
from fbnetv3.errors import FBNetError
from fbnetv3.registries import DATASETS


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Returns an empty FBNETV3_DATA; the current directory is another empty folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.setenv("FBNETV3_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "data"


def _place(files, tree, root, name):
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    return tree(files, f"{root.name}/{name}")


def test_digits():
    train, test = build_dataset("digits_train"), build_dataset("digits_test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.classes == test.classes == [str(i) for i in range(10)]
    assert max(Counter(test.targets).values()) - min(Counter(test.targets).values()) <= 3
    image, _ = train.load(0)
    assert (image.mode, image.size) == ("RGB", (32, 32))
    pixels = np.asarray(image)
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    assert pixels.max() > 200


def test_the_splits_contain_each_digit_of_sklearn_once():
    """The means of 4 x 4 blocks of each enlarged digit are closest to its original."""
    splits = [build_dataset("digits_train"), build_dataset("digits_test")]
    small, labels = [], []
    for split in splits:
        for i in range(len(split)):
            image, label = split.load(i)
            small.append(np.asarray(image)[..., 0].reshape(8, 4, 8, 4).mean((1, 3)) * 16 / 255)
            labels.append(label)
    bunch = load_digits()
    small, whole = np.stack(small).reshape(-1, 64), bunch.images.reshape(-1, 64)
    distance = (small**2).sum(1)[:, None] - 2 * small @ whole.T + (whole**2).sum(1)
    nearest = distance.argmin(1)
    assert len(set(nearest.tolist())) > 1790
    assert (bunch.target[nearest] == labels).mean() > 0.999


def test_relative_paths_are_looked_up_below_the_root_first(files, tree, root, tmp_path):
    _place({"yak/0.jpg": files["cat/0.jpg"]}, tree, tmp_path / "cwd", "pets")
    assert build_dataset("pets").classes == ["yak"]
    _place(files, tree, root, "pets")
    assert build_dataset("pets").classes == ["cat", "dog", "owl"]
    assert build_dataset("pets").name == "pets"
    assert build_dataset(str(tmp_path / "cwd/pets")).classes == ["yak"]


def test_an_archive_by_path(files, archive, root):
    assert len(build_dataset(str(archive(files)))) == 9


def test_the_error_of_a_missing_path_names_the_searched_places(root, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="nowhere") as caught:
        build_dataset("nowhere")
    message = str(caught.value)
    assert str(root / "nowhere") in message
    assert str(tmp_path / "cwd" / "nowhere") in message
    assert "digits_train" in message
    monkeypatch.delenv("FBNETV3_DATA")
    with pytest.raises(DataError, match="set FBNETV3_DATA to the folder"):
        build_dataset("nowhere")


def test_a_mistyped_name_lists_similar_ones(root):
    with pytest.raises(DataError, match=r"did you mean cifar10_train"):
        build_dataset("cifar_train")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("cifar10_train", "cifar10/train"), ("cifar10_test", "cifar10/test"),
        ("imagenet_train", "imagenet/train"), ("imagenet_val", "imagenet/val"),
        ("imagenette_train", "imagenette_mini/train"), ("imagenette_val", "imagenette_mini/val"),
    ],
)  # fmt: skip
def test_a_missing_data_set_is_read_from_the_place_that_the_error_names(
    name, place, files, tree, archive, root
):
    with pytest.raises(DataError, match="download") as caught:
        build_dataset(name)
    message = str(caught.value)
    assert f"{root / place}/CLASS/" in message
    assert f"{root / place}.zip" in message
    assert "\n" not in message
    _place(files, tree, root, place)
    assert len(build_dataset(name)) == 9
    (root / f"{place}.zip").write_bytes(archive({"a/0.jpg": files["cat/0.jpg"]}).read_bytes())
    assert build_dataset(name).classes == ["a"]


def test_registering_a_data_set(noise, monkeypatch):
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    register_dataset("custom")(lambda: noise(12))
    assert len(build_dataset("custom")) == 12
    assert "custom" in list_datasets()
    with pytest.raises(FBNetError, match="'custom' is already registered"):
        register_dataset("custom")(lambda: noise(12))
