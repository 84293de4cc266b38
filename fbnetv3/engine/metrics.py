"""Reading metrics.json, which has one JSON object per line, as detectron2 writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3.errors import FBNetError
from fbnetv3.io import atomic_write, read_text

if TYPE_CHECKING:
    from detectron2.utils.events import EventStorage

# Prefixes of scores; detectron2's models also record numbers like roi_head/num_fg_samples
_SCORES = ("val/", "bbox/")
_MAX_ITERATION = 2**63  # limit of whole numbers in a row
_WINDOW = 20  # number of iterations whose median detectron2's writers write
_TIMES = ("time", "data_time")  # seconds, which differ from run to run


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics file: ``iteration``, an int, and other numbers by name.

    Lines that are not such rows (a kill may cut one short) and values that are not numbers are
    skipped. A missing file has no rows.

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
        if isinstance(row, dict) and _is_iteration(row.get("iteration")):
            rows.append({name: value for name, value in row.items() if _is_number(value)})
    return rows


def _is_iteration(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_ITERATION


def _is_number(value: Any) -> bool:
    # json allows an int of 400 digits, which is too large for a float
    return type(value) is float or (type(value) is int and abs(value) < _MAX_ITERATION)


def drop_from(path: Path, iteration: int) -> None:
    """Removes the rows from ``iteration`` on; a run that is resumed there writes them again.

    Raises:
        FBNetError: The file cannot be read or written.
    """
    if not path.exists():
        return
    kept = [row for row in read_metrics(path) if row["iteration"] < iteration]
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in kept))


def last_scores(path: Path) -> dict[str, float]:
    """Returns the scores of the last evaluation, such as ``val/top1``; empty if there was none.

    Raises:
        FBNetError: The file cannot be read, or is a pipe or device.
    """
    for row in reversed(read_metrics(path)):
        scores = {key: value for key, value in row.items() if key.startswith(_SCORES)}
        if scores:
            return scores
    return {}


def recent_values(storage: EventStorage) -> dict[str, list[list[float]]]:
    """Returns the latest values, from which a resumed run computes medians in metrics.json.

    Args:
        storage: Event storage of a training.

    Returns:
        The last pairs [value, iteration] of each smoothed number, by name, except for times.
    """
    return {
        name: [[float(value), int(iteration)] for value, iteration in history.values()[-_WINDOW:]]
        for name, history in sorted(storage.histories().items())
        if storage.smoothing_hints()[name] and name not in _TIMES
    }


def restore_values(storage: EventStorage, recent: Mapping[str, list[list[float]]]) -> None:
    """Puts values of :func:`recent_values` back, so that a resumed run writes the same medians.

    Args:
        storage: Event storage of the resumed training, before its first step.
        recent: The values.
    """
    for name, values in recent.items():
        for value, iteration in values:
            storage.histories()[name].update(value, iteration)
