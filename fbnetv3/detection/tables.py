"""The table of average precisions by class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tabulate import tabulate

from fbnetv3.io import atomic_write


def class_table(per_class: Mapping[str, Mapping[str, tuple[float, float]]]) -> str:
    """Returns a text table with AP and AP50 of each class, for each kind of weights.

    Args:
        per_class: Mapping from the kind of weights, ``raw`` or ``ema``, to a mapping from class to
            (AP, AP50) in percent.
    """
    if not any(per_class.values()):
        return "no class has a box to score"
    names = list(dict.fromkeys(name for scores in per_class.values() for name in scores))
    missing = (float("nan"), float("nan"))
    rows = [
        [name, *(v for s in per_class.values() for v in s.get(name, missing))] for name in names
    ]
    headers = ["class", *(f"{kind} {score}" for kind in per_class for score in ("AP", "AP50"))]
    return tabulate(rows, headers, floatfmt=".1f", disable_numparse=[0])


def write_class_table(
    path: Path, per_class: Mapping[str, Mapping[str, tuple[float, float]]]
) -> None:
    """Writes :func:`class_table` to a file.

    Raises:
        WriteError: The file cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(class_table(per_class) + "\n", encoding="utf-8")
