"""Image files on disk, written by Pillow."""

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
    """A noisy image whose mean tells which one it is."""
    noise = np.random.RandomState(value).randint(-20, 20, (size[1], size[0], 3))
    pixels = np.clip(noise + 30 + (7 * value) % 200, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, fmt)
    return out.getvalue()


@pytest.fixture
def encode() -> Encode:
    """``encode(value, fmt, size) -> bytes`` of an image file."""
    return _encode


@pytest.fixture
def files() -> dict[str, bytes]:
    """Three classes: 4 cats, 3 dogs (one in a subfolder), 2 owls."""
    names = ["cat/0.jpg", "cat/1.JPEG", "cat/2.jpg", "cat/3.jpg"]
    names += ["dog/0.jpg", "dog/deep/1.jpg", "dog/2.jpg", "owl/0.jpg", "owl/1.jpg"]
    return {name: _encode(i) for i, name in enumerate(names)}


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """``tree(files) -> folder`` that holds them."""

    def write(files: dict[str, bytes], name: str = "tree") -> Path:
        for file, data in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / name

    return write


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """``archive(files) -> zip`` that holds them; a name that ends in / is a folder's entry."""

    def write(files: dict[str, bytes], name: str = "set.zip", compression: int = 0) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w", compression) as out:
            for file, data in files.items():
                out.writestr(file, data)
        return tmp_path / name

    return write


@pytest.fixture
def noise() -> Callable[[int], ArrayDataset]:
    """``noise(n) -> ArrayDataset`` of n random 16-px images in 4 classes."""

    def make(n: int, size: int = 16) -> ArrayDataset:
        pixels = np.random.RandomState(0).randint(0, 256, (n, size, size, 3)).astype(np.uint8)
        return ArrayDataset("noise", list("abcd"), pixels, [i % 4 for i in range(n)])

    return make
