"""Writes the scores of a search's trainings after each epoch, raw and averaged weights.

    python -m projects.cifar10_jointnas.curves output/cifar10_jointnas/joint

A row of id, batch, epoch, top1, top1_ema for each; from the records in ``candidates/``, which only
the machine of the search has: the log keeps the averaged weights' scores alone.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

from fbnetv3.engine.metrics import read_metrics
from fbnetv3.io import atomic_write
from fbnetv3.search.batch_log import BatchLog

HERE = Path(__file__).parent
COLUMNS = ("id", "batch", "epoch", "top1", "top1_ema")
Row = tuple[str, int, int, float, float]


def curves(run: Path) -> Iterator[Row]:
    """Yields the rows, trial by trial."""
    for trial in BatchLog(run / "log").read().trials:
        metrics = read_metrics(run / "candidates" / trial.id / "metrics.json")
        scores = [row for row in metrics if "val/top1_ema" in row]
        if trial.state != "complete" or not scores:
            continue
        for epoch, row in zip(sorted(trial.reports), scores, strict=True):
            yield trial.id, trial.batch, epoch, row["val/top1"], row["val/top1_ema"]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the search")
    parser.add_argument("--csv", type=Path, default=HERE / "curves.csv")
    args = parser.parse_args()
    with atomic_write(args.csv) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*row[:3], f"{row[3]:.2f}", f"{row[4]:.2f}") for row in curves(args.run))


if __name__ == "__main__":
    main()
