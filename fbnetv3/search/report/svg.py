"""Small charts as inline SVG, coloured by the page's style sheet, with tooltips on marks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from fbnetv3.requires import require

Numbers = Sequence[float]
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 24
"""Margins around the axes in pixels, with room for the numbers at ticks."""
_LABEL = 20
"""Height of the label of the horizontal axis in pixels."""
_TICKS = 6
"""Approximate number of ticks of an axis."""


def short(value: float) -> str:
    """Returns a number with up to four significant digits, and with k, M or G from 10,000 on."""
    if not math.isfinite(value):
        return str(value)
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(size, 1e4) * 0.99995:  # or rounds to the limit in four digits
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def label(statistic: str) -> str:
    """Returns the name of a statistic as it is written on the page."""
    labels = {"macs": "MACs", "params": "parameters", "latency_ms": "latency (ms)"}
    return labels.get(statistic, statistic)


@dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    Attributes:
        label: Name of the quantity, with its unit.
        low: Lower end.
        high: Upper end, above ``low``.
        log: Whether the axis is logarithmic, which needs ``low > 0``.
        names: Labels of the positions 0, 1, ...; empty for a numeric axis.
        numbers: Function that formats the numbers at ticks.
    """

    label: str
    low: float
    high: float
    log: bool = False
    names: tuple[str, ...] = ()
    numbers: Callable[[float], str] = short

    @classmethod
    def around(cls, label: str, values: Numbers, *, log: bool = False, pad: float = 0.05) -> Axis:
        """Returns an axis that includes all finite values, with some margin at both ends.

        Args:
            label: Name of the quantity, with its unit.
            values: Values to include; a logarithmic axis ignores those that are not positive.
            log: Whether the axis is logarithmic.
            pad: Margin at each end, as a share of the range.
        """
        valid = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
        low, high = (min(valid), max(valid)) if valid else (1.0, 2.0)
        if log:
            room = max(math.log(high / low) * pad, 1e-3)
            return cls(label, low * math.exp(-room), high * math.exp(room), log=True)
        room = (high - low) * pad or max(abs(high) * pad, 1e-3)
        return cls(label, low - room, high + room)

    @classmethod
    def of_names(cls, label: str, names: Sequence[str]) -> Axis:
        """Returns an axis with one label at each of the positions 0, 1, ..."""
        return cls(label, -0.5, len(names) - 0.5, names=tuple(names))

    def share(self, value: float) -> float:
        """Returns the position of a value: 0 at the lower end, 1 at the higher one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, count: int = _TICKS) -> list[tuple[float, str]]:
        """Returns about ``count`` round values between the ends, or all positions with a label.

        Returns:
            Pairs of a value and its text.
        """
        if self.names:
            return [(float(i), name) for i, name in enumerate(self.names)]
        values = self._log_values(count) if self.log else self._linear_values(count)
        return [(v, self.numbers(v)) for v in values if self.low <= v <= self.high]

    def _linear_values(self, count: int) -> list[float]:
        ticker = require("matplotlib.ticker", "report")
        locator = ticker.MaxNLocator(count, steps=[1, 2, 2.5, 5, 10])
        values = locator.tick_values(self.low, self.high)
        return [0.0 if abs(v) < 1e-9 * (self.high - self.low) else float(v) for v in values]

    def _log_values(self, count: int) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5)):
            values = [f * 10.0**d for d in decades for f in factors]
            inside = [v for v in values if self.low <= v <= self.high]
            if len(inside) >= 3:
                return inside[:: -(-len(inside) // count)]  # step rounded up: at most count
        return self._linear_values(count)


class Chart:
    """A chart with marks in the coordinates of two axes.

    Points of :meth:`dots` and :meth:`line` that are not finite are left out.

    The ``kind`` of a mark is the CSS class that colours it.

    Args:
        title: Description of the chart for screen readers.
        x: Horizontal axis.
        y: Vertical axis.
        width: Width of the drawing in pixels.
        height: Height of the drawing in pixels.
    """

    def __init__(
        self, title: str, x: Axis, y: Axis, *, width: int = 520, height: int = 320
    ) -> None:
        self._title, self._x, self._y = title, x, y
        self._width, self._height = width, height
        self._marks: list[str] = []
        self._bottom = _BOTTOM + (_LABEL if x.label else 0)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        across = self._width - _LEFT - _RIGHT
        down = self._height - _TOP - self._bottom
        return _LEFT + across * self._x.share(x), _TOP + down * (1 - self._y.share(y))

    def _points(self, xs: Numbers, ys: Numbers) -> list[tuple[float, float]]:
        return [
            self._at(x, y)
            for x, y in zip(xs, ys, strict=True)
            if math.isfinite(x) and math.isfinite(y)
        ]

    def dots(
        self, xs: Numbers, ys: Numbers, kind: str, tooltips: Sequence[str] | None = None
    ) -> None:
        """Draws points.

        Args:
            xs: Horizontal coordinates.
            ys: Vertical coordinates.
            kind: CSS class of the points.
            tooltips: Text for each point. If None, the points are smaller and have no tooltips.
        """
        if tooltips is None:
            # A line of length 0 with round ends (see style.css) is a dot.
            path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in self._points(xs, ys))
            self._marks.append(f'<path class="dots {kind}" d="{path}"/>')
            return
        for x, y, tooltip in zip(xs, ys, tooltips, strict=True):
            for px, py in self._points([x], [y]):
                title = f"<title>{escape(tooltip)}</title>"
                self._marks.append(
                    f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="3.5">{title}</circle>'
                )

    def bar(self, left: float, right: float, y: float, kind: str, tooltip: str) -> None:
        """Draws a bar from the lower end of the vertical axis up to ``y``, with a tooltip."""
        (x0, top), (x1, bottom) = self._at(left, y), self._at(right, self._y.low)
        self._marks.append(
            f'<rect class="{kind}" x="{x0:.1f}" y="{top:.1f}" width="{x1 - x0:.1f}" '
            f'height="{max(0.0, bottom - top):.1f}"><title>{escape(tooltip)}</title></rect>'
        )

    def text(self, x: float, y: float, text: str) -> None:
        """Writes a text that begins at a point."""
        px, py = self._at(x, y)
        self._marks.append(f'<text class="mark" x="{px:.1f}" y="{py:.1f}">{escape(text)}</text>')

    def line(
        self, xs: Numbers, ys: Numbers, kind: str, *, steps: bool = False, tooltip: str = ""
    ) -> None:
        """Draws a line through points.

        Args:
            xs: Horizontal coordinates.
            ys: Vertical coordinates.
            kind: CSS class of the line.
            steps: Whether the line is horizontal up to the next point.
            tooltip: Text for the line; empty: no tooltip.
        """
        points = self._points(xs, ys)
        if not points:
            return
        path = "M{:.1f} {:.1f}".format(*points[0])
        for x, y in points[1:]:
            path += f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}"
        title = f"<title>{escape(tooltip)}</title>" if tooltip else ""
        kind = f"{kind} hover" if tooltip else kind
        self._marks.append(f'<path class="line {kind}" d="{path}">{title}</path>')

    def horizontal(self, y: float, kind: str) -> None:
        """Draws a horizontal line across the chart."""
        self.line([self._x.low, self._x.high], [y, y], kind)

    def vertical(self, x: float, kind: str) -> None:
        """Draws a vertical line across the chart."""
        self.line([x, x], [self._y.low, self._y.high], kind)

    def _grid(self) -> str:
        marks = []
        room = self._width - _LEFT - _RIGHT
        for value, text in self._x.ticks(max(2, min(_TICKS, room // 62))):
            x, _ = self._at(value, self._y.low)
            low = self._height - self._bottom
            marks.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{low}"/>')
            marks.append(f'<text x="{x:.1f}" y="{low + 15}" class="mid">{escape(text)}</text>')
        for value, text in self._y.ticks(max(2, min(_TICKS, self._height // 40))):
            _, y = self._at(self._x.low, value)
            marks.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{self._width - _RIGHT}"/>')
            marks.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" class="end">{escape(text)}</text>')
        return "".join(marks)

    def _labels(self) -> str:
        middle = _TOP + (self._height - _TOP - self._bottom) / 2
        across = _LEFT + (self._width - _LEFT - _RIGHT) / 2
        return (
            f'<text class="mid label" x="{across}" y="{self._height - 8}">'
            f"{escape(self._x.label)}</text>"
            f'<text class="mid label" transform="translate(13 {middle}) rotate(-90)">'
            f"{escape(self._y.label)}</text>"
        )

    def svg(self) -> Markup:
        """Returns the drawing."""
        return Markup(
            f'<svg role="img" aria-label="{escape(self._title)}" '
            f'viewBox="0 0 {self._width} {self._height}">'
            f"{self._grid()}{''.join(self._marks)}{self._labels()}</svg>"
        )
