"""Tables and scores of an evaluation, as csv and json."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fbnetv3.io import atomic_write


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a csv. Floats have six decimals; NaN is an empty cell.

    Raises:
        WriteError: The file cannot be written.
    """
    with (
        atomic_write(path) as temporary,
        # names of files may have bytes that are not UTF-8
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6f}"


def write_scores(path: Path, scores: object) -> None:
    """Writes scores as json.

    Raises:
        WriteError: The file cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
