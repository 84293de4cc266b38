"""The part of ``make demo`` without training."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbnetv3.cli import demo


def test_a_packaged_network_classifies_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FBNETV3_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    demo.show_pretrained(tmp_path / "photographs")
    out = capsys.readouterr().out
    assert "only the ten classes of CIFAR-10" in out
    assert max(map(len, out.splitlines())) <= 120
    for name in ("china.png", "flower.png"):
        assert (tmp_path / "photographs" / name).is_file()
        assert f"{name}\n" in out
    assert out.count("%") == 4  # two classes each


def test_it_classifies_test_images_where_they_are_installed(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.show_pretrained(tmp_path / "photographs")
    out = capsys.readouterr().out
    assert "test images of CIFAR-10" in out
    assert "a_airplane.png" in out
