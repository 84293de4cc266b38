"""A picture of accuracies against multiply-adds and latencies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fbnetv3.io import atomic_write
from fbnetv3.requires import require
from fbnetv3.weights.errors import RecordError
from fbnetv3.zoo.points import Point

SUFFIXES = (".png", ".svg", ".pdf")
# Marker and colour of each group of points; other groups have those of _OTHER.
_STYLES = {
    "zoo, quoted": ("o", "#2463c9"),
    "zoo, measured": ("s", "#128251"),
    "peers, quoted": ("^", "#8a94a3"),
    "runs": ("*", "#d9730d"),
}
_OTHER = ("D", "#911eb4")
# Places of a name beside its point: offset in typographic points, and alignment of the text there
_PLACES = (((8, 5), "left"), ((-8, 5), "right"), ((8, -6), "left"), ((-8, -6), "right"))
_FONT = 11  # size in typographic points: readable when the picture is shown at half size


def draw_points(points: Sequence[Point], path: Path, dataset: str) -> None:
    """Draws top-1 accuracies against multiply-adds, and against latencies if there are any.

    Args:
        points: Networks.
        path: File to write: png, svg or pdf.
        dataset: Name of the data set of the accuracies.

    Raises:
        RecordError: There is no network, or the file has another suffix.
        WriteError: The file cannot be written.
        MissingPackageError: matplotlib is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise RecordError(
            f"{path}: not a format of pictures; allowed: a file that ends in {', '.join(SUFFIXES)}"
        )
    if not points:
        raise RecordError(f"no network has an accuracy on {dataset}; give RUN_DIR, or --csv FILE")
    timed = [point for point in points if point.latency_ms is not None]
    backend = require("matplotlib.backends.backend_agg", "report")
    figures = require("matplotlib.figure", "report")
    figure = figures.Figure((9, 6.5) if not timed else (16, 6.5), layout="constrained")
    backend.FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2 if timed else 1, squeeze=False)[0]
    _panel(panels[0], points, [p.macs / 1e6 for p in points], "multiply-adds (millions)", dataset)
    if timed:
        times = [float(p.latency_ms or 0) for p in timed]
        _panel(panels[1], timed, times, "latency of one image (ms)", dataset)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=150)


def _panel(axes: Any, points: Sequence[Point], costs: list[float], label: str, data: str) -> None:
    for group in dict.fromkeys(point.group for point in points):
        marker, colour = _STYLES.get(group, _OTHER)
        members = [
            (cost, p.top1) for p, cost in zip(points, costs, strict=True) if p.group == group
        ]
        xs, ys = zip(*members, strict=True)
        axes.scatter(xs, ys, s=52, marker=marker, color=colour, label=group, zorder=3)
    axes.set_xscale("log")
    axes.set_xlabel(label, fontsize=_FONT + 1)
    axes.set_ylabel(f"top-1 accuracy on {data} (%)", fontsize=_FONT + 1)
    axes.tick_params(which="both", labelsize=_FONT)
    axes.xaxis.set_major_formatter(require("matplotlib.ticker", "report").FuncFormatter(_number))
    axes.grid(alpha=0.3, which="both")
    axes.margins(0.09, 0.08)
    axes.legend(fontsize=_FONT, loc="lower right")
    _draw_names(axes, points, costs)


def _number(value: float, position: int) -> str:
    del position
    return f"{value:g}"


def _draw_names(axes: Any, points: Sequence[Point], costs: list[float]) -> None:
    """Writes each name beside its point, inside the left and right edges of the panel.

    A name covers no other point and no other name. The points of the group ``runs`` get their names
    first, then the others in order of falling accuracy. A name for which there is no room is left
    out.
    """
    canvas = axes.figure.canvas
    canvas.draw()
    marks = axes.transData.transform([(c, p.top1) for c, p in zip(costs, points, strict=True)])
    taken = [_around(axes, x, y) for x, y in marks]
    order = sorted(range(len(points)), key=lambda i: (points[i].group != "runs", -points[i].top1))
    for i in order:
        for offset, side in _PLACES:
            text = axes.annotate(
                _label(points[i]),
                (costs[i], points[i].top1),
                xytext=offset,
                textcoords="offset points",
                fontsize=_FONT - 2,
                ha=side,
                va="center",
            )
            box = text.get_window_extent(canvas.get_renderer())
            others = taken[:i] + taken[i + 1 :]
            is_inside = axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1
            if is_inside and not any(box.overlaps(other) for other in others):
                taken.append(box)
                break
            text.remove()


def _around(axes: Any, x: float, y: float) -> Any:
    """Returns the box of a mark in pixels."""
    half = 4 * axes.figure.dpi / 72
    return require("matplotlib.transforms", "report").Bbox(
        [(x - half, y - half), (x + half, y + half)]
    )


def _label(point: Point) -> str:
    name = point.name.removesuffix(".fb_in1k")  # tag of the published weights of FBNets
    return name.replace("$", r"\$")  # matplotlib sets text between two "$" as a formula
