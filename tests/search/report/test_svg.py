"""Axes, ticks and marks of a chart."""

from __future__ import annotations

import math
import re

import pytest

from fbnetv3.search.report.svg import Axis, Chart, short


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.5e6, "1.5M"), (2e9, "2G"), (9999, "9999"), (12345, "12.35k"), (0, "0"), (1e-5, "1e-05")],
)
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize("axis", [Axis("", 0.2, 9.7), Axis("", 1e-6, 3e-1, log=True)])
def test_ticks_lie_within_the_axis(axis: Axis) -> None:
    values = [value for value, _ in axis.ticks()]
    assert 3 <= len(values) <= 7
    assert all(axis.low <= v <= axis.high for v in values)
    assert values == sorted(values)


def test_coordinates_become_pixels() -> None:
    chart = Chart("c", Axis("x", 0, 10), Axis("y", 1, 100, log=True), width=172, height=156)
    chart.dots([0, 10, 5, math.nan], [1, 100, 10, 5], "k", ["a", "b", "c", "d"])
    pixels = re.findall(r'cx="(.*?)" cy="(.*?)"', chart.svg())
    assert pixels == [("58.0", "112.0"), ("158.0", "12.0"), ("108.0", "62.0")]
