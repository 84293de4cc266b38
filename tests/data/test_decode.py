"""Decoding of image files: formats, modes, damaged files, decompression bombs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fbnetv3.data import DataError
from fbnetv3.data.decode import decode_rgb

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def _bytes(image: Image.Image, fmt: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def _decoded(image: Image.Image, fmt: str = "PNG", **options) -> np.ndarray:
    result = decode_rgb(_bytes(image, fmt, **options), "x")
    assert result.mode == "RGB"
    return np.asarray(result)


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "PPM", "TIFF", "WEBP"])
def test_lossless_formats_keep_their_pixels(fmt):
    pixels = np.random.RandomState(0).randint(0, 256, (8, 9, 3)).astype(np.uint8)
    options = {"lossless": True} if fmt == "WEBP" else {}
    assert np.array_equal(_decoded(Image.fromarray(pixels), fmt, **options), pixels)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "1", "CMYK"])
def test_other_modes_become_rgb(mode):
    image = Image.fromarray(GREY)
    if mode in ("RGBA", "LA", "CMYK"):
        image = image.convert("RGB") if mode != "LA" else image
    pixels = _decoded(image.convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    expected = GREY if mode != "1" else np.asarray(image.convert("1").convert("L"))
    assert np.abs(pixels.astype(int) - expected[..., None]).max() <= 1


def test_a_palette_with_transparency_keeps_its_colours():
    image = Image.fromarray(GREY).convert("RGB").quantize(16)
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(_decoded(image, transparency=bytes([0, 128])), expected)


def test_the_high_byte_of_16_bit_values_is_kept():
    wide = GREY.astype(np.uint16) << 8 | 0x7F
    for fmt in ("PNG", "TIFF"):
        assert np.array_equal(_decoded(Image.fromarray(wide), fmt)[..., 0], GREY)


def test_cmyk_jpeg():
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.abs(_decoded(image, "JPEG")[4, 4].astype(int) - [0, 255, 255]).max() < 6


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert _decoded(Image.new("RGB", (10, 4)), "JPEG", exif=exif).shape == (10, 4, 3)


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_errors_of_other_files_name_the_file(data):
    with pytest.raises(DataError, match=r"^some/file\.jpg: .*DATA\.SKIP_BROKEN") as caught:
        decode_rgb(data, "some/file.jpg")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF"])
def test_errors_of_truncated_files_name_the_file(fmt, encode):
    """A truncated file gives an error, or the whole image if only padding is missing."""
    data = encode(3, fmt, (40, 30))
    whole = np.asarray(decode_rgb(data, "x"))
    random = np.random.RandomState(1)
    for cut in sorted({*random.randint(0, len(data), 150).tolist(), len(data) // 2}):
        image, message = _image_or_message(data[:cut])
        if image is None:
            assert message.startswith("dir/cut.img: ")
            assert "\n" not in message
        else:
            assert cut > 0.9 * len(data)
            assert image.size == (whole.shape[1], whole.shape[0])


def _image_or_message(data: bytes) -> tuple[Image.Image | None, str]:
    try:
        return decode_rgb(data, "dir/cut.img"), ""
    except DataError as error:
        return None, str(error)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of damaged metadata
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_damaged_files_raise_only_data_errors(fmt, encode):
    data = encode(4, fmt)
    random = np.random.RandomState(2)
    errors = 0
    for _ in range(150):
        damaged = bytearray(data)
        for position in random.randint(0, len(data), 8):
            damaged[position] = random.randint(256)
        image, _ = _image_or_message(bytes(damaged))
        errors += image is None
    assert errors > 0


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    bomb = bytearray(_bytes(Image.new("RGB", (8, 8)), "BMP"))
    for side in (60_000, 20_000):
        bomb[18:26] = side.to_bytes(4, "little") * 2
        with pytest.raises(DataError, match="too large"):
            decode_rgb(bytes(bomb), "bomb.bmp")


def test_a_decompression_bomb_is_refused_if_pillow_has_no_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    bomb = bytearray(_bytes(Image.new("RGB", (8, 8)), "BMP"))
    bomb[18:26] = (20_000).to_bytes(4, "little") * 2
    with pytest.raises(DataError, match=r"bomb\.bmp: the image has 20000 x 20000 pixels"):
        decode_rgb(bytes(bomb), "bomb.bmp")
