"""The upper rows of JPEG files, decoded without the rest; and headers read without Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image
from torchvision.transforms import v2

from fbnetv3.data import DataError, TrainTransform, jpeg
from fbnetv3.data.crops import random_resized_crop_box
from fbnetv3.data.sizes import MAX_PIXELS


def _picture(width: int, height: int) -> Image.Image:
    noise = np.random.RandomState(width).randint(0, 256, (height // 3 + 1, width // 3 + 1, 3))
    return Image.fromarray(noise.astype(np.uint8)).resize((width, height))


def _file(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


@pytest.fixture
def decoded_rows(monkeypatch) -> list[int]:
    """Numbers of rows that simplejpeg decodes."""
    rows: list[int] = []
    decode = simplejpeg.decode_jpeg

    def recorded(*arguments, **options):
        pixels = decode(*arguments, **options)
        rows.append(len(pixels))
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", recorded)
    return rows


@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_upper_rows_are_those_of_the_whole_image(divisor, subsampling, options, decoded_rows):
    for size in [(61, 142), (100, 97), (33, 256)]:
        image = jpeg.open_jpeg(_file(_picture(*size), subsampling=subsampling, **options), "x.jpg")
        whole = image.pixels(divisor)
        for bottom in (1, 7, 8, 15, 16, 17, 31, 40, 80, size[1]):
            rows = -(-bottom // divisor)
            upper = image.pixels(divisor, bottom)
            np.testing.assert_array_equal(upper[:rows], whole[:rows], f"{size} {bottom}")
    assert min(decoded_rows) < len(whole) / 2


def test_a_crop_decodes_no_more_rows_than_it_needs(decoded_rows):
    image = jpeg.open_jpeg(_file(_picture(300, 400)), "x.jpg")
    transform = TrainTransform(64)
    for seed in range(20):
        torch.manual_seed(seed)
        bottom = random_resized_crop_box(image.size)[3]
        torch.manual_seed(seed)
        transform.pixels(image)
        assert decoded_rows[-1] <= bottom + 16


def test_a_truncated_file_is_refused_even_if_its_upper_rows_are_there():
    data = _file(_picture(200, 200))
    image = jpeg.open_jpeg(data[: len(data) * 3 // 4], "x.jpg")
    with pytest.raises(DataError, match="truncated"):
        image.pixels(1, 20)


def test_a_file_with_bytes_after_its_end_is_decoded_as_a_whole(decoded_rows):
    data = _file(_picture(200, 200))
    expected = jpeg.open_jpeg(data, "x.jpg").pixels()
    decoded_rows.clear()
    np.testing.assert_array_equal(jpeg.open_jpeg(data + b"\0\0", "x.jpg").pixels(1, 20), expected)


@pytest.mark.parametrize("mark", [b"<x tiff:Orientation='6'/>", b"Exif\0\0MM", b"MPF\0"])
def test_headers_that_need_pillow_are_read_by_it(mark, monkeypatch):
    opened = []
    open_image = jpeg.open_image
    monkeypatch.setattr(jpeg, "open_image", lambda *a: opened.append(a) or open_image(*a))
    jpeg.open_jpeg(_file(_picture(20, 20)), "x.jpg")
    assert not opened
    jpeg.open_jpeg(_file(_picture(20, 20), comment=mark), "x.jpg")
    assert len(opened) == 1


def test_the_orientation_in_xmp_is_applied():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = _file(_picture(20, 30), xmp=xmp)
    image = jpeg.open_jpeg(data, "x.jpg")
    assert (image.turn, image.size) == (6, (30, 20))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_torch_gets_arrays_that_can_be_written(orientation, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = jpeg.open_jpeg(_file(_picture(70, 60), exif=exif), "x.jpg")
    writable = []  # torch warns of others, once in a process
    from_numpy = torch.from_numpy
    monkeypatch.setattr(
        torch, "from_numpy", lambda a: writable.append(a.flags.writeable) or from_numpy(a)
    )
    monkeypatch.setattr(
        "fbnetv3.data.crops.random_resized_crop_box", lambda size: (0, 0, *size)
    )  # the whole image, which is no copy
    TrainTransform(64).pixels(image)
    assert all(writable)
    assert writable


def test_a_header_of_too_many_pixels_is_refused_before_decoding():
    data = _file(_picture(20, 30))
    place, _ = jpeg._header(data)
    large = data[:place] + b"\xff\xdc\xff\xdc" + data[place + 4 :]
    assert MAX_PIXELS < 0xFFDC**2
    with pytest.raises(DataError, match="pixels"):
        jpeg.open_jpeg(large, "x.jpg")


@pytest.mark.parametrize("size", [(500, 375), (30, 40), (1, 9), (200, 3), (7, 7)])
def test_boxes_are_torchvisions(size):
    reference = v2.RandomResizedCrop(8, scale=(0.08, 1.0))
    image = torch.empty(()).expand(3, size[1], size[0])
    for seed in range(200):
        torch.manual_seed(seed)
        box = reference.make_params([image])
        left, top, width, height = (box[key] for key in ("left", "top", "width", "height"))
        after = torch.rand(())
        torch.manual_seed(seed)
        assert random_resized_crop_box(size) == (left, top, left + width, top + height)
        assert torch.rand(()) == after
