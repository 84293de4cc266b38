"""The end of packing: the hidden folder is renamed, or kept for a later call."""

from __future__ import annotations

import os
import re

import pytest

from fbnetv3.data import DataError, build_dataset
from fbnetv3.data.pack import PackOptions, pack
from fbnetv3.data.shards import INDEX
from fbnetv3.io import WriteError

OPTIONS = PackOptions(shard_bytes=2000)


@pytest.fixture
def dataset(tree, files):
    return build_dataset(str(tree(files)))


@pytest.fixture
def whole(dataset, tmp_path):
    """Returns the bytes by file name of an uninterrupted packing."""
    pack(dataset, tmp_path / "whole", OPTIONS)
    return _bytes(tmp_path / "whole")


def _bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _only_renames(dataset, folder):
    """Packs without reading an image; returns the numbers that ``advance`` was called with."""

    def content(i):
        raise AssertionError(i)

    counts = []
    dataset.content = content
    assert pack(dataset, folder, OPTIONS, counts.append) > 1
    return counts


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("is_relative", [True, False])
def test_a_link_to_an_empty_or_missing_folder(dataset, whole, tmp_path, exists, is_relative):
    target = tmp_path / "disk" / "shards"
    (target if exists else target.parent).mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(os.path.relpath(target, tmp_path) if is_relative else target)
    pack(dataset, link, OPTIONS)
    assert link.is_symlink()
    assert _bytes(link) == _bytes(target) == whole
    assert list(target.parent.iterdir()) == [target]


def test_a_mount_point_is_refused_before_an_image_is_read(dataset, small_disk, monkeypatch):
    monkeypatch.setattr(dataset, "content", lambda i: pytest.fail("an image was read"))
    with pytest.raises(DataError, match=rf"{small_disk} is a mount point.*choose a new folder"):
        pack(dataset, small_disk, OPTIONS)
    assert not (small_disk.parent / ".disk.partial").exists()


@pytest.mark.parametrize("make", ["file", "loop"])
def test_what_no_folder_can_be_renamed_to_is_refused(dataset, tmp_path, make):
    path = tmp_path / "out"
    if make == "file":
        path.write_text("")
    else:
        path.symlink_to(path)
    with pytest.raises(DataError, match="out exists already; choose a new folder"):
        pack(dataset, path, OPTIONS)
    assert not (tmp_path / ".out.partial").exists()


def test_a_rename_that_fails_keeps_all_and_is_repeated(dataset, whole, tmp_path, monkeypatch):
    folder, partial, replace = tmp_path / "out", tmp_path / ".out.partial", os.replace

    def failing(source, target):
        if target == folder:
            raise PermissionError(1, "Operation not permitted")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    message = f"{partial} has all shards, but cannot be renamed to {folder}: Operation not"
    for _ in range(2):
        with pytest.raises(WriteError, match=f"{re.escape(message)}.* repeat the command"):
            pack(dataset, folder, OPTIONS)
        assert _bytes(partial).items() >= whole.items()
    with pytest.raises(DataError, match=r"\.out\.partial is left from packing other images"):
        pack(dataset, folder, PackOptions(shard_bytes=3000))
    monkeypatch.undo()
    assert _only_renames(dataset, folder) == [9]
    assert _bytes(folder) == whole
    assert not partial.exists()


def test_a_file_that_appears_in_the_folder_meanwhile(dataset, whole, tmp_path, monkeypatch):
    folder, content = tmp_path / "out", dataset.content

    def appearing(i):
        folder.mkdir(exist_ok=True)
        (folder / "notes.txt").write_text("mine")
        return content(i)

    monkeypatch.setattr(dataset, "content", appearing)
    with pytest.raises(WriteError, match=r"has all shards, but cannot be renamed.*not empty"):
        pack(dataset, folder, OPTIONS)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(DataError, match="out exists already"):
        pack(dataset, folder, OPTIONS)
    (folder / "notes.txt").unlink()
    assert _only_renames(dataset, folder) == [9]
    assert _bytes(folder) == whole


def test_a_kill_after_the_rename_is_completed(dataset, whole, tmp_path, monkeypatch):
    folder = tmp_path / "out"

    def killed(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fbnetv3.data.pack._finish", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(dataset, folder, OPTIONS)
    assert _bytes(folder).items() > whole.items()
    with pytest.raises(DataError, match="out exists already"):
        pack(dataset, folder, PackOptions(shard_bytes=3000))
    assert _only_renames(dataset, folder) == [9]
    assert _bytes(folder) == whole


def test_an_index_without_a_fingerprint_is_not_removed(dataset, tmp_path):
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (partial / INDEX).write_text("{}")
    with pytest.raises(DataError, match=r"\.out\.partial is left from packing other images"):
        pack(dataset, tmp_path / "out", OPTIONS)
    assert _bytes(partial) == {INDEX: b"{}"}
