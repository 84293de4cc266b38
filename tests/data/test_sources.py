"""Image files in folders and archives: layouts, damaged archives, threads and processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from fbnetv3.data import DataError
from fbnetv3.data.opening import open_source
from fbnetv3.data.sources import ZipSource


def _contents(source):
    return {source.files[i]: source.read(i) for i in range(len(source.files))}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_folder_and_its_archive_have_the_same_content(files, tree, archive, compression):
    folder, zipped = open_source(tree(files)), open_source(archive(files, compression=compression))
    assert folder.classes == zipped.classes == ["cat", "dog", "owl"]
    assert folder.targets == zipped.targets == [0] * 4 + [1] * 3 + [2] * 2
    assert folder.files == zipped.files
    assert _contents(folder) == _contents(zipped) == files


def test_files_are_sorted_by_class_and_name_for_any_order_in_the_archive(files, archive):
    backwards = dict(reversed(files.items()))
    assert open_source(archive(backwards)).files == sorted(files)


@pytest.mark.parametrize("make", ["tree", "archive"])
def test_other_files_are_ignored(files, make, request):
    others = {
        "README.md": b"x", "stray.jpg": b"x", "cat/notes.txt": b"x", "cat/._0.jpg": b"x",
        ".hidden/0.jpg": b"x", "__MACOSX/cat/0.jpg": b"x", "cat/.thumbs/0.jpg": b"x",
    }  # fmt: skip
    source = open_source(request.getfixturevalue(make)(files | others))
    assert source.files == sorted(files)
    assert source.classes == ["cat", "dog", "owl"]


def test_an_archive_with_one_top_level_folder(files, archive):
    wrapped = {f"pets/{name}": data for name, data in files.items()}
    source = open_source(archive({"pets/": b"", "other/": b"", "README": b"x"} | wrapped))
    assert source.classes == ["cat", "dog", "owl"]
    assert _contents(source) == files


def test_names_that_lead_out_of_an_archive_are_ignored(files, archive, tmp_path):
    unsafe = {"../up/0.jpg": b"x", "/root/0.jpg": b"x"}
    source = open_source(archive(files | unsafe))
    assert source.files == sorted(files)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set.zip"]


def test_links_to_folders_are_followed_but_not_in_circles(files, tree, tmp_path):
    root = tree(files)
    tree({"0.jpg": files["cat/0.jpg"]}, "elsewhere")
    (root / "yak").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "loop").symlink_to(root)
    assert open_source(root).files == sorted([*files, "yak/0.jpg"])


@pytest.mark.parametrize("make", ["tree", "archive"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a/notes.txt": b"x"}, "no images in class folders"),
        ({"0.jpg": b"x"}, "no images in class folders"),
        ({"a/0.jpg": b"x", "b/notes.txt": b"x", "b/": b""}, "class folder without images: b"),
        ({"train/a/0.jpg": b"x", "val/a/0.jpg": b"x"}, "contains splits.*train, val"),
    ],
)
def test_errors_of_other_layouts(content, message, make, request):
    if make == "tree":
        content = {k: v for k, v in content.items() if not k.endswith("/")}
    path = request.getfixturevalue(make)(content)
    with pytest.raises(DataError, match=message) as caught:
        open_source(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 10, 200, -1, -30])
def test_errors_of_broken_archives_name_the_archive(files, archive, cut):
    path = archive(files)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"set\.zip: not a zip archive"):
        open_source(path)


def test_the_error_of_a_damaged_file_in_an_archive_names_it(files, archive):
    path = archive(files)
    data = bytearray(path.read_bytes())
    position = data.find(files["cat/1.JPEG"])
    data[position + 50] ^= 0xFF
    path.write_bytes(data)
    source = open_source(path)
    with pytest.raises(DataError, match=r"set\.zip/cat/1\.JPEG: .*CRC.*download"):
        source.read(source.files.index("cat/1.JPEG"))


def test_the_error_of_an_encrypted_file_in_an_archive_names_it(files, archive):
    path = archive({"cat/0.jpg": files["cat/0.jpg"]})
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(signature) + flags] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"cat/0\.jpg.*encrypted"):
        open_source(path).read(0)


def test_the_error_of_a_deleted_file_names_it(files, tree):
    root = tree(files)
    source = open_source(root)
    (root / "cat/0.jpg").unlink()
    with pytest.raises(DataError, match=r"tree/cat/0\.jpg: cannot read.*No such file"):
        source.read(0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_the_error_of_an_unreadable_folder_names_it(files, tree):
    root = tree(files)
    (root / "dog").chmod(0)
    try:
        with pytest.raises(DataError, match=r"cannot read .*dog \("):
            open_source(root)
    finally:
        (root / "dog").chmod(0o755)


def test_threads_may_read_from_one_archive(files, archive):
    source = open_source(archive(files))
    with ThreadPoolExecutor(8) as pool:
        indices = list(range(len(files))) * 50
        contents = list(pool.map(source.read, indices))
    assert contents == [files[source.files[i]] for i in indices]


def test_an_archive_is_pickled_without_its_handle(files, archive):
    source = open_source(archive(files))
    source.read(0)
    assert _contents(pickle.loads(pickle.dumps(source))) == files


def _read_many(source: ZipSource, queue) -> None:
    queue.put([source.read(i % len(source.files)) for i in range(300)])


def test_forked_processes_may_read_from_one_archive(files, archive):
    source = open_source(archive(files))
    source.read(0)  # the parent's handle is open
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_read_many, args=(source, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join()
    assert results == [[files[source.files[i % len(files)]] for i in range(300)]] * 3
