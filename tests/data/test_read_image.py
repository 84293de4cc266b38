"""The reader of images: modes, orientations, kinds of sources, and refused values."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.io import ImageReadMode, decode_image

from fbnetv3.data import DataError, EvalTransform, TrainTransform, build_dataset, read_image
from fbnetv3.data.decode import as_images, decode_rgb
from fbnetv3.predictions.batches import classify
from fbnetv3.predictions.inputs import ImageFile
from tests.fixtures.pictures import (
    MODES,
    ORIENTATIONS,
    SIDE,
    Picture,
    encoded,
    pictures,
    stored,
    turned,
)

PICTURES = list(pictures(12, 7))
SQUARES = list(pictures())


def _array(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


def _tensor(content: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(decode_rgb(content, "x"))).permute(2, 0, 1)


SOURCES: dict[str, Callable[[bytes], Any]] = {
    "bytes": lambda content: content,
    "bytearray": bytearray,
    "opened": lambda content: Image.open(io.BytesIO(content)),
    "read twice": lambda content: read_image(content),
    "array": lambda content: np.asarray(decode_rgb(content, "x")),
    "tensor": _tensor,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_mode_and_orientation(kind: str) -> None:
    for picture in PICTURES:
        shown = _array(read_image(SOURCES[kind](picture.content)))
        assert np.array_equal(shown, picture.shown), picture.name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientations_are_those_of_pillow_and_torchvision(orientation: int) -> None:
    for fmt in ("PNG", "WEBP"):
        content = encoded(stored("RGB", 12, 7), fmt, orientation)
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
        assert np.array_equal(_array(read_image(content)), np.asarray(image.convert("RGB")))
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored("RGB", 24, 16).save(out, "JPEG", quality=95, exif=exif)
    data = torch.frombuffer(bytearray(out.getvalue()), dtype=torch.uint8)
    golden = decode_image(data, ImageReadMode.RGB, apply_exif_orientation=True)
    shown = _array(read_image(out.getvalue())).transpose(2, 0, 1)
    assert np.abs(shown.astype(int) - golden.numpy()).max() <= 2  # two JPEG decoders


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_torchvision_decodes_the_same_png(mode: str) -> None:
    content = encoded(stored(mode), "PNG")
    golden = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    if golden.dtype == torch.uint16:
        golden = (golden.int() >> 8).to(torch.uint8)
    assert np.array_equal(_array(read_image(content)), golden.expand(3, -1, -1).permute(1, 2, 0))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_compressed_tiff_is_turned_once(compression: str) -> None:
    image = stored("RGB", 12, 7)
    for orientation in ORIENTATIONS:
        out = io.BytesIO()
        image.save(out, "TIFF", compression=compression, tiffinfo={0x0112: orientation})
        shown = _array(read_image(out.getvalue()))
        assert np.array_equal(shown, turned(np.asarray(image), orientation))


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA", "RGBX", "HSV", "LAB", "I;16B", "I;16L"])
def test_modes_in_memory_that_few_files_have(mode: str) -> None:
    image = {
        "La": lambda: stored("LA").convert("La"),
        "RGBa": lambda: stored("RGB").convert("RGBA").convert("RGBa"),
        "PA": lambda: stored("P").convert("PA"),
        "LAB": lambda: Image.new("LAB", (SIDE, SIDE), (128, 0, 0)),
        "I;16B": lambda: Image.new("I;16B", (SIDE, SIDE), 770),
        "I;16L": lambda: Image.new("I;16L", (SIDE, SIDE), 770),
    }.get(mode, lambda: stored("RGB").convert(mode))()
    shown = _array(read_image(image))
    if mode == "RGBa":
        assert np.array_equal(shown, np.asarray(stored("RGB")))
    if mode.startswith("I;16"):
        assert np.unique(shown).tolist() == [3]


@pytest.mark.parametrize("fmt", ["GIF", "PNG", "TIFF", "WEBP"])
def test_the_first_of_several_frames_is_read(fmt: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    out = io.BytesIO()
    options = {"lossless": True} if fmt == "WEBP" else {}
    frames[0].save(out, fmt, save_all=True, append_images=frames[1:], **options)
    assert _array(read_image(out.getvalue()))[0, 0].tolist() == [255, 0, 0]
    opened = Image.open(io.BytesIO(out.getvalue()))
    opened.seek(1)
    assert _array(read_image(opened))[0, 0].tolist() == [0, 0, 255]  # the current frame


def test_a_given_image_keeps_its_metadata_and_pixels() -> None:
    opened = Image.open(io.BytesIO(encoded(stored("RGB", 12, 7), "PNG", 6)))
    before = opened.copy()
    assert read_image(opened).size == (7, 12)
    assert opened.size == (12, 7)
    assert opened.getexif()[0x0112] == 6
    assert np.array_equal(np.asarray(opened), np.asarray(before))


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"x" * 99])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_metadata_turn_nothing(exif: bytes) -> None:
    image = stored("RGB", 12, 7)
    image.info["exif"] = exif
    assert read_image(image).size == (12, 7)


GREY = np.asarray(stored("L", 12, 7))
ARRAYS: dict[str, Any] = {
    "uint8": GREY,
    "one channel": GREY[..., None],
    "grey and opacity": np.stack([GREY, GREY[::-1]], -1),
    "int64": GREY.astype(np.int64),
    "uint16": GREY.astype(np.uint16) << 8 | 5,
    "big-endian uint16": (GREY.astype(np.uint16) << 8).astype(">u2"),
    "float32": (GREY / 255).astype(np.float32),
    "float64": GREY / 255,
    "float16 tensor": torch.from_numpy(GREY / 255).half(),
    "uint8 tensor": torch.from_numpy(GREY.copy()),
    "three channels": torch.from_numpy(GREY.copy()).expand(3, -1, -1),
    "four channels": torch.from_numpy(GREY.copy()).expand(4, -1, -1),
    "a gradient": torch.from_numpy(GREY / 255).requires_grad_(),
    "int32 tensor": torch.from_numpy(GREY.astype(np.int32))[None],
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_and_tensors(name: str) -> None:
    assert np.array_equal(_array(read_image(ARRAYS[name])), GREY[..., None].repeat(3, -1))


def test_booleans_are_black_and_white() -> None:
    assert _array(read_image(np.array([[True, False]])))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((2, 3, 8, 8), np.uint8), r"shape \(2, 3, 8, 8\); allowed"),
        (np.zeros((3, 8, 8), np.uint8), "channels last"),
        (np.zeros((8,), np.uint8), r"shape \(8,\)"),
        (np.zeros((0, 8, 3), np.uint8), "8 x 0 pixels"),
        (np.full((8, 8), 256), "int64 values from 256 to 256; allowed: 0 to 255"),
        (np.full((8, 8), -1, np.int8), "int8 values from -1"),
        (np.full((8, 8), 255.0), "float64 values from 255 to 255; allowed: 0 to 1; divide"),
        (np.full((8, 8), np.nan), "values from nan"),
        (np.full((8, 8), -0.1), "values from -0.1"),
        (np.zeros((8, 8), complex), "type complex128"),
        (np.array([["a"]]), "type <U1"),
        (torch.zeros(1, 3, 8, 8), r"tensor of shape \(1, 3, 8, 8\)"),
        (torch.zeros(8, 8, 3), r"shape \(8, 8, 3\); allowed: \(C, H, W\)"),
        (torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0)), "allowed: 0 to 1"),
        (Image.fromarray(np.full((8, 8), 256, np.int32)), "256 to 256; allowed: 0 to 255; conv"),
        (Image.fromarray(np.full((8, 8), -1, np.int32)), "32-bit grey values from -1"),
        (Image.fromarray(np.full((8, 8), 0.5, np.float32)), "up to 0.5.*multiply the values"),
        (Image.fromarray(np.full((8, 8), 300, np.float32)), "allowed: 0 to 255"),
        (Image.fromarray(np.full((8, 8), np.nan, np.float32)), "nan"),
        (Image.new("RGB", (0, 5)), "0 x 5 pixels"),
        ([[0, 1]], "cannot read an image from list; allowed: a path, bytes"),
        (None, "NoneType"),
        ("nowhere.png", "cannot read nowhere.png: No such file"),
        ("a\0b.png", "null"),
        (Path(), "directory"),
        (b"", "not an image file"),
    ],
)
def test_refused_sources(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_image(source)
    assert "\n" not in str(caught.value)


def test_a_damaged_image_that_was_opened_lazily() -> None:
    content = encoded(stored("RGB", 200, 200), "PNG")
    with pytest.raises(DataError, match="cannot decode"):
        read_image(Image.open(io.BytesIO(content[: len(content) // 2])))


def test_a_batch_is_a_sequence_of_images() -> None:
    assert as_images([]) == []
    assert as_images(("a.png", "b.png")) == ["a.png", "b.png"]
    assert [image.shape for image in as_images(torch.zeros(2, 3, 8, 9))] == [(3, 8, 9)] * 2
    assert len(as_images(np.zeros((2, 8, 9, 3), np.uint8))) == 2


@pytest.mark.parametrize(
    "image", ["a.png", Path("a.png"), b"x", Image.new("L", (8, 8)), GREY, torch.zeros(3, 8, 8)]
)
def test_one_image_is_not_a_sequence(image: Any) -> None:
    with pytest.raises(DataError, match="pass a list of images"):
        as_images(image)


# --- entry points ---


def _predicted(path: Path) -> np.ndarray:
    """Returns the image that a classifier is given; it leaves images as they are."""
    transform = SimpleNamespace(pixels=_array)
    scores = SimpleNamespace(topk=lambda k: (torch.zeros(1, k), torch.zeros(1, k, dtype=torch.int)))
    classifier = SimpleNamespace(
        classes=["a"], transform=transform, scores_of_pixels=lambda pixels: scores
    )
    (prediction,) = classify(classifier, [ImageFile(path)], 1)  # type: ignore[arg-type]
    assert not prediction.problem
    return prediction.pixels


def _zipped(path: Path) -> np.ndarray:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        archive.write(path, "class/0.png")
    return _array(build_dataset(str(path.with_suffix(".zip"))).image(0))


ENTRY_POINTS: dict[str, Callable[[Path], np.ndarray]] = {
    "path": lambda path: _array(read_image(path)),
    "folder": lambda path: _array(build_dataset(str(path.parents[1])).image(0)),
    "archive": _zipped,
    "evaluation": lambda path: EvalTransform(SIDE).pixels(path),
    "training": lambda path: TrainTransform(SIDE, crop="none", flip=False).pixels(path),
    "opened image": lambda path: EvalTransform(SIDE).pixels(Image.open(path)),
    "predict": _predicted,
}


@pytest.mark.parametrize("entry", ENTRY_POINTS)
def test_entry_points_see_the_same_pixels(entry: str, tmp_path: Path) -> None:
    path = tmp_path / "set" / "class" / "0.png"
    path.parent.mkdir(parents=True)
    for picture in SQUARES:
        path.write_bytes(picture.content)
        assert np.array_equal(ENTRY_POINTS[entry](path), picture.shown), picture.name


def test_the_table_has_every_mode() -> None:
    assert len(SQUARES) == 8 * sum(map(len, MODES.values()))
    assert isinstance(SQUARES[0], Picture)


# --- memory ---


def _grey_png(side: int, bits: int) -> bytes:
    """Returns a PNG of black pixels, compressed to a thousandth of its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packed = zlib.compressobj(1)
    row = bytes(side * bits // 8 + 1)
    data = b"".join(packed.compress(row) for _ in range(side)) + packed.flush()
    header = struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 16])
def test_memory_per_pixel_is_bounded(bits: int, tmp_path: Path) -> None:
    side = 6000
    (tmp_path / "x.png").write_bytes(_grey_png(side, bits))
    code = (
        "import resource, sys; from fbnetv3.data import read_image\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); read_image(sys.argv[1]); print((peak() - before) * 1024)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x.png")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) / side**2 < 9
