"""Class folders in folders, archives and links: wrappers, strays, splits, files left out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fbnetv3.data import DataError, build_dataset
from fbnetv3.predictions.inputs import find_images

Content = dict[str, bytes]
Write = Callable[[Content], Path]


@pytest.fixture
def linked(tree: Callable[..., Path], tmp_path: Path) -> Write:
    """Returns a function that writes files to a folder in which each top-level entry is a link."""

    def write(files: Content) -> Path:
        stored = tree(files, "stored")
        (tmp_path / "linked").mkdir()
        for entry in stored.iterdir():
            (tmp_path / "linked" / entry.name).symlink_to(entry)
        return tmp_path / "linked"

    return write


@pytest.fixture(params=["tree", "archive", "linked"])
def write(request: pytest.FixtureRequest) -> Write:
    """Returns a function that writes files to a folder, an archive, or a folder of links."""
    writer: Write = request.getfixturevalue(request.param)
    return writer


FLOWERS = ["lily/0.png", "rose/0.png", "rose/1.png", "tulip/0.png"]
NAMES = ["lily", "rose", "tulip"]


def _files(*names: str) -> Content:
    return dict.fromkeys(names, b"x")


def _under(folder: str, names: list[str] = FLOWERS) -> list[str]:
    return [f"{folder}/{name}" for name in names]


@pytest.mark.parametrize(
    ("names", "classes", "count"),
    [
        (FLOWERS, NAMES, 4),
        (_under("flowers"), NAMES, 4),
        (_under("x/flowers"), NAMES, 4),
        (_under("a/b/c/flowers"), NAMES, 4),
        ([*_under("flowers"), "flowers/preview.png"], NAMES, 4),
        ([*_under("flowers"), "preview.png"], NAMES, 4),
        ([*_under("x/flowers"), "x/preview.png", "preview.png"], NAMES, 4),
        ([*_under("flowers"), "README.md", "flowers/labels.csv"], NAMES, 4),
        ([*_under("flowers"), "__MACOSX/flowers/lily/._0.png", ".git/0.png"], NAMES, 4),
        ([*_under("flowers.png")], NAMES, 4),
        ([*FLOWERS, "rose/deep/2.png", "rose/deep/er/3.png"], NAMES, 6),
        ([*FLOWERS, "lily/._1.png", "lily/Thumbs.db", "lily/.hidden/2.png"], NAMES, 4),
        ([*FLOWERS, "rose/x.png/2.png"], NAMES, 5),
        (["lily/0.png", "lily/1.png"], ["lily"], 2),
        (["lily/0.png", "lily/deep/1.png"], ["lily"], 2),
        (["x/lily/0.png"], ["lily"], 1),
        (["x/lily/0.png", "x/lily/deep/1.png"], ["lily"], 2),
        (["train/lily/0.png", "train/rose/0.png"], ["lily", "rose"], 2),
        (["bus/0.png", "train/0.png"], ["bus", "train"], 2),
        (["bus/0.png", "test/0.png", "train/0.png"], ["bus", "test", "train"], 3),
    ],
)
def test_classes(names: list[str], classes: list[str], count: int, write: Write) -> None:
    dataset = build_dataset(str(write(_files(*names))))
    assert (dataset.classes, len(dataset)) == (classes, count)
    assert all(dataset.file_name(i).endswith(tuple(names)) for i in range(count))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([*_under("train"), *_under("val")], r"contains splits.*of them: train, val$"),
        ([*_under("d/Train"), *_under("d/Test")], "contains splits.*of them: d/Test, d/Train"),
        ([*_under("train"), *_under("test"), "other/0.png"], "contains splits"),
        (["train/0.png", "val/0.png"], "contains splits"),
        (["x/0.png", "x/1.png", "x/2.png", "x/a/3.png", "x/b/4.png"],
         r"x is the only folder; it has subfolders that look like classes \(a.*and 3 images"),
        (["0.png", "1.png"], "no images in class folders; images must be at CLASS/NAME.jpg"),
        (["a/0.heic", "a/1.heic"], r"no images.*2 other files, such as a/0\.heic \(\.heic 2\)"),
        ([*FLOWERS, "yak/1.HEIC", "yak/2.txt"],
         r"class folder without images: yak; .*such as yak/1\.HEIC \(\.heic 1, \.txt 1\)"),
        ([*_under("a"), "yak/1.heic"], r"without images: yak; there is 1 other file"),
    ],
)  # fmt: skip
def test_refused_layouts(names: list[str], message: str, write: Write) -> None:
    path = write(_files(*names))
    with pytest.raises(DataError, match=message) as caught:
        build_dataset(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (["lily/0.png"], "there is only one class, lily"),
        (_under("x/flowers"), "the classes are the subfolders of x/flowers: lily, rose, tulip"),
        ([*FLOWERS, "a.png", "b.png"], "2 images outside of the class folders are left out: a.png"),
        ([*FLOWERS, "lily/1.heic", "lily/2.heic", "rose/b.txt"],
         r"3 files are left out, without the suffix of an image: .heic 2, .txt 1, such as lily/1"),
        ([*FLOWERS, *_under("trees")],
         "1 of 4 classes have several subfolders with images, which count as one class (trees: "),
    ],
)  # fmt: skip
def test_what_may_be_unexpected_is_logged(
    names: list[str], note: str, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        build_dataset(str(write(_files(*names))))
    assert note in caplog.text


def test_an_ordinary_folder_logs_nothing(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        build_dataset(str(write(_files(*FLOWERS, "README.md", "labels.csv"))))
    assert caplog.text == ""


def test_a_wrapped_class_is_read(files: Content, write: Write) -> None:
    wrapped = {f"x/pets/{name}": data for name, data in files.items()}
    dataset = build_dataset(str(write(wrapped)))
    assert dataset.classes == ["cat", "dog", "owl"]
    assert [dataset.image(i).size for i in range(len(dataset))] == [(24, 16)] * 9


def test_predict_lists_the_images_of_the_data_set(tree: Callable[..., Path]) -> None:
    names = [*FLOWERS, "lily/._0.png", "__MACOSX/lily/._0.png", ".trash/0.png", "rose/n.txt"]
    root = tree(_files(*names))
    tree(_files("0.png"), "elsewhere")
    (root / "yak").symlink_to(root.parent / "elsewhere")
    (root / "rose" / "frames.png").mkdir()
    (root / "rose" / "loop").symlink_to(root)
    dataset = build_dataset(str(root))
    listed = [dataset.file_name(i) for i in range(len(dataset))]
    assert list(map(str, find_images([root]))) == listed
    assert len(listed) == 5


def test_two_folders_with_links_to_each_other(tree: Callable[..., Path]) -> None:
    root = tree(_files("a/0.png", "b/0.png"))
    (root / "a" / "other").symlink_to(root / "b")
    (root / "b" / "other").symlink_to(root / "a")
    names = [os.path.relpath(str(image), root) for image in find_images([root])]
    assert names == ["a/0.png", "a/other/0.png", "b/0.png", "b/other/0.png"]
