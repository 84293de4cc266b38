"""Writes a csv with the duration of each training of a search.

    python -m projects.cifar10_jointnas.times output/cifar10_jointnas/joint

The columns are id, macs, epochs and seconds. A duration is the time between the modifications of
the first file of a training in ``candidates/`` and of its result. The duration of a resumed
training begins with the resumption. Trainings whose results were copied from another search are
left out.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

from fbnetv3.io import atomic_write
from fbnetv3.search.storage.batch_log import BatchLog

HERE = Path(__file__).parent
Row = tuple[str, int, int, float]


def times(run: Path) -> Iterator[Row]:
    """Yields id, MACs, epochs and seconds of each finished training."""
    for trial in BatchLog(run / "log").read().trials:
        folder = run / "candidates" / trial.id
        begin, end = folder / "arch.yaml", folder / "result.json"
        if trial.state == "complete" and begin.exists() and end.exists():
            seconds = end.stat().st_mtime - begin.stat().st_mtime
            yield trial.id, round(trial.statistics["macs"]), max(trial.reports), seconds


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the search")
    parser.add_argument("--csv", type=Path, default=HERE / "times.csv", help="file to write")
    args = parser.parse_args()
    rows = list(times(args.run))
    with atomic_write(args.csv) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "macs", "epochs", "seconds"))
        writer.writerows((*row[:3], f"{row[3]:.1f}") for row in rows)


if __name__ == "__main__":
    main()
