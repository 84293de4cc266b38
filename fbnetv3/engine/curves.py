"""A plot of a training: loss, learning rate, scores of the raw and the averaged weights."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3.engine.metrics import read_metrics
from fbnetv3.io import atomic_write
from fbnetv3.requires import BrokenPackageError, MissingPackageError, require

if TYPE_CHECKING:  # matplotlib is optional
    from matplotlib.figure import Figure

_log = logging.getLogger("fbnetv3")

# Score -> label of its axis; the first of these scores that the metrics contain is drawn
_SCORES = {"val/top1": "top-1 (%)", "val/mAP": "mAP (%)", "bbox/AP": "box AP (%)"}
# Loss in the metrics -> name of its curve
_LOSSES = {
    "total_loss": "training",
    "loss": "training",
    "val/loss": "validation",
    "val/loss_ema": "validation, EMA",
}


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning(message)


def _series(rows: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    points = [(row["iteration"] + 1, row[key]) for row in rows if key in row]
    return [x for x, _ in points], [y for _, y in points]


def _draw(axes: Any, rows: list[dict[str, Any]], keys: dict[str, str], label: str) -> None:
    for key, name in keys.items():
        x, y = _series(rows, key)
        if x:
            # a few points, such as those of evaluations, are marked
            axes.plot(x, y, label=name, marker="." if len(x) < 100 else None, linewidth=1.2)
    axes.set(xlabel="iteration (steps of the optimizer)", ylabel=label)
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    if len(axes.lines) > 1:  # above the axes, where it covers no curve
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=len(axes.lines), frameon=False,
            fontsize=9.5, handlelength=1, columnspacing=0.8, handletextpad=0.4, borderpad=0,
        )  # fmt: skip


def _title(metrics: Path, rows: list[dict[str, Any]]) -> str:
    """Returns the title: run folder, metrics file and number of iterations so far."""
    # matplotlib would read a text between dollar signs as a formula
    folder = metrics.parent.resolve().name[-60:].replace("$", r"\$")
    steps = max((row["iteration"] + 1 for row in rows), default=0)
    return f"{folder}/{metrics.name}: training up to iteration {steps}"


def plot_curves(metrics: Path, picture: Path) -> None:
    """Plots a metrics file as a PNG; without matplotlib, only logs a warning, once.

    Args:
        metrics: The ``metrics.json`` of a run.
        picture: The PNG file to write.

    Raises:
        FBNetError: The metrics cannot be read, or the PNG cannot be written.
    """
    try:
        # Matplotlib's object interface: pyplot has global state and may open a window.
        backend = require("matplotlib.backends.backend_agg", "report")
        figures = require("matplotlib.figure", "report")
    except (MissingPackageError, BrokenPackageError) as error:
        _warn_once(f"no curves are drawn: {error}")
        return
    rows = read_metrics(metrics)
    figure = figures.Figure(figsize=(10.5, 3.9), layout="constrained")
    backend.FigureCanvasAgg(figure)
    draw_curves(figure, rows, _title(metrics, rows))
    with atomic_write(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=160)


def draw_curves(figure: Figure, rows: list[dict[str, Any]], title: str) -> None:
    """Draws losses, learning rate and scores side by side.

    Args:
        figure: Empty figure of Matplotlib.
        rows: Rows of a metrics file.
        title: Title of the figure.
    """
    score = next((key for key in _SCORES if any(key in row for row in rows)), "val/top1")
    weights = {score: "raw weights", f"{score}_ema": "EMA weights"}
    loss, lr, scores = figure.subplots(1, 3)
    _draw(loss, rows, _LOSSES, "loss")
    _draw(lr, rows, {"lr": "lr"}, "learning rate")
    _draw(scores, rows, weights, f"validation {_SCORES[score]}")
    figure.suptitle(title, fontsize=11)
