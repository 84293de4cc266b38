"""Prints the table of README.md, from the folders of the full trainings.

python -m projects.bccd_search.table output/bccd_search
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

ARMS = {
    "winner": "winner of the search, from random weights",
    "hand_made": "hand-made config, from random weights",
    "pretrained": "hand-made config as it is, from CIFAR-10 weights",
}
"""Description of each arm of the comparison, by the name of its folders without ``_seedN``."""


def read_scores(folder: Path, arm: str) -> list[tuple[float, float]]:
    """Returns (val AP, test AP) of the averaged weights of each finished seed, in percent."""
    scores = []
    for path in sorted(folder.glob(f"{arm}_seed*")):
        if (path / "test.json").is_file():
            rows = map(json.loads, (path / "metrics.json").read_text().splitlines())
            val = [row["bbox/AP_ema"] for row in rows if "bbox/AP_ema" in row]
            test: dict[str, Any] = json.loads((path / "test.json").read_text())
            scores.append((val[-1], test.get("bbox/AP_ema", test["bbox/AP"])))
    return scores


def difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Returns the difference of two means, and its 95 % interval by Welch's t-test.

    Args:
        first: Scores of the first arm, at least two.
        second: Scores of the second arm, at least two.
    """
    gap = float(np.mean(first) - np.mean(second))
    parts = [float(np.var(values, ddof=1)) / len(values) for values in (first, second)]
    if not sum(parts):
        return gap, gap, gap
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True)
    )
    width = float(student.ppf(0.975, freedom)) * math.sqrt(sum(parts))
    return gap, gap - width, gap + width


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a row for each arm, and the differences between the winner and the other arms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the full trainings")
    folder = parser.parse_args(argv).folder
    scores = {arm: read_scores(folder, arm) for arm in ARMS}
    print("| | seeds | val AP | test AP | mean of test AP |\n|---|---|---|---|---|")
    for arm, pairs in scores.items():
        val, test = (", ".join(f"{pair[i]:.1f}" for pair in pairs) for i in (0, 1))
        mean = f"{np.mean([pair[1] for pair in pairs]):.1f}" if pairs else "-"
        print(f"| {ARMS[arm]} | {len(pairs)} | {val} | {test} | {mean} |")
    for other, part in itertools.product(("hand_made", "pretrained"), (0, 1)):
        first, second = ([pair[part] for pair in scores[arm]] for arm in ("winner", other))
        if min(len(first), len(second)) > 1:
            gap, low, high = difference(first, second)
            name = ("val", "test")[part]
            print(f"winner - {other}, {name} AP: {gap:+.1f} ({low:+.1f} to {high:+.1f})")


if __name__ == "__main__":
    main()
