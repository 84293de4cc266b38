"""The base class of the project's exceptions, and helpers for their messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FBNetError(Exception):
    """An error that a user can correct.

    Its message is a single line that says what is wrong (key, value, file), what is allowed and
    what to do. Command-line tools print it without a traceback and exit with status 2.
    """


def first_line(error: BaseException, limit: int = 300) -> str:
    """Returns the first line of an exception's text, or its type's name where it has no text.

    Args:
        error: Any exception.
        limit: Largest number of characters.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:limit]


def did_you_mean(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Returns ``"; did you mean a, b?"`` for the known names closest to ``name``, or ``""``."""
    by_lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=limit, cutoff=0.5)
    return f"; did you mean {', '.join(by_lower[c] for c in close)}?" if close else ""
