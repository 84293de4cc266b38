"""Which images a command line names: files, folders, zips, lists and standard input."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from fbnetv3.predictions.errors import PredictError
from fbnetv3.predictions.inputs import find_images


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with images, a zip of images, and lists."""
    for name in ("set/b.png", "set/inner/a.JPG", "set/.hidden.png", "other.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    with zipfile.ZipFile(tmp_path / "more.ZIP", "w") as archive:
        for name in ("y/2.png", "x/1.png", "../out.png", "/etc/passwd.png", "x/notes.md"):
            archive.writestr(name, name)
    return tmp_path


def test_files_folders_and_zips_in_the_order_given(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = find_images([photos / "other.png", photos / "more.ZIP", photos / "set"])
    expected = ("other.png", "more.ZIP/x/1.png", "more.ZIP/y/2.png", "set/b.png", "set/inner/a.JPG")
    assert [str(image) for image in images] == [str(photos / name) for name in expected]
    assert [image.stem for image in images] == ["other", "1", "2", "b", "a"]
    assert images[1].read() == b"x/1.png"
    assert images[0].read() == photos / "other.png"
    assert "files without the suffix of an image are left out: .md 1" in capsys.readouterr().err


def test_a_list_is_relative_to_its_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"\ufeff# photos\n  other.png \n\nset\r\n{photos / 'other.png'}\nmore.ZIP"
    (photos / "list.txt").write_text(text, encoding="utf-8")
    monkeypatch.chdir("/")
    names = [str(image) for image in find_images([photos / "list.txt"])]
    assert names[0] == names[3] == str(photos / "other.png")
    assert [Path(name).name for name in names] == [
        *("other.png", "b.png", "a.JPG", "other.png"),
        *("1.png", "2.png"),
    ]


def test_standard_input_is_relative_to_the_current_folder(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos / "set")
    images = find_images(["-", "b.png"], io.StringIO("b.png\n../other.png\n"))
    assert [str(image) for image in images] == ["b.png", "../other.png", "b.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.txt", b"other.png\nnone.png\n", "list.txt, line 2: no such image or folder"),
        ("list.txt", b"# nothing\n\n", "list.txt lists no images"),
        ("list.txt", b"\xff\xfe", "cannot read the list"),
        ("bad.zip", b"PK no", "bad.zip: not a zip archive"),
        ("a\0.png", None, "cannot read"),
        ("missing.zip", None, "no such image or folder"),
    ],
)
def test_mistakes_name_the_file_and_line(
    photos: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (photos / name).write_bytes(content)
    with pytest.raises(PredictError, match=message):
        find_images([photos / name])


def test_a_pipe_is_not_waited_for(photos: Path) -> None:
    os.mkfifo(photos / "pipe")
    with pytest.raises(PredictError, match="not a regular file"):
        find_images([photos / "pipe"])


def test_an_encrypted_entry_is_an_error_of_that_image(photos: Path) -> None:
    data = bytearray((photos / "more.ZIP").read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := data.find(signature, start + 1)) >= 0:
            data[start + flags] |= 1
    (photos / "more.ZIP").write_bytes(data)
    (first, _) = find_images([photos / "more.ZIP"])
    with pytest.raises(PredictError, match=r"more\.ZIP/x/1\.png: .*encrypted"):
        first.read()
