"""Untrusted images and archives: false headers, formats with code, links, paths that lead out."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from fbnetv3.data import DataError, build_dataset
from fbnetv3.data.decode import FORMATS, decode_rgb
from fbnetv3.predictions.batches import classify
from fbnetv3.predictions.inputs import ImageFile

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) (w) file\n%%EOF\n"


def png(side: int = 8) -> bytes:
    """Returns a small PNG file whose header claims ``side`` x ``side`` pixels."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    data = bytearray(out.getvalue())
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def _tree(root: Path) -> Path:
    (root / "cat").mkdir(parents=True)
    (root / "cat" / "0.png").write_bytes(png())
    return root


def _zip(path: Path, extra: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"cat/0.png": png(), **extra}.items():
            archive.writestr(name, content)
    return path


def _problem(path: Path) -> str:
    """Returns why an image cannot be predicted."""
    transform = SimpleNamespace(pixels=lambda image: image)
    classifier = SimpleNamespace(classes=["a"], transform=transform)
    (prediction,) = classify(classifier, [ImageFile(path)], 1)  # type: ignore[arg-type]
    return prediction.problem


@pytest.mark.parametrize("limit", [89_478_485, None])
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_claims_60000_x_60000_pixels(
    packed: bool, limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    bomb = png(60_000)
    if packed:
        root = _zip(tmp_path / "set.zip", {"cat/1.png": bomb})
    else:
        root = _tree(tmp_path / "set")
        (root / "cat" / "1.png").write_bytes(bomb)
    dataset = build_dataset(str(root))
    assert dataset.image(0).size == (8, 8)
    with pytest.raises(DataError, match=r"cat/1\.png: .*(too large|60000 x 60000 pixels)"):
        dataset.image(1)
    assert len(build_dataset(str(root), skip_broken=True)) == 1


def test_the_error_of_predict_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(60_000))
    assert "bomb.png" in _problem(path)


def test_formats_that_start_other_programs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr("subprocess.check_call", lambda *a, **k: started.append(a))
    monkeypatch.setattr("PIL.EpsImagePlugin.has_ghostscript", lambda: True)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    with pytest.raises(DataError, match=r"photo\.jpg: not an image file of BMP"):
        decode_rgb(EPS, "photo.jpg")
    assert not started
    with contextlib.suppress(OSError), Image.open(io.BytesIO(EPS)) as image:
        image.load()
    assert started  # Pillow alone does start Ghostscript


@pytest.mark.parametrize("kind", FORMATS)
def test_all_allowed_formats_are_read(kind: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, kind)
    assert decode_rgb(out.getvalue(), "x").size == (8, 8)


def test_links_to_devices_and_pipes_are_not_read(tmp_path: Path) -> None:
    root = _tree(tmp_path / "set")
    os.symlink("/dev/zero", root / "cat" / "1.png")
    os.mkfifo(root / "cat" / "2.png")
    dataset = build_dataset(str(root))
    for number in (1, 2):
        with pytest.raises(DataError, match=rf"{number}\.png: cannot read.*regular"):
            dataset.image(number)
    assert "not a regular file" in _problem(root / "cat" / "1.png")


def test_paths_that_lead_out_of_an_archive_are_ignored(tmp_path: Path) -> None:
    names = ["../up.png", "cat/../../up.png", "/abs/up.png", "../cat/up.png", "cat/./../up.png"]
    path = _zip(tmp_path / "set.zip", {})
    with zipfile.ZipFile(path, "a") as archive:
        for name in names:
            archive.writestr(name, png())
    dataset = build_dataset(str(path))
    assert [dataset.file_name(i) for i in range(len(dataset))] == [f"{path}/cat/0.png"]
    dataset.image(0)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["set.zip"]  # nothing is extracted


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "set.zip", {})
    link = zipfile.ZipInfo("cat/1.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"cat/1\.png: .*it is a symbolic link"):
        build_dataset(str(path)).image(1)


def test_a_file_that_is_too_large_when_extracted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbnetv3.data.sources.MAX_BYTES", 1 << 20)
    path = _zip(tmp_path / "set.zip", {"cat/1.png": bytes(4 << 20)})
    assert path.stat().st_size < 1 << 16
    with pytest.raises(DataError, match=r"cat/1\.png: .*4194304 bytes when extracted"):
        build_dataset(str(path)).image(1)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    root = _tree(tmp_path / "set")
    with (root / "cat" / "1.png").open("wb") as file:
        file.truncate((1 << 30) + 1)  # a sparse file, which takes no space on disk
    with pytest.raises(DataError, match=r"1\.png: cannot read .*1073741825 bytes"):
        build_dataset(str(root)).image(1)
