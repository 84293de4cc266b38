"""The command ``fbnetv3-data``."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbnetv3.cli import run_main
from fbnetv3.cli.data import main
from fbnetv3.data import build_dataset


def test_a_packed_data_set_is_that_of_the_original(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "digits"
    assert main(["pack", "digits_test", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: 360 images of 10 classes in 1 shard\n"
    original, packed = build_dataset("digits_test"), build_dataset(str(folder))
    assert (packed.classes, packed.targets) == (original.classes, original.targets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--short-side", "-3"], "the short side is -3"),
        (["--shard-mb", "0"], "the size of a shard is 0"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run_main(main, ["pack", "digits_test", str(tmp_path / "out"), *arguments])
    assert status == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
