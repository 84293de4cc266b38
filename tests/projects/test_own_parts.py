"""The example of a network and data of one's own resumes bit for bit."""

from __future__ import annotations

from pathlib import Path

from projects.own_parts import example
from tests.runs import assert_same_run


def test_the_example_resumes_bit_for_bit(tmp_path: Path, capsys) -> None:
    example.main(tmp_path)
    printed = capsys.readouterr().out
    assert printed.endswith("the weights are the same: True\n")
    assert float(printed.split("top-1 ")[1].split("%")[0]) > 90
    assert_same_run(tmp_path / "whole", tmp_path / "interrupted")
    assert (tmp_path / "whole" / "metrics.csv").stat().st_size > 500
