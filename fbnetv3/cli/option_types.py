"""Types of command-line options: numbers within a range."""

from __future__ import annotations

import argparse
from collections.abc import Callable

LARGEST_SEED = 2**63 - 1
"""Largest random seed of an option; torch takes seeds below 2^64, numpy takes any."""


def integer(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Returns a type of integers for argparse.

    Args:
        minimum: Smallest allowed integer, 0 or more.
        maximum: Largest allowed integer; None: there is no limit.

    Returns:
        Function that returns the integer of a text of decimal digits; it raises an
        ``argparse.ArgumentTypeError`` for any other text and for integers out of the range.
    """
    allowed = f">= {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def parse(text: str) -> int:
        # int() takes signs, spaces and underscores, too
        value = int(text) if text.isdecimal() else -1
        if value < minimum or (maximum is not None and value > maximum):
            raise argparse.ArgumentTypeError(f"must be an integer {allowed}, not {text!r}")
        return value

    return parse


def share(text: str) -> float:
    """Returns the number from 0 to 1 that a text holds, for argparse.

    Raises:
        argparse.ArgumentTypeError: The text is no number from 0 to 1.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")
    return value
