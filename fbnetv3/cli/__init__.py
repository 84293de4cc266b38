"""Console scripts; ``tools/*.py`` are thin wrappers of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from fbnetv3.errors import FBNetError


def run_main(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Runs a command; prints errors that a user can act on as one line, with exit status 2.

    Args:
        main: Takes the command-line arguments and returns the exit status.
        argv: Command-line arguments; None for those of this process.

    Returns:
        The exit status; 130 after Ctrl-C.
    """
    try:
        return main(argv)
    except FBNetError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def printable(text: str) -> str:
    """Escapes the unprintable characters of an untrusted text, which could control a terminal."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )
