"""Fixtures of image files, folders and archives."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fbnetv3.data import ArrayDataset

Encode = Callable[..., bytes]


def _encode(value: int = 0, fmt: str = "JPEG", size: tuple[int, int] = (24, 16)) -> bytes:
    """Returns an image file with noise, whose mean depends on ``value``."""
    noise = np.random.RandomState(value).randint(-20, 20, (size[1], size[0], 3))
    pixels = np.clip(noise + 30 + (7 * value) % 200, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, fmt)
    return out.getvalue()


@pytest.fixture
def encode() -> Encode:
    """Returns the function ``encode(value, fmt, size)``, which makes an image file."""
    return _encode


@pytest.fixture
def files() -> dict[str, bytes]:
    """Returns the image files of three classes: 4 cats, 3 dogs (one in a subfolder), 2 owls."""
    names = ["cat/0.jpg", "cat/1.JPEG", "cat/2.jpg", "cat/3.jpg"]
    names += ["dog/0.jpg", "dog/deep/1.jpg", "dog/2.jpg", "owl/0.jpg", "owl/1.jpg"]
    return {name: _encode(i) for i, name in enumerate(names)}


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Returns the function ``tree(files)``, which writes files to a folder and returns it."""

    def write(files: dict[str, bytes], name: str = "tree") -> Path:
        for file, data in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / name

    return write


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Returns the function ``archive(files)``, which writes files to a zip archive.

    A name that ends with / is the entry of a folder.
    """

    def write(files: dict[str, bytes], name: str = "set.zip", compression: int = 0) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w", compression) as out:
            for file, data in files.items():
                out.writestr(file, data)
        return tmp_path / name

    return write


@pytest.fixture
def noise() -> Callable[[int], ArrayDataset]:
    """Returns the function ``noise(n)``, which makes a data set of random images of 4 classes."""

    def make(n: int, size: int = 16) -> ArrayDataset:
        pixels = np.random.RandomState(0).randint(0, 256, (n, size, size, 3)).astype(np.uint8)
        return ArrayDataset("noise", list("abcd"), pixels, [i % 4 for i in range(n)])

    return make
