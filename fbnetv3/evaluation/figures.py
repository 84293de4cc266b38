"""Pictures of an evaluation: confusion matrix, reliability diagram, precision-recall curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3.evaluation.calibration import Calibration
from fbnetv3.io import atomic_write
from fbnetv3.requires import require

# Largest numbers of classes for which a confusion matrix shows counts and class names
_WITH_COUNTS, _WITH_NAMES = 25, 60
# Largest numbers of characters shown of a class name, and of the name of a data set
_MAX_NAME, _MAX_SOURCE = 24, 48
_MAX_CURVES = 10  # largest number of classes in the picture of precision-recall curves


def _figure(width: float, height: float) -> Any:
    # Matplotlib's object interface: pyplot has global state and may open a window.
    backend = require("matplotlib.backends.backend_agg", "report")
    figure = require("matplotlib.figure", "report").Figure((width, height), layout="constrained")
    backend.FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _short(name: str) -> str:
    # matplotlib would read a text between dollar signs as a formula
    text = name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 2]}.."
    return text.replace("$", r"\$")


def _titled(source: str, text: str) -> str:
    """Returns a title with the name of a data set; a long name is cut at its beginning."""
    if not source:
        return text
    name = source if len(source) <= _MAX_SOURCE else f"..{source[-_MAX_SOURCE:]}"
    return f"{name}:\n{text}".replace("$", r"\$")


def draw_confusion(
    matrix: npt.NDArray[np.int64], classes: Sequence[str], path: Path, source: str = ""
) -> None:
    """Draws a confusion matrix: the colour of a cell is its share of the images of its true class.

    With at most 25 classes, each cell also has its number of images, unless this is 0.

    Args:
        matrix: (classes, classes) number of images of each true class (rows) with each prediction.
        classes: Names of the classes. With more than 60, the axes have numbers instead of names.
        path: PNG to write.
        source: Name of the data set, for the title.
    """
    count = len(classes)
    totals = matrix.sum(1, keepdims=True)
    shares = 100 * matrix / np.maximum(totals, 1)
    side = min(16.0, max(4.5, 2.4 + 0.5 * count))
    figure = _figure(side + 1, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    figure.colorbar(image, label="share of the true class (%)", shrink=0.8)
    if count <= _WITH_NAMES:
        names = [_short(name) for name in classes]
        size = 9 if count <= _WITH_COUNTS else 7
        axes.set_xticks(range(count), names, rotation=45, ha="right", fontsize=size)
        axes.set_yticks(range(count), names, fontsize=size)
        axes.set(xlabel="predicted class", ylabel="true class")
    else:
        axes.set(
            xlabel="predicted class (its number, from 0)", ylabel="true class (its number, from 0)"
        )
    if count <= _WITH_COUNTS:
        _write_counts(axes, matrix, shares)
    right, images = int(np.trace(matrix)), int(matrix.sum())
    axes.set_title(
        _titled(source, f"{images} images, {100 * right / max(1, images):.2f}% on the diagonal"),
        fontsize=11,
    )
    _save(figure, path)


def _write_counts(axes: Any, matrix: npt.NDArray[np.int64], shares: npt.NDArray[Any]) -> None:
    largest = len(str(int(matrix.max(initial=0))))
    for (row, column), number in np.ndenumerate(matrix):
        if number:
            colour = "white" if shares[row, column] > 55 else "black"
            axes.text(
                column, row, str(number), ha="center", va="center", color=colour,
                fontsize=max(5, 10 - largest),
            )  # fmt: skip


def draw_reliability(
    calibration: Calibration, path: Path, what: str = "accuracy", source: str = ""
) -> None:
    """Draws the accuracy of each bin of confidence, and below it the bin's number of predictions.

    Args:
        calibration: Confidence and accuracy by bin.
        path: PNG to write.
        what: Label of the accuracy.
        source: Name of the data set, for the title.
    """
    figure = _figure(5.6, 6.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = 100 * calibration.edges
    is_filled = calibration.counts > 0
    left, widths = edges[:-1][is_filled], np.diff(edges)[is_filled]
    style = {"align": "edge", "edgecolor": "white", "linewidth": 0.8}
    accuracy = 100 * calibration.accuracy[is_filled]
    upper.bar(left, accuracy, widths, color="tab:blue", label=what, **style)
    upper.plot(
        100 * calibration.confidence[is_filled], accuracy, "o", color="black", markersize=3.5,
        label="mean confidence of the bin", clip_on=False, zorder=3,
    )  # fmt: skip
    upper.plot(
        [0, 100], [0, 100], "--", color="tab:red", linewidth=1.2, label="perfect calibration"
    )
    upper.set(xlim=(0, 100), ylim=(0, 100), ylabel=f"{what} (%)")
    errors = (
        f"expected calibration error {100 * calibration.expected_error:.2f}%, "
        f"largest {100 * calibration.maximum_error:.2f}%"
    )
    figure.suptitle(_titled(source, errors), fontsize=11)
    # the legend is above the axes, where it covers no bar
    upper.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9)
    upper.grid(alpha=0.3)
    lower.bar(left, calibration.counts[is_filled], widths, color="tab:gray", **style)
    lower.set(xlabel="confidence (%)", ylabel="predictions")
    lower.grid(alpha=0.3)
    _save(figure, path)


def draw_precision_recall(
    curves: Mapping[str, npt.NDArray[np.float64]],
    recalls: npt.NDArray[np.float64],
    path: Path,
    source: str = "",
) -> None:
    """Draws the precision of classes over their recall, at an IoU of 0.5.

    Above 10 classes, the five with the highest and the five with the lowest average precision are
    drawn.

    Args:
        curves: (recalls,) precision, from 0 to 1, by the name of the class.
        recalls: (recalls,) recall, from 0 to 1.
        path: PNG to write.
        source: Name of the data set, for the title.
    """
    ranked = sorted(curves, key=lambda name: -float(curves[name].mean()))
    half = _MAX_CURVES // 2
    shown = ranked if len(ranked) <= _MAX_CURVES else [*ranked[:half], *ranked[-half:]]
    figure = _figure(6.4, 5.2)
    axes = figure.subplots()
    for name in shown:
        average = 100 * float(curves[name].mean())
        axes.plot(100 * recalls, 100 * curves[name], label=f"{_short(name)}: AP50 {average:.1f}")
    axes.set(xlim=(0, 100), ylim=(0, 102), xlabel="recall (%)", ylabel="precision (%)")
    some = "" if len(shown) == len(ranked) else f" (best and worst {half} of {len(ranked)} classes)"
    axes.set_title(_titled(source, f"boxes with an IoU of at least 0.5{some}"), fontsize=11)
    axes.legend(loc="best", framealpha=0.7, edgecolor="none")
    axes.grid(alpha=0.3)
    _save(figure, path)
