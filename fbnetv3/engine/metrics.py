"""Reading metrics.json, which has one JSON object per line, as detectron2 writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fbnetv3.errors import FBNetError
from fbnetv3.io import atomic_write, read_text

# Prefixes of scores; detectron2's models also record numbers like roi_head/num_fg_samples
_SCORES = ("val/", "bbox/")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics file; a line that a kill cut short is skipped.

    Raises:
        FBNetError: The file cannot be read, or is a pipe or device.
    """
    if not path.exists():
        return []
    try:
        text = read_text(path, "metrics", errors="replace")
    except OSError as error:
        raise FBNetError(f"cannot read {path}: {error.strerror or error}; remove it") from error
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def drop_from(path: Path, iteration: int) -> None:
    """Removes the rows of ``iteration`` and later ones; a resumed run writes them again."""
    if not path.exists():
        return
    kept = [row for row in read_metrics(path) if row.get("iteration", 0) < iteration]
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in kept))


def last_scores(path: Path) -> dict[str, float]:
    """Returns the last value of each score, such as ``val/top1`` or ``bbox/AP``."""
    scores: dict[str, float] = {}
    for row in read_metrics(path):
        scores |= {key: value for key, value in row.items() if key.startswith(_SCORES)}
    return scores
