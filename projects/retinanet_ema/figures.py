"""Draws AP of raw and averaged weights over training, and prints the final scores.

    python -m projects.retinanet_ema.figures output/retinanet_ema/bccd_seed* \\
        --name projects/retinanet_ema/bccd

The command writes NAME.csv with one row per evaluation of a run, and NAME.png with AP, AP50 and the
difference in AP between averaged and raw weights. Thin lines are single runs, thick lines are means
of the runs. Rows of other runs that are already in NAME.csv are kept.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from fbnetv3.engine.metrics import read_metrics
from fbnetv3.io import atomic_write

_SCORES = ("bbox/AP", "bbox/AP50")
_COLUMNS = ("run", "iteration", "lr", *(f"{s}{e}" for s in _SCORES for e in ("", "_ema")))
_COLOURS = {"": "tab:orange", "_ema": "tab:blue"}
_LABELS = {"": "raw weights", "_ema": "EMA weights"}

Row = dict[str, Any]


def evaluations(folders: Sequence[Path]) -> list[Row]:
    """Returns a row for each evaluation of each run; iterations are counted from 1."""
    rows = []
    for folder in folders:
        for row in read_metrics(folder / "metrics.json"):
            if "bbox/AP" in row:
                kept = {key: row[key] for key in _COLUMNS if key in row}
                rows.append(kept | {"run": folder.name, "iteration": row["iteration"] + 1})
    return rows


def read_csv(path: Path) -> list[Row]:
    """Returns the rows of an earlier call, or an empty list if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {k: v if k == "run" else int(v) if k == "iteration" else float(v) for k, v in row.items()}
        for row in rows
    ]


def write_csv(rows: list[Row], path: Path) -> None:
    """Writes the rows, with scores rounded to hundredths."""
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            rounded = {k: f"{v:.2f}" for k, v in row.items() if k.startswith("bbox/")}
            writer.writerow({**row, **rounded, "lr": f"{row['lr']:.4g}"})


def series(rows: list[Row], run: str, key: str) -> tuple[list[int], list[float]]:
    """Returns the iterations of a run's evaluations, and a score at each of them."""
    of_run = [row for row in rows if row["run"] == run]
    return [row["iteration"] for row in of_run], [row[key] for row in of_run]


def common_mean(rows: list[Row], key: str) -> tuple[list[int], list[float]]:
    """Returns the iterations that all runs have, and the mean of a score at each of them."""
    runs = list(dict.fromkeys(row["run"] for row in rows))
    by_run = [dict(zip(*series(rows, run, key), strict=True)) for run in runs]
    shared = sorted(set.intersection(*(set(values) for values in by_run)))
    return shared, [statistics.fmean(values[i] for values in by_run) for i in shared]


def draw(rows: list[Row], picture: Path) -> None:
    """Writes a PNG with three panels: AP, AP50, and AP of averaged above raw weights."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    runs = list(dict.fromkeys(row["run"] for row in rows))
    for axes, score in zip(panels, _SCORES, strict=False):
        for kind, colour in _COLOURS.items():
            for run in runs:
                axes.plot(*series(rows, run, score + kind), color=colour, alpha=0.3, linewidth=0.8)
            mean = common_mean(rows, score + kind)
            axes.plot(*mean, color=colour, marker=".", label=_LABELS[kind])
        axes.set(xlabel="iteration", ylabel=score.removeprefix("bbox/"))
        axes.legend(frameon=False, loc="lower right")
    gains = [{**row, "gain": row["bbox/AP_ema"] - row["bbox/AP"]} for row in rows]
    for run in runs:
        panels[2].plot(*series(gains, run, "gain"), color="gray", alpha=0.4, linewidth=0.8)
    panels[2].plot(*common_mean(gains, "gain"), color="black", marker=".")
    panels[2].axhline(0, color="gray", linewidth=0.8)
    panels[2].set(xlabel="iteration", ylabel="AP of EMA above raw")
    for axes in panels:
        axes.grid(alpha=0.3)
    with atomic_write(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def last_table(rows: list[Row]) -> str:
    """Returns a markdown table of the last scores of each run, and of their means."""
    runs = list(dict.fromkeys(row["run"] for row in rows))
    last = [[row for row in rows if row["run"] == run][-1] for run in runs]
    keys = [key for key in _COLUMNS if key.startswith("bbox/")]
    table = [[row["run"], row["iteration"], *(row[key] for key in keys)] for row in last]
    means = [statistics.fmean(row[key] for row in last) for key in keys]
    table.append(["mean", "", *means])
    names = [key.removeprefix("bbox/").replace("_ema", " EMA") for key in keys]
    return tabulate(table, ["run", "iteration", *names], tablefmt="github", floatfmt=".1f")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the files and prints the table of final scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs with metrics.json")
    parser.add_argument(
        "--name", required=True, type=Path, help="path of the .csv and .png files without suffix"
    )
    args = parser.parse_args(argv)
    new_rows = evaluations(args.folders)
    if not new_rows:
        parser.error("the runs have no evaluation yet")
    # The name may contain a dot (bccd_lr0.12), which with_suffix would treat as a suffix.
    table = Path(f"{args.name}.csv")
    replaced = {row["run"] for row in new_rows}
    kept = [row for row in read_csv(table) if row["run"] not in replaced]
    rows = sorted([*kept, *new_rows], key=lambda row: (row["run"], row["iteration"]))
    write_csv(rows, table)
    draw(rows, Path(f"{args.name}.png"))
    print(last_table(rows))


if __name__ == "__main__":
    main()
