"""The base class of the project's exceptions, and helpers for their messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_MAX_CHARACTERS = 4_000
"""Largest number of characters of a message before escaping; longer ones lose their middle."""
_OF_DATA = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(RuntimeError, MemoryError, AssertionError),
)
"""Errors that values of an unexpected type, size or range cause in code that uses them."""


class FBNetError(Exception):
    """An error that a user can correct.

    Its message is a single line that says what is wrong (key, value, file), what is allowed and
    what to do: ``str`` escapes line breaks and control characters in the values that it quotes.
    Command-line tools print it without a traceback and exit with status 2.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


def one_line(text: str, limit: int = _MAX_CHARACTERS) -> str:
    """Returns a string as one line that is safe to print.

    Args:
        text: Any string, which may quote untrusted names.
        limit: Largest number of characters before escaping; the middle of a longer string is
            left out.

    Returns:
        The string with line breaks, control characters and the like as escape sequences.
    """
    if len(text) > limit:
        half = (limit - 5) // 2
        text = f"{text[:half]} ... {text[len(text) - half :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def data_errors(kind: type[FBNetError], what: str) -> Iterator[None]:
    """Turns errors that untrusted values cause in a block into an error of one line.

    Use it for values that are too varied to be checked one by one; explicit checks give better
    messages. An FBNetError is raised unchanged.

    Args:
        kind: Class of the error.
        what: Description of the values and their file: the beginning of the message.

    Raises:
        FBNetError: The block raised an error that the values caused; this error is a ``kind``.
    """
    try:
        yield
    except FBNetError:
        raise
    except _OF_DATA as error:
        reason = f"{type(error).__name__}: {first_line(error, 200)}"
        raise kind(f"{what} cannot be used ({reason}); correct it or use another file") from error


def first_line(error: BaseException, limit: int = 300) -> str:
    """Returns the first line of an exception's text, or its type's name if it has no text.

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
