"""``fbnetv3-export``: its table, and errors of one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbnetv3.cli import run_main
from fbnetv3.cli.export import main


@pytest.mark.parametrize("model", ["fbnetv3_a0.cifar10", "retinanet_fbnetv3_a0.bccd"])
def test_it_prints_a_table_of_the_files(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", model, "--output", str(tmp_path), "--name", "net"]
    assert main([*arguments, "--format", "onnx", "onnx"]) == 0
    header, row = capsys.readouterr().out.strip().splitlines()
    assert header.split() == ["format", "file", "MB", "difference", "ms"]  # without --data no score
    assert row.split()[:2] == ["onnx", str(tmp_path / "net.onnx")]
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "fbnetv3_a0.cifar10", "--format", "onx"], "format 'onx' is unknown; allowed"),
        (
            ["--model", "fbnetv3_a0.cifar01", "--format", "onnx"],
            "no weights 'fbnetv3_a0.cifar01'; there are",
        ),
        (["--weights", "no/such.pt", "--format", "onnx"], "cannot read weights no/such.pt"),
        (["--model", "fbnetv3_a0.cifar10", "--format", "onnx-int8"], "--calibration"),
        (
            ["--model", "fbnetv3_a0.cifar10", "--format", "onnx", "--data", "no/such/data"],
            "'no/such/data' is neither a registered name nor an existing path",
        ),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(main, [*arguments, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", ["fbnetv3_a0.cifar10", "retinanet_fbnetv3_a0.bccd"])
@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("--calibration-images", "-3", ">= 1"),
        ("--calibration-images", "0", ">= 1"),
        ("--calibration-images", "many", ">= 1"),
        ("--seed", "-1", "from 0 to 9223372036854775807"),
        ("--seed", "9223372036854775808", "from 0 to 9223372036854775807"),
        ("--seed", "1.5", "from 0 to 9223372036854775807"),
    ],
)
def test_numbers_out_of_range_are_refused(
    model: str, option: str, value: str, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--model", model, "--format", "onnx", option, value])
    assert stopped.value.code == 2
    message = f"argument {option}: must be an integer {allowed}, not {value!r}"
    assert message in capsys.readouterr().err


def test_the_largest_seed_can_be_used(tmp_path: Path) -> None:
    arguments = ["--model", "fbnetv3_a0.cifar10", "--format", "onnx", "--output", str(tmp_path)]
    assert main([*arguments, "--seed", "9223372036854775807"]) == 0
