"""metrics.json: incomplete lines, removal of rows to be written again, the last scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fbnetv3.engine.metrics import drop_from, last_scores, read_metrics

ROWS = [
    {"iteration": 1, "loss": 2.0},
    {"iteration": 3, "loss": 1.0, "val/top1": 50.0, "val/top1_ema": 40.0},
    {"iteration": 5, "val/top1": 60.0},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_reading(path: Path) -> None:
    assert read_metrics(path) == ROWS


def test_a_missing_file(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "no") == []
    assert last_scores(tmp_path / "no") == {}
    drop_from(tmp_path / "no", 0)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "torn",
    [
        '{"iteration": 7, "lo',
        '{"iteration": 7',
        "{",
        "\x00\x00",
        "[" * 10_000,
        *(f'{{"iteration": {x}, "loss": 1.0}}' for x in ('"x"', "null", "[]", "-1", "1.5", "true")),
        f'{{"iteration": 1{"0" * 400}}}',
        '{"loss": 1.0}',
        "7",
        "[]",
    ],
    ids=lambda torn: torn[:40],
)
def test_an_incomplete_line_is_skipped_and_removed(path: Path, torn: str) -> None:
    with path.open("a") as file:
        file.write(torn)
    assert read_metrics(path) == ROWS
    drop_from(path, 7)
    assert path.read_text().endswith("}\n")
    assert read_metrics(path) == ROWS


def test_bytes_that_are_not_text(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\xff\xfe\x00")
    assert read_metrics(path) == ROWS


@pytest.mark.parametrize(("iteration", "kept"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (9, 3)])
def test_removing_rows(path: Path, iteration: int, kept: int) -> None:
    drop_from(path, iteration)
    assert read_metrics(path) == ROWS[:kept]


def test_the_scores_of_the_last_evaluation(path: Path) -> None:
    assert last_scores(path) == {"val/top1": 60.0}  # no top1_ema of an earlier evaluation beside it
    with path.open("a") as file:
        file.write('{"iteration": 7, "loss": 1.0}\n')
    assert last_scores(path) == {"val/top1": 60.0}


@pytest.mark.parametrize("value", ['"x"', "null", "true", "[1]", "{}", "1" + "0" * 400])
def test_values_that_are_no_numbers_are_skipped(tmp_path: Path, value: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(f'{{"iteration": 1, "val/top1": {value}, "loss": 2}}\n')
    assert read_metrics(path) == [{"iteration": 1, "loss": 2}]
    assert last_scores(path) == {}


def test_non_finite_numbers(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 1, "loss": NaN}\n')
    assert read_metrics(path)[0]["loss"] != read_metrics(path)[0]["loss"]
