"""The part of ``make demo`` that needs no training."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbnetv3.cli import demo


def test_a_pretrained_network_looks_at_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FBNETV3_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    demo.show_pretrained(tmp_path / "photographs")
    told = capsys.readouterr().out
    assert "It knows ten other things" in told
    assert max(map(len, told.splitlines())) <= 120
    for name in ("china.png", "flower.png"):
        assert (tmp_path / "photographs" / name).is_file()
        assert f"{name}\n" in told
    assert told.count("%") == 4  # two classes each


def test_it_looks_at_test_images_where_they_are(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.show_pretrained(tmp_path / "photographs")
    told = capsys.readouterr().out
    assert "test images of CIFAR-10" in told
    assert "a_airplane.png" in told
