"""The search for broken image files."""

from __future__ import annotations

import logging
from itertools import count
from types import SimpleNamespace

import pytest

from fbnetv3.data import DataError, build_dataset, find_broken, refuse_broken


@pytest.fixture
def damaged(files):
    cut = files["dog/deep/1.jpg"]
    return files | {"cat/2.jpg": b"not an image", "dog/deep/1.jpg": cut[: len(cut) // 2]}


@pytest.mark.parametrize("make", ["tree", "archive"])
def test_broken_files_are_errors_by_default(damaged, make, request):
    dataset = build_dataset(str(request.getfixturevalue(make)(damaged)))
    assert len(dataset) == 9
    with pytest.raises(
        DataError, match=r"cat/2\.jpg: not an image file of BMP.* \(12 bytes\); delete"
    ):
        dataset.load(2)


@pytest.mark.parametrize("make", ["tree", "archive"])
def test_broken_files_are_left_out_and_reported(damaged, make, request, caplog):
    path = str(request.getfixturevalue(make)(damaged))
    with caplog.at_level(logging.WARNING):
        dataset = build_dataset(path, skip_broken=True)
    assert len(dataset) == 7
    assert [dataset.file_name(i).removeprefix(f"{path}/") for i in range(7)] == sorted(
        set(damaged) - {"cat/2.jpg", "dog/deep/1.jpg"}
    )
    assert dataset.targets == [0, 0, 0, 1, 1, 2, 2]
    assert dataset.broken == [f"{path}/cat/2.jpg", f"{path}/dog/deep/1.jpg"]
    assert "2 of 9 images are broken" in caplog.text
    assert "cat/2.jpg" in caplog.text
    assert dataset.subset(3).broken == dataset.broken


def test_a_data_set_without_broken_files_is_not_changed(files, tree):
    dataset = build_dataset(str(tree(files)), skip_broken=True)
    assert (len(dataset), dataset.broken) == (9, [])


def test_a_class_with_only_broken_files_is_an_error(files, tree):
    root = tree(files | {"owl/0.jpg": b"x", "owl/1.jpg": b"x"})
    with pytest.raises(DataError, match=r"every image of class owl is broken .*owl/0\.jpg"):
        build_dataset(str(root), skip_broken=True)


def test_a_class_without_files_is_not_broken(files, tree):
    root = tree(files | {"cat/2.jpg": b"x"})
    (root / "classes.txt").write_text("cat\ndog\nowl\n", encoding="utf-8")
    rows = ["path,label", "cat/0.jpg,cat", "cat/2.jpg,cat", "dog/deep/1.jpg,dog"]
    (root / "table.csv").write_text("\n".join(rows), encoding="utf-8")
    dataset = build_dataset(str(root / "table.csv"), skip_broken=True)
    assert (len(dataset), len(dataset.broken), dataset.classes[2]) == (2, 1, "owl")


def test_find_broken_returns_reasons_by_index(damaged, tree):
    broken = find_broken(build_dataset(str(tree(damaged))))
    assert list(broken) == [2, 6]
    assert "not an image" in broken[2]


def test_all_broken_files_are_named(damaged, tree, files):
    refuse_broken(build_dataset(str(tree(files, "whole"))))
    message = r"2 of 9 images are broken: 2 problems: .*cat/2\.jpg: .* \| .*dog/deep/1\.jpg: "
    with pytest.raises(DataError, match=message):
        refuse_broken(build_dataset(str(tree(damaged))))


@pytest.mark.parametrize(("seconds", "complete"), [(None, True), (100.0, True), (0.0, False)])
def test_a_check_within_a_time(seconds, complete, files, tree):
    decoded = refuse_broken(build_dataset(str(tree(files))), seconds)
    assert (decoded == 9) if complete else (decoded < 9)


@pytest.mark.parametrize("seconds", [None, 100.0])
def test_a_check_within_a_time_finds_broken_files(seconds, damaged, tree):
    with pytest.raises(DataError, match=r"2 of 9 images are broken: .*cat/2\.jpg.*dog/deep/1\.jpg"):
        refuse_broken(build_dataset(str(tree(damaged))), seconds)


def test_a_check_within_a_time_counts_the_checked_images(damaged, tree, monkeypatch):
    clock = SimpleNamespace(monotonic=count().__next__)  # a second per reading
    monkeypatch.setattr("fbnetv3.data.scan.time", clock)
    with pytest.raises(DataError, match=r"[12] of 8 checked images are broken"):
        refuse_broken(build_dataset(str(tree(damaged))), 8.5)


def test_data_sets_of_files(files, tree, archive):
    for make in (tree, archive):
        dataset = build_dataset(str(make(files)))
        assert dataset.has_files
        assert dataset.subset(3).has_files
    assert not build_dataset("digits_test").has_files
