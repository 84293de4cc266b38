"""The commands of ``fbnetv3-zoo``."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbnetv3.cli import run_main
from fbnetv3.cli.zoo import main
from fbnetv3.zoo.table import model_zoo_table


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FBNETV3_CACHE", str(folder))
    return folder


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "fbnetv3*"]) == 0
    out = capsys.readouterr().out
    assert "fbnetv3_g" in out
    assert "2129.7M" in out
    assert "fbnetv2" not in out


def test_list_pretrained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--pretrained", "*_g"]) == 0
    out = capsys.readouterr().out
    assert "fbnetv3_g.ra2_in1k" in out
    assert "82.79 (quoted)" in out


def test_verify(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "fbnetv3_[ag].fb*"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 ok, 0 failed, 4 skipped"


def test_verify_fails_with_its_status(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.mkdir()
    (cache / "fbnetv3_a.fb_in1k.pth").write_bytes(b"<html>")
    assert main(["verify", "fbnetv3_a.*"]) == 1
    assert "1 failed" in capsys.readouterr().out


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "zoo.md"
    assert main(["table", "--output", str(path)]) == 0
    assert path.read_text("utf-8") == model_zoo_table()
    assert main(["table", "--output", str(path), "--check"]) == 0
    path.write_text("old")
    assert main(["table", "--output", str(path), "--check"]) == 1
    assert "out of date" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["list", "nothing*"], "no model matches 'nothing*'"),
        (["verify", "nothing"], "no weights match 'nothing'"),
        (["download", "fbnetv3_z"], "did you mean"),
        (["download", "fbnetv2_l3"], "no weights for 'fbnetv2_l3'"),
    ],
)
def test_errors_are_one_line(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(main, argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1
