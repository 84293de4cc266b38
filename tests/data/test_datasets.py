from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fbnetv3.data import DataError, build_dataset, datasets, list_datasets, register_dataset


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty FBNETV3_DATA, seen from an empty current directory."""
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


def test_digits_are_all_of_sklearns_once():
    """4 x 4 blocks of the enlarged digits are near the originals; labels agree."""
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


def test_relative_paths_are_looked_up_under_the_root_first(files, tree, root, tmp_path):
    _place({"here/0.jpg": files["cat/0.jpg"]}, tree, tmp_path / "cwd", "pets")
    assert build_dataset("pets").classes == ["here"]
    _place(files, tree, root, "pets")
    assert build_dataset("pets").classes == ["cat", "dog", "owl"]
    assert build_dataset("pets").name == "pets"
    assert build_dataset(str(tmp_path / "cwd/pets")).classes == ["here"]


def test_zip_by_path(files, archive, root):
    assert len(build_dataset(str(archive(files)))) == 9


def test_missing_path_says_where_it_was_sought(root, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="nowhere") as caught:
        build_dataset("nowhere")
    message = str(caught.value)
    assert str(root / "nowhere") in message
    assert str(tmp_path / "cwd" / "nowhere") in message
    assert "digits_train" in message
    monkeypatch.delenv("FBNETV3_DATA")
    with pytest.raises(DataError, match="set FBNETV3_DATA to the folder"):
        build_dataset("nowhere")


def test_mistyped_name_lists_close_ones(root):
    with pytest.raises(DataError, match=r"did you mean cifar10_train"):
        build_dataset("cifar_train")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("cifar10_train", "cifar10/train"), ("cifar10_test", "cifar10/test"),
        ("imagenet_train", "imagenet/train"), ("imagenet_val", "imagenet/val"),
        ("imagenette_val", "imagenette_mini/val"),
    ],
)  # fmt: skip
def test_registered_sets_are_missed_and_then_found_where_the_error_said(
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


def test_own_data_set(noise, monkeypatch):
    monkeypatch.setattr(datasets, "_FACTORIES", dict(datasets._FACTORIES))
    register_dataset("mine")(lambda: noise(12))
    assert len(build_dataset("mine")) == 12
    assert "mine" in list_datasets()
    with pytest.raises(DataError, match="'mine' is registered already"):
        register_dataset("mine")(lambda: noise(12))
