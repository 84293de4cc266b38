"""Packages that are missing, and packages that are installed but cannot be imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fbnetv3.requires import (
    BrokenPackageError,
    MissingPackageError,
    require,
    require_detectron2,
)
from tests.runs import one_line


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_a_missing_package(module: str) -> None:
    with pytest.raises(MissingPackageError, match=r"fbnetv3\[search\]"):
        require(module, "search")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("from os import no_such_name", "cannot import name"),
        ("raise MemoryError", "MemoryError.*the memory is full"),
        (
            "raise ImportError('libx.so: failed to map segment from shared object')",
            "failed to map segment.*the memory is full",
        ),
        ("raise OSError(12, 'Cannot allocate memory')", "the memory is full"),
        ("raise OSError('libcudart.so.12: cannot open shared object file')", "libcudart"),
        ("raise ValueError('numpy.dtype size changed\\nmore')", "size changed"),
        ("import broken_package.part", "No module named 'broken_package.part'"),
        ("this is no Python", "SyntaxError"),
    ],
)
def test_a_broken_package_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, says: str
) -> None:
    (tmp_path / "broken_package.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_package", raising=False)
    with pytest.raises(BrokenPackageError, match=f"broken_package is installed, .*{says}") as error:
        require("broken_package", "search")
    assert "not installed" not in one_line(error)


@pytest.mark.parametrize(
    ("content", "error"),
    [("raise MemoryError", BrokenPackageError), (None, MissingPackageError)],
)
def test_detectron2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, error: type[Exception]
) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    if content is None:
        monkeypatch.setitem(sys.modules, "detectron2", None)
    else:
        (tmp_path / "detectron2").mkdir()
        (tmp_path / "detectron2" / "__init__.py").write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(error):
        require_detectron2()
