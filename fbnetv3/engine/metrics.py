"""metrics.json: one JSON object per line, as detectron2 writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fbnetv3.io import atomic_write

# detectron2's models record things like roi_head/num_fg_samples too
_SCORES = ("val/", "bbox/")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a metrics file; one that was torn by a kill is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def drop_from(path: Path, iteration: int) -> None:
    """Drops what was written for ``iteration`` and later: a resumed run writes it again."""
    if not path.exists():
        return
    kept = [row for row in read_metrics(path) if row.get("iteration", 0) < iteration]
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in kept))


def last_scores(path: Path) -> dict[str, float]:
    """Returns the latest value of each score (``val/top1``, ``bbox/AP`` and the like)."""
    scores: dict[str, float] = {}
    for row in read_metrics(path):
        scores |= {key: value for key, value in row.items() if key.startswith(_SCORES)}
    return scores
