"""Console scripts; ``tools/*.py`` are thin wrappers of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from fbnetv3.errors import FBNetError


def run_main(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Runs ``main`` and turns errors that a user can act on into one line and exit status 2."""
    try:
        return main(argv)
    except FBNetError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def printable(text: str) -> str:
    """Returns a text of names that others gave, with what a terminal would act on written out."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )
