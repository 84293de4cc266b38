"""Numbers on command lines."""

from __future__ import annotations

import argparse

import pytest

from fbnetv3.cli.option_types import integer, share


@pytest.mark.parametrize(
    ("limits", "text", "value"),
    [((0,), "0", 0), ((1,), "012", 12), ((2, 9), "9", 9), ((0,), "1" * 30, int("1" * 30))],
)
def test_integers_in_the_range(limits: tuple[int, ...], text: str, value: int) -> None:
    assert integer(*limits)(text) == value


@pytest.mark.parametrize(
    ("limits", "text", "allowed"),
    [
        ((0,), "-1", ">= 0"),
        ((1,), "0", ">= 1"),
        ((2, 9), "1", "from 2 to 9"),
        ((2, 9), "10", "from 2 to 9"),
        *(((0,), text, ">= 0") for text in ("", "x", "1.5", "1e3", "+1", "1_0", " 1", "nan")),
    ],
)
def test_other_texts_are_refused(limits: tuple[int, ...], text: str, allowed: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        integer(*limits)(text)
    assert str(refused.value) == f"must be an integer {allowed}, not {text!r}"


@pytest.mark.parametrize("text", ["-0.1", "1.1", "nan", "inf", "x", ""])
def test_shares(text: str) -> None:
    assert [share(good) for good in ("0", "0.3", "1")] == [0, 0.3, 1]
    with pytest.raises(argparse.ArgumentTypeError, match="must be a number from 0 to 1, not "):
        share(text)
